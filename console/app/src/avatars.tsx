import { useCallback, useEffect, useMemo, useRef, useState } from "preact/hooks";

import { ask, askIfThere, asRefusal, type Avatar, type Grant, history, type Identity, type LiveState, mayRead, maySurvey, type Measurement, type Principal, type Refusal, said, type Share, shows, state, type Thing } from "./api.ts";
import { ago, count, date, moment, plural, unit, value, words } from "./format.ts";
import { to, useAsk, useLive } from "./hooks.ts";
import { Items } from "./itemlist.tsx";
import { nameOf } from "./names.ts";
import { type Line, Plot, type Range, Values as ValueTable } from "./plot.tsx";
import { Choice, Counted, Empty, Failure, Figure, Loading, Rows, Section, Table } from "./ui.tsx";

interface Found {
  world: string;
  avatar: Avatar;
}

export function Avatars({ who, place }: { who: Identity; place: string[] }) {
  const worlds = who.parties.filter((p) => p.role === "world" && p.as);
  const { data, error, again } = useAsk<Found[]>(
    async (signal) => {
      const all = await Promise.all(worlds.map(async (p) => (await ask<{ avatars: Avatar[] }>(p.name, "/v1/avatars", signal)).avatars.map((avatar) => ({ world: p.name, avatar }))));
      return all.flat();
    },
    [who],
    5000,
  );
  const things = useThings(who);
  const called = (a: Avatar): string => nameOf(a.id, a.title, things ?? []);
  if (worlds.length === 0) {
    return (
      <>
        <h1>Avatars</h1>
        <Empty title="You have no world here.">{who.name} has no token of a world. Its operator can give one, under this name, to the console’s access file.</Empty>
      </>
    );
  }
  const found = data?.find((f) => f.world === place[0] && f.avatar.id === place[1]) ?? (place.length === 0 ? data?.[0] : undefined);
  return (
    <>
      <h1>Avatars</h1>
      {error && <Failure what="The avatars can’t be asked for." error={error} again={again} />}
      {data === undefined && !error && <Loading what="the avatars" />}
      {data?.length === 0 && (
        <Empty title="No avatars yet.">
          One is made when a thing is mapped to a world: <code>carnet thing map</code>
        </Empty>
      )}
      {data !== undefined && data.length > 0 && (
        <>
          <Choice
            label="Avatars"
            items={data.map((f) => ({ href: to("avatars", f.world, f.avatar.id), title: called(f.avatar), more: `in ${f.world}`, now: f === found }))}
          />
          {found ? (
            <One key={found.world + found.avatar.id} of={found} called={called(found.avatar)} who={who} things={things} />
          ) : (
            <Empty title="There is no such avatar.">
              See <a href={to("avatars")}>all avatars</a>.
            </Empty>
          )}
        </>
      )}
    </>
  );
}

function One({ of: { world, avatar }, called, who, things }: { of: Found; called: string; who: Identity; things: Thing[] | undefined }) {
  const readable = mayRead(who.parties.find((p) => p.name === world));
  const shares = useShares(world, avatar);
  const given = givenBy(avatar, things, shares);
  return (
    <article>
      <div class="title-row">
        <h2 class="big">
          {called} <span class="soft">in {world}</span>
        </h2>
        <dl class="figures inline">
          <Counted n={avatar.measurements} one="measurement" />
          <Counted n={avatar.batches} one="sealed batch" many="sealed batches" />
          <Counted n={avatar.streams} one="stream" />
          <Figure label="since">{date(avatar.created)}</Figure>
        </dl>
      </div>
      <p class="soft id">
        <code>{avatar.id}</code>
      </p>
      {readable ? (
        <Values world={world} avatar={avatar} given={given} />
      ) : (
        <Section title="State and history">
          <Empty title="Not for this role.">An auditor sees that there are measurements, and reads none.</Empty>
        </Section>
      )}
      <Items world={world} avatar={avatar.id} />
      <Grants world={world} avatar={avatar} who={who} />
      <Shares of={shares} />
    </article>
  );
}

