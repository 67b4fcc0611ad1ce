// What a world tells of a job, in words. Pure.
import type { Job } from "./api.ts";
import { bytes, under, words } from "./format.ts";

/** A job with the world that ordered it. */
export interface Ordered {
  world: string;
  job: Job;
}

export const running = ({ state }: Job): boolean => state !== "ended";

/** Where it is computed. */
export const where = ({ world, job }: Ordered): string => job.at ?? world;

/** What a job is, in a few words: a program that is no signed module has no name. */
export function called({ module, task }: Job): string {
  const kind = module ?? (task.engine === "sql" ? "Query" : task.engine === "wasm" ? "Module" : task.engine);
  const names = task.properties ?? [];
  const some = names.slice(0, 3).map(words).join(", ");
  return `${kind} over ${names.length === 0 ? "everything" : names.length > 3 ? `${some} and ${names.length - 3} more` : some}`;
}

/** How it stands, in words. */
export function said(o: Ordered): string {
  const { job: j, world } = o;
  const at = where(o);
  const p = j.progress;
  switch (j.state) {
    case "ordered":
      if (j.at === undefined) return p !== undefined && p.attempt > 0 ? `it runs in ${world}` : `it waits for its turn in ${world}`;
      return `it is ordered; ${at} hasn’t accepted it yet`;
    case "accepted":
      if (p?.state === "leased") return `it runs at ${at}`;
      return p?.state === "ready" ? `it waits for a worker of ${at}` : `${at} has accepted it, and is given what it lacks`;
    case "withdrawing":
      return `it is withdrawn; ${at} hasn’t signed yet that its keys are destroyed`;
    case "ended":
      return under(endings(at), j.outcome ?? "") ?? (j.output ? `done: ${bytes(j.output.size)} came out` : j.outcome === "done" ? "it was done" : `it ended: ${j.outcome ?? "nobody says how"}`);
  }
  return j.state;
}

const endings = (at: string): Record<string, string> => ({
  failed: "it failed",
  parked: `it ended workers of ${at}, and isn’t tried again`,
  expired: "its time was over",
  withdrawn: "it was withdrawn",
  refused: "it was refused",
  silent: `${at} didn’t answer in its time`,
  lied: `${at} signed what isn’t so`,
});

/** The job that all repetitions of one are of. */
export function first(j: Job, all: Job[]): Job {
  const seen = new Set<string>();
  for (let at = j; ; ) {
    const before = seen.has(at.id) ? undefined : all.find((k) => k.id === at.repeats);
    if (before === undefined) return at;
    seen.add(at.id);
    at = before;
  }
}

/** A job and all that were ordered to repeat it, in their order. */
export function family(j: Job, all: Job[]): Job[] {
  const root = first(j, all).id;
  return all.filter((k) => first(k, all).id === root).sort((p, q) => p.made.localeCompare(q.made));
}
