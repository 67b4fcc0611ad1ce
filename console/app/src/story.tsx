import { useRef, useState } from "preact/hooks";

import { asActs, type Known } from "./acts.ts";
import { askIfThere, type Avatar, type Crossing, type Identity, type Job, maySurvey, type Module, type Share, type Thing } from "./api.ts";
import { useFlows } from "./asking.ts";
import { count, moment } from "./format.ts";
import { useAsk, useWidth } from "./hooks.ts";
import { merged } from "./moves.ts";
import { Picture } from "./picture.tsx";
import { type Acts, drawn, noActs, now, past, type Sentence, type Told } from "./telling.ts";
import { Empty, Failure, Loading, Section, sentence } from "./ui.tsx";

const nothing: Omit<Told, "acts"> = { things: [], avatars: [], jobs: [], modules: [], moves: [], shares: [] };

/** Asks whoever may be asked for what is told. */
async function told(who: Identity, signal: AbortSignal): Promise<Omit<Told, "acts">> {
  const may = who.parties.filter((p) => p.as !== undefined);
  const worlds = may.filter((p) => p.role === "world");
  const surveyed = worlds.filter(maySurvey);
  const each = async <T, U>(parties: { name: string }[], path: string, of: (answer: T) => U[] | null | undefined): Promise<{ party: string; one: U }[]> =>
    (await Promise.all(parties.map(async ({ name }) => ((a) => (a === undefined ? [] : (of(a) ?? [])).map((one) => ({ party: name, one })))(await askIfThere<T>(name, path, signal))))).flat();
  const [things, avatars, jobs, modules, crossings, shares] = await Promise.all([
    each<{ things: Thing[] | null }, Thing>(may.filter((p) => p.role === "things"), "/v1/things", (a) => a.things),
    each<{ avatars: Avatar[] | null }, Avatar>(worlds, "/v1/avatars", (a) => a.avatars),
    each<{ jobs: Job[] | null }, Job>(surveyed, "/v1/jobs", (a) => a.jobs),
    each<{ modules: Module[] | null }, Module>(surveyed, "/v1/modules", (a) => a.modules),
    each<{ crossings: Crossing[] | null }, Crossing>(surveyed, "/v1/crossings", (a) => a.crossings),
    each<{ shares: Share[] | null }, Share>(surveyed, "/v1/shares", (a) => a.shares),
  ]);
  return {
    things: things.map(({ party, one }) => ({ agent: party, thing: one })),
    avatars: avatars.map(({ party, one }) => ({ world: party, avatar: one })),
    jobs: jobs.map(({ party, one }) => ({ world: party, job: one })),
    modules: modules.map(({ party, one }) => ({ world: party, module: one })),
    moves: merged(crossings.map(({ party, one }) => ({ party, crossing: one }))),
    shares: shares.map(({ party, one }) => ({ world: party, share: one })),
  };
}

const mostTold = 30;

export function Story({ who }: { who: Identity }) {
  const { answers, flows } = useFlows(who);
  const { data, error, again } = useAsk<Omit<Told, "acts">>((signal) => told(who, signal), [who], 2000);
  const known = useRef<Known>(new Map());
  const acts = useAsk<Acts>((signal) => asActs(who, known.current, signal), [who], 10_000);
  const [box, width] = useWidth<HTMLDivElement>();
  const [whole, setWhole] = useState(false);
  const t: Told = { ...(data ?? nothing), acts: acts.data ?? noActs };
  const happening = now(t, answers ?? [], flows);
  const happened = past(t);
  const limited = who.parties.some((p) => p.role === "world" && !maySurvey(p));
  return (
    <>
      <h1>Story</h1>
      <p class="lead">What is happening now, in words, along the picture of the parties; and how it came to that.</p>
      <div class="picture" ref={box}>
        {width > 0 && <Picture width={width} who={who} answers={answers ?? []} flows={drawn(t, flows)} more="What happens is said below." />}
      </div>
      {(error ?? acts.error) && <Failure what="Not everything can be told." error={(error ?? acts.error)!} again={error ? again : acts.again} />}
      {(data === undefined || answers === undefined) && !error && <Loading what="the story" />}
      {answers !== undefined && (
        <Section title="Now" note={limited ? "As far as those may know who you are to the parties." : "As the parties tell it, every two seconds."}>
          {happening.length === 0 ? (
            <Empty title="Nothing happens.">Devices that tell something, jobs and moves are told here.</Empty>
          ) : (
            <ul class="told now">
              {happening.map((s) => (
                <li key={s.key}>
                  <Said of={s} />
                </li>
              ))}
            </ul>
          )}
        </Section>
      )}
      {data !== undefined && (
        <Section title="What happened" note="The newest first.">
          {happened.length === 0 ? (
            <Empty title="Nothing yet.">It begins with a thing: <code>carnet thing add</code></Empty>
          ) : (
            <ol class="told">
              {happened.slice(0, whole ? undefined : mostTold).map((e) => (
                <li key={e.key}>
                  <time dateTime={new Date(e.at).toISOString()}>{moment(e.at)}</time>
                  <Said of={e} />
                </li>
              ))}
            </ol>
          )}
          {!whole && happened.length > mostTold && (
            <button type="button" class="small after" onClick={() => setWhole(true)}>
              Show all {count(happened.length)}
            </button>
          )}
        </Section>
      )}
    </>
  );
}

const Said = ({ of: s }: { of: Sentence }) => (
  <p>
    <span class={s.trouble ? "trouble" : undefined}>{s.href ? <a href={s.href}>{sentence(s.says)}</a> : sentence(s.says)}</span> {s.more && <span class="soft">{sentence(s.more)}</span>}
  </p>
);