/** Who else reads the avatar, where the world tells. */
function Grants({ world, avatar, who }: { world: string; avatar: Avatar; who: Identity }) {
  const [there, setThere] = useState(false);
  const { data, error, again } = useAsk<{ grants: Grant[]; principals: Principal[] } | undefined>(
    async (signal) => {
      const all = await askIfThere<{ grants: Grant[] | null }>(world, `/v1/avatars/${avatar.id}/grants`, signal);
      setThere(all !== undefined);
      if (all === undefined) return undefined;
      const grants = all.grants ?? [];
      const unnamed = grants.some((g) => g.to.application) && maySurvey(who.parties.find((p) => p.name === world));
      const known = unnamed ? await askIfThere<{ principals: Principal[] }>(world, "/v1/principals", signal) : undefined;
      return { grants, principals: known?.principals ?? [] };
    },
    [world, avatar.id, who],
    there ? 5000 : 0,
  );
  if (error) {
    return (
      <Section title="Grants">
        <Failure what="The grants can’t be asked for." error={error} again={again} />
      </Section>
    );
  }
  if (data === undefined) return null; // this world has none to tell, or not to this role
  return (
    <Section title="Grants" note="Who else may read it: applications, avatars of this world, and worlds that it is shared with.">
      {data.grants.length === 0 ? (
        <Empty title="Nobody else reads it.">
          Give a grant after reading what it would mean: <code>carnet grant --help</code>
        </Empty>
      ) : (
        <Rows
          caption="Grants about this avatar"
          columns={["To", "May", "What", "For", "Until"]}
          rows={data.grants.map((g) => ({
            key: g.id,
            cells: [
              receiver(g, data.principals), g.actions.join(", "), Object.keys(g.view.properties).map(words).join(", ") || "nothing", g.purpose,
              g.revoked ? <span class="trouble">revoked {date(g.revoked)}</span> : date(g.expires),
            ],
          }))}
        />
      )}
    </Section>
  );
}

/** To whom a grant is; an application by its name, where who is signed in may know it. */
const receiver = ({ to: t }: Grant, principals: Principal[]): string =>
  t.application ? `application ${principals.find((p) => p.id === t.application)?.name ?? t.application}` : t.avatar ? `avatar ${t.avatar.slice(0, 8)}` : `${t.did?.slice(0, 20) ?? "an avatar"}… in ${t.platform ?? "another world"}`;

/** What it gives to avatars in other worlds, and takes from there, where the world tells. */
function useShares(world: string, avatar: Avatar): Share[] | undefined {
  const [there, setThere] = useState(false);
  const { data } = useAsk<Share[] | undefined>(
    async (signal) => {
      const all = await askIfThere<{ shares: Share[] | null }>(world, `/v1/avatars/${avatar.id}/shares`, signal);
      setThere(all !== undefined);
      return all && (all.shares ?? []);
    },
    [world, avatar.id],
    there ? 5000 : 0,
  );
  return data;
}

/** All things that who is signed in may see; undefined while they aren't there. */
function useThings(who: Identity): Thing[] | undefined {
  const agents = who.parties.filter((p) => p.role === "things" && p.as);
  const { data } = useAsk<Thing[]>(
    async (signal) => (await Promise.all(agents.map(async (p) => (await askIfThere<{ things: Thing[] }>(p.name, "/v1/things", signal))?.things ?? []))).flat(),
    [who],
    agents.length > 0 ? 5000 : 0,
  );
  return data;
}

/**
 * Says whether something in force gives a property, as the world says or, where it
 * hasn't been told, as far as can be seen: by a mapping's view, or a share. Where not all
 * that gives to the avatar is known, as to whom a things agent doesn't show its
 * mappings, nothing is said to be given no longer.
 */
function givenBy(avatar: Avatar, things: Thing[] | undefined, shares: Share[] | undefined): (name: string) => boolean {
  const withdrawn = avatar.withdrawn ?? [];
  const mappings = (things ?? []).flatMap((t) => t.mappings).filter((m) => m.avatar === avatar.id);
  if (things === undefined || shares === undefined || mappings.length < avatar.streams - (avatar.shared_streams ?? 0)) return (name) => !withdrawn.includes(name);
  const given = [
    ...mappings.filter((m) => !m.stopped).map((m) => m.view),
    ...shares.filter((s) => s.direction === "taking" && s.ended === undefined).flatMap((s) => (s.view ? [s.view] : [])),
  ];
  return (name) => !withdrawn.includes(name) && given.some((v) => shows(v, name));
}

