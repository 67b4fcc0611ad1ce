import type { ComponentChildren } from "preact";
import { useEffect, useErrorBoundary, useRef, useState } from "preact/hooks";

import { asRefusal, type Identity, Refusal, signOut, whenOver, whoAmI } from "./api.ts";
import { Avatars } from "./avatars.tsx";
import { Crossings } from "./crossings.tsx";
import { Stamp, ThemeChoice } from "./frame.tsx";
import { to, usePlace } from "./hooks.ts";
import { Jobs } from "./jobs.tsx";
import { Overview } from "./overview.tsx";
import { SignIn } from "./signin.tsx";
import { Story } from "./story.tsx";
import { Things } from "./things.tsx";
import { Empty, Failure, Loading } from "./ui.tsx";

const pages = [
  { at: "overview", title: "Overview" },
  { at: "things", title: "Things" },
  { at: "avatars", title: "Avatars" },
  { at: "crossings", title: "Crossings" },
  { at: "jobs", title: "Jobs" },
  { at: "story", title: "Story" },
] as const;

type Who = { state: "asking" } | { state: "nobody"; why?: Refusal } | { state: "failed"; why: Refusal } | { state: "in"; who: Identity };

export function App() {
  const [who, setWho] = useState<Who>({ state: "asking" });
  const ask = (): void => {
    setWho({ state: "asking" });
    whoAmI().then(
      (i) => setWho(i ? { state: "in", who: i } : { state: "nobody" }),
      (e: unknown) => setWho({ state: "failed", why: asRefusal(e) }),
    );
  };
  useEffect(() => {
    whenOver((why) => setWho({ state: "nobody", why }));
    ask();
  }, []);
  switch (who.state) {
    case "asking":
      return (
        <main class="alone">
          <Loading what="the console" />
        </main>
      );
    case "failed":
      return (
        <main class="alone">
          <h1>Carnet</h1>
          <Failure what="The console can't be reached." error={who.why} again={ask} />
        </main>
      );
    case "nobody":
      return <SignIn why={who.why} done={(i) => setWho({ state: "in", who: i })} />;
    case "in":
      return <Shell who={who.who} left={() => setWho({ state: "nobody" })} />;
  }
}

function Shell({ who, left }: { who: Identity; left: () => void }) {
  const place = usePlace();
  const page = pages.find((p) => p.at === (place[0] ?? "overview"));
  const main = useRef<HTMLElement>(null);
  const first = useRef(true);
  useEffect(() => {
    document.title = `${page?.title ?? "Not found"} · Carnet`;
    // Who goes to another page by keyboard or screen reader is at its beginning.
    if (!first.current) main.current?.focus();
    first.current = false;
  }, [page?.at]);
  return (
    <>
      <a class="skip" href="#main" onClick={(e) => { e.preventDefault(); main.current?.focus(); }}>
        Skip to the content
      </a>
      <header class="top">
        <a class="brand" href={to("overview")}>
          <Stamp /> Carnet
        </a>
        <nav aria-label="Pages">
          <ul>
            {pages.map((p) => (
              <li key={p.at}>
                <a href={to(p.at)} aria-current={page?.at === p.at ? "page" : undefined}>
                  {p.title}
                </a>
              </li>
            ))}
          </ul>
        </nav>
        <Person who={who} left={left} />
      </header>
      <main id="main" ref={main} tabIndex={-1}>
        <Drawn key={page?.at} title={page?.title} of={place.join("/")}>
          {page?.at === "overview" && <Overview who={who} />}
          {page?.at === "things" && <Things who={who} place={place.slice(1)} />}
          {page?.at === "avatars" && <Avatars who={who} place={place.slice(1)} />}
          {page?.at === "crossings" && <Crossings who={who} place={place.slice(1)} />}
          {page?.at === "jobs" && <Jobs who={who} place={place.slice(1)} />}
          {page?.at === "story" && <Story who={who} />}
        </Drawn>
        {page === undefined && (
          <>
            <h1>Not found</h1>
            <Empty title="There is no such page.">
              Go to the <a href={to("overview")}>overview</a>.
            </Empty>
          </>
        )}
      </main>
    </>
  );
}

/** A page, or that it can't be drawn: a party may answer what no party answers, and the other pages go on. */
function Drawn({ title, of, children }: { title: string | undefined; of: string; children: ComponentChildren }) {
  const [error, again] = useErrorBoundary();
  useEffect(again, [of]);
  if (error === undefined) return <>{children}</>;
  return (
    <>
      <h1>{title}</h1>
      <Failure what="This page can’t be drawn." error={new Refusal(0, "A party answered something else than what the page knows.", "Try again, or go to another page; what each party answers is at its own address.")} again={again} />
    </>
  );
}

function Person({ who, left }: { who: Identity; left: () => void }) {
  const menu = useRef<HTMLDetailsElement>(null);
  const [error, setError] = useState<Refusal>();
  useEffect(() => {
    const away = (e: Event): void => {
      const m = menu.current;
      if (!m?.open) return;
      if (e instanceof KeyboardEvent ? e.key === "Escape" : !m.contains(e.target as Node)) {
        m.open = false;
        if (e instanceof KeyboardEvent) m.querySelector("summary")?.focus();
      }
    };
    addEventListener("pointerdown", away);
    addEventListener("keydown", away);
    return () => {
      removeEventListener("pointerdown", away);
      removeEventListener("keydown", away);
    };
  }, []);
  const leave = (everywhere: boolean): void => {
    signOut(everywhere).then(left, (e: unknown) => {
      // Signed out already is signed out.
      if (asRefusal(e).status === 401) left();
      else setError(asRefusal(e));
    });
  };
  return (
    <details class="person" ref={menu}>
      <summary>
        <span class="who">{who.name}</span>
        <span class="unseen">, signed in{who.role !== who.name && ` as ${who.role}`}: account</span>
      </summary>
      <div class="sheet">
        <p>
          Signed in as <strong>{who.name}</strong>
          {who.role !== who.name && `, ${who.role}`}
        </p>
        <dl>
          {who.parties.map((p) => (
            <div key={p.name}>
              <dt>{p.name}</dt>
              <dd>{p.as ?? "no token"}</dd>
            </div>
          ))}
        </dl>
        <ThemeChoice />
        {error && <Failure what="Not signed out." error={error} />}
        <button type="button" onClick={() => leave(false)}>
          Sign out
        </button>
        <button type="button" class="quiet" onClick={() => leave(true)}>
          Sign out everywhere
        </button>
      </div>
    </details>
  );
}
