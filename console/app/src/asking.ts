// Asking the parties how they are, again and again, for the pages that show what goes
// on between them.
import { useEffect, useRef, useState } from "preact/hooks";

import { ask, askIfThere, asRefusal, type Identity, maySurvey, type Reached, type Refusal, type Share, type Status, type Thing } from "./api.ts";
import { type Answer, type Flow, Meter, type Own } from "./flows.ts";

const every = 2000;

/** Asks every party for its status, and works out what goes on between them. */
export function useFlows(who: Identity): { answers: Answer[] | undefined; flows: Flow[] } {
  const [answers, setAnswers] = useState<Answer[]>();
  const [flows, setFlows] = useState<Flow[]>([]);
  const meter = useRef(new Meter());
  const forbidden = useRef(new Map<string, Refusal>()); // a role doesn't change under a session: it is asked once
  useEffect(() => {
    const leave = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const go = async (): Promise<void> => {
      if (!document.hidden) {
        const all = await Promise.all(
          who.parties.map(async (party): Promise<Answer> => {
            if (!maySurvey(party)) return party.as && party.role === "things" ? { party, ...(await ownOf(party, who, leave.signal)) } : { party };
            const no = forbidden.current.get(party.name);
            if (no) return { party, error: no };
            try {
              const status = ask<Status>(party.name, "/v1/status", leave.signal);
              if (party.role !== "things") return { party, status: await status };
              const things = askIfThere<{ things: Thing[] }>(party.name, "/v1/things", leave.signal).then((t) => t && { things: t.things }, () => undefined);
              return { party, status: await status, ...(await things) };
            } catch (e) {
              const error = asRefusal(e);
              if (error.status === 403) forbidden.current.set(party.name, error);
              return { party, error };
            }
          }),
        );
        if (leave.signal.aborted) return;
        setAnswers(all);
        setFlows(meter.current.take(who, all));
      }
      timer = setTimeout(() => void go(), every);
    };
    void go();
    return () => {
      leave.abort();
      clearTimeout(timer);
    };
  }, [who]);
  return { answers, flows };
}

/** What goes on with the things of who is signed in, where the agent tells no more. */
async function ownOf(agent: Reached, who: Identity, signal: AbortSignal): Promise<{ own?: Own; error?: Refusal }> {
  try {
    const { things } = await ask<{ things: Thing[] }>(agent.name, "/v1/things", signal);
    const mine = things.flatMap((t) => t.mappings).filter((m) => !m.stopped && who.parties.some((p) => p.name === m.world && p.as));
    const shares = await Promise.all(
      mine.map(async (m) => {
        const all = await askIfThere<{ shares: Share[] | null }>(m.world, `/v1/avatars/${m.avatar}/shares`, signal).catch(() => undefined);
        return (all?.shares ?? []).filter((s) => s.direction === "giving" && !s.ended).map((share) => ({ from: m.world, share }));
      }),
    );
    return { own: { things, shares: shares.flat(), time: Date.now() / 1000 } };
  } catch (e) {
    return { error: asRefusal(e) };
  }
}