/** How a share is, in a word or two. */
function standing(s: Share): string {
  if (s.ended) return `${s.view ? "ended" : "refused"}: ${s.ended.why}`;
  if (s.held) return `held: ${s.held}`;
  if (!s.view) return "asked, not answered yet";
  return s.waits ? "waits" : "in force";
}

function Shares({ of }: { of: Share[] | undefined }) {
  if (of === undefined || of.length === 0) return null;
  return (
    <Section title="Shares with other worlds" note="Live, inside a peering, as both sides’ policies admit. The owner ends one by withdrawing its mandate.">
      <Rows
        caption="Shares of this avatar"
        columns={["Way", "What", "For", "Since, until", "Now"]}
        rows={of.map((s) => ({
          key: s.id,
          cells: [
            `${s.direction === "giving" ? "gives to" : "takes from"} ${s.world}`,
            <>
              {s.view ? Object.keys(s.view.properties).filter((n) => !s.withdrawn?.includes(n)).map(words).join(", ") || "nothing now" : s.ended ? "nothing" : "not known yet"}
              {(s.withdrawn ?? []).length > 0 && <span class="soft"> not now {s.withdrawn!.map(words).join(", ")}: {s.direction === "giving" ? `it isn’t given that, or ${s.world} may not have it` : `${s.world} isn’t given that, or it may not come here`}</span>}
              {s.onward && <span class="soft"> may be passed on</span>}
            </>,
            s.purpose,
            `${date(s.begun)}, ${s.until ? date(s.until) : "–"}`,
            <>
              {standing(s)}
              {s.mandate && !s.ended && (
                <>
                  {" "}
                  <span class="soft">
                    to end it: <code>carnet owner withdraw {s.mandate.replace("urn:uuid:", "")} --keystore FILE</code>
                  </span>
                </>
              )}
            </>,
          ],
        }))}
      />
    </Section>
  );
}

/** What an avatar says, now and before. */
function Values({ world, avatar, given }: { world: string; avatar: Avatar; given: (name: string) => boolean }) {
  const first = useAsk<Measurement[]>((signal) => state(world, avatar.id, signal), [world, avatar.id]);
  const [latest, setLatest] = useState(new Map<string, Measurement>());
  const takers = useRef(new Set<(ms: Measurement[]) => void>());
  const waiting = useRef<Measurement[]>([]);
  useEffect(() => {
    if (first.data) setLatest((old) => newer(old, first.data!));
  }, [first.data]);
  // Values come in bursts; the page is drawn twice a second at most.
  useEffect(() => {
    const timer = setInterval(() => {
      const ms = waiting.current;
      if (ms.length === 0) return;
      waiting.current = [];
      setLatest((old) => newer(old, ms));
      for (const take of takers.current) take(ms);
    }, 500);
    return () => clearInterval(timer);
  }, []);
  const live = useLive(world, avatar.id, (ms) => {
    waiting.current.push(...ms);
  });
  const listen = useCallback((f: (ms: Measurement[]) => void) => {
    takers.current.add(f);
    return () => void takers.current.delete(f);
  }, []);
  const names = [...new Set([...avatar.properties, ...latest.keys()])].sort();
  return (
    <>
      <Section title="State" note={<Live is={live} />}>
        {first.error && <Failure what="The state can’t be asked for." error={first.error} again={first.again} />}
        {!first.data && !first.error && <Loading what="the state" />}
        {first.data && latest.size === 0 && <Empty title="Nothing yet.">The first value that the view admits appears here.</Empty>}
        {latest.size > 0 && (
          <ul class="state">
            {[...latest.values()]
              .sort((a, b) => a.n.localeCompare(b.n))
              .map((m) => (
                <li key={m.n} class={given(m.n) ? "card" : "card old"} data-state={m.n}>
                  <span class="name">{words(m.n)}</span>
                  <span class="value">
                    {value(said(m))} <span class="unit">{unit(m.u)}</span>
                  </span>
                  <span class="soft">
                    {ago(m.t * 1000)}
                    {!given(m.n) && ", no longer given"}
                  </span>
                </li>
              ))}
          </ul>
        )}
      </Section>
      {names.length > 0 && <History world={world} avatar={avatar} names={names} units={latest} listen={listen} />}
    </>
  );
}

function newer(old: Map<string, Measurement>, ms: Measurement[]): Map<string, Measurement> {
  const map = new Map(old);
  for (const m of ms) if (m.t >= (map.get(m.n)?.t ?? -Infinity)) map.set(m.n, m);
  return map;
}

const Live = ({ is }: { is: LiveState }) => (
  <span class={"live " + is} role="status">
    {is === "live" ? "Live" : is === "connecting" ? "Connecting…" : "Interrupted; connecting again, nothing is lost"}
  </span>
);

const spans = [
  { label: "5 min", seconds: 300 },
  { label: "1 h", seconds: 3600 },
  { label: "6 h", seconds: 6 * 3600 },
  { label: "24 h", seconds: 24 * 3600 },
  { label: "7 days", seconds: 7 * 24 * 3600 },
];

/** How many values a plot takes at most. */
const most = 100_000;

interface Past {
  times: number[];
  values: (number | null)[];
  texts: Measurement[]; // where the values aren't numbers
  rest: boolean; // there is more than was asked for
}

function History({ world, avatar, names, units, listen }: {
  world: string; avatar: Avatar; names: string[]; units: Map<string, Measurement>; listen: (f: (ms: Measurement[]) => void) => () => void;
}) {
  const [name, setName] = useState(names[0]!);
  const [range, setRange] = useState<Range>(() => ({ from: Date.now() / 1000 - 300, to: Date.now() / 1000 }));
  const [following, setFollowing] = useState(true);
  const [past, setPast] = useState<Past>();
  const [error, setError] = useState<Refusal>();
  const [turn, setTurn] = useState(0);
  const asked = useRef(range); // the range that past is of
  const seconds = range.to - range.from;
  const u = unit(units.get(name)?.u);

  // While it follows, the range moves with the clock, and what comes live is added:
  // only another span or property is asked for.
  const want = following ? `${Math.round(seconds)}` : `${range.from}-${range.to}`;
  useEffect(() => {
    const leave = new AbortController();
    const to = following ? Date.now() / 1000 : range.to;
    const from = to - seconds;
    asked.current = { from, to };
    setError(undefined);
    read(world, avatar.id, name, from, following ? undefined : to, leave.signal).then(setPast, (e: unknown) => leave.signal.aborted || setError(asRefusal(e)));
    return () => leave.abort();
  }, [world, avatar.id, name, want, turn]);
  useEffect(() => setPast(undefined), [name]);
  useEffect(() => {
    if (!following) return;
    const timer = setInterval(() => {
      if (!document.hidden) setRange((r) => ({ from: Date.now() / 1000 - (r.to - r.from), to: Date.now() / 1000 }));
    }, 1000);
    const stop = listen((ms) =>
      setPast((p) => {
        const mine = ms.filter((m) => m.n === name && m.t >= (p?.times.at(-1) ?? 0));
        return p && mine.length > 0 ? append(p, mine) : p;
      }),
    );
    return () => {
      clearInterval(timer);
      stop();
    };
  }, [following, name, listen]);

  const go = (r: Range): void => {
    const now = Date.now() / 1000;
    const length = Math.max(2, r.to - r.from);
    const to = Math.min(r.to, now);
    setFollowing(false);
    setRange({ from: to - length, to });
  };
  const zoom = (by: number): void => {
    if (following) {
      setRange((r) => ({ from: r.to - Math.max(10, seconds * by), to: r.to }));
      return;
    }
    const middle = (range.from + range.to) / 2;
    go({ from: middle - (seconds * by) / 2, to: middle + (seconds * by) / 2 });
  };
  const move = (by: number): void => go({ from: range.from + seconds * by, to: range.to + seconds * by });
  const last = (length: number): void => {
    setFollowing(true);
    setRange({ from: Date.now() / 1000 - length, to: Date.now() / 1000 });
  };
  const lines: Line[] = useMemo(() => (past ? [{ name: words(name), colour: "line-2", times: past.times, values: past.values }] : []), [past, name]);
  const numeric = past === undefined || past.texts.length === 0;
  const empty = past !== undefined && past.times.length === 0 && past.texts.length === 0;
  return (
    <Section title="History" note="By measured time. Drag over the plot, or use the buttons, to look closer.">
      <div class="tools">
        <label>
          Property
          <select value={name} onChange={(e) => setName(e.currentTarget.value)}>
            {names.map((n) => (
              <option key={n} value={n}>
                {words(n)}
              </option>
            ))}
          </select>
        </label>
        <div class="buttons" role="group" aria-label="The last">
          {spans.map((s) => (
            <button key={s.label} type="button" class="small" aria-pressed={following && Math.round(seconds) === s.seconds} onClick={() => last(s.seconds)}>
              {s.label}
            </button>
          ))}
        </div>
        <div class="buttons" role="group" aria-label="Zoom and move">
          <button type="button" class="small" onClick={() => move(-0.5)} aria-label="Earlier">
            ←
          </button>
          <button type="button" class="small" onClick={() => zoom(0.5)} aria-label="Zoom in">
            +
          </button>
          <button type="button" class="small" onClick={() => zoom(2)} aria-label="Zoom out">
            −
          </button>
          <button type="button" class="small" onClick={() => move(0.5)} aria-label="Later" disabled={following}>
            →
          </button>
        </div>
        <label class="tick">
          <input type="checkbox" checked={following} onChange={(e) => (e.currentTarget.checked ? last(seconds) : setFollowing(false))} /> Follow
        </label>
      </div>
      <p class="soft" data-range>
        {moment(range.from * 1000)} to {following ? "now" : moment(range.to * 1000)}
        {past && `, ${plural(past.times.length + past.texts.length, "value")}`}
      </p>
      {error && <Failure what="The history can’t be asked for." error={error} again={() => setTurn(turn + 1)} />}
      {past === undefined && !error && <Loading what="the history" />}
      {past?.rest && <p class="trouble">There is more than {count(most)} values in this stretch: the oldest are shown. Zoom in.</p>}
      {empty && <Empty title="Nothing was measured here.">Choose an earlier or a longer stretch.</Empty>}
      {past !== undefined && numeric && !empty && (
        <div class="card">
          <Plot lines={lines} range={range} label={words(name)} unit={u} height={280} zoom={go} />
          <ValueTable lines={lines} unit={u} label={words(name)} />
        </div>
      )}
      {past !== undefined && !numeric && (
        <Table caption={`Values of ${words(name)}`}>
          <thead>
            <tr>
              <th scope="col">Measured</th>
              <th scope="col">Value</th>
            </tr>
          </thead>
          <tbody>
            {past.texts.slice(-200).reverse().map((m) => (
              <tr key={m.t}>
                <td>{date(m.t * 1000)}</td>
                <td>{value(said(m))}</td>
              </tr>
            ))}
          </tbody>
        </Table>
      )}
    </Section>
  );
}

/** Reads a stretch of history, page by page. */
async function read(world: string, avatar: string, property: string, from: number, to: number | undefined, signal: AbortSignal): Promise<Past> {
  let past: Past = { times: [], values: [], texts: [], rest: false };
  for (let at = from; ; ) {
    const q: Parameters<typeof history>[2] = { from: at, property, limit: 20_000 };
    if (to !== undefined) q.to = to;
    const page = await history(world, avatar, q, signal);
    past = append(past, page.measurements.filter((m) => m.n === property));
    if (page.next === undefined) return past;
    if (past.times.length + past.texts.length >= most) return { ...past, rest: true };
    at = page.next;
  }
}

function append(p: Past, ms: Measurement[]): Past {
  const times = [...p.times];
  const values = [...p.values];
  const texts = [...p.texts];
  for (const m of ms) {
    const v = said(m);
    if (typeof v !== "number") texts.push(m);
    else if (times.at(-1) === m.t) values[values.length - 1] = v;
    else {
      times.push(m.t);
      values.push(v);
    }
  }
  return { times, values, texts, rest: p.rest };
}
