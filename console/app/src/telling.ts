// What the parties tell, as a story: what is happening now and what happened before, in
// sentences. Pure.
import type { Avatar, Module, Share, Thing } from "./api.ts";
import type { Answer, Flow } from "./flows.ts";
import { rate, words } from "./format.ts";
import { to } from "./hooks.ts";
import { arrived, type Move, over, said as saidOfMove, title } from "./moves.ts";
import { called, type Ordered, running, said as saidOfJob, where } from "./work.ts";

/** What was told, by whoever could be asked. */
export interface Told {
  things: { agent: string; thing: Thing }[];
  avatars: { world: string; avatar: Avatar }[];
  jobs: Ordered[];
  modules: { world: string; module: Module }[];
  moves: Move[];
  shares: { world: string; share: Share }[];
}

/** A sentence, and where there is more about it. */
export interface Sentence {
  key: string;
  says: string;
  more?: string; // a second one
  href?: string;
  trouble?: boolean;
}

/** A sentence about a moment. */
export interface Happened extends Sentence {
  at: number; // ms
}

/** How an avatar is called. */
const nameOf = (t: Told, world: string, id: string | undefined): string =>
  t.avatars.find((a) => a.world === world && a.avatar.id === id)?.avatar.title || `avatar ${(id ?? "").slice(0, 8)}`;

/** Which avatar of its source moves. */
const leaver = ({ source, target }: Move): string | undefined => source?.crossing.ours ?? target?.crossing.theirs;

const mover = (t: Told, m: Move): string => {
  // One that has moved since is where it moved to.
  const since = t.moves.filter((o) => o !== m && o.from === m.from && leaver(o) !== undefined && leaver(o) === leaver(m));
  for (const side of [m.target, m.source, ...since.map((o) => o.target)]) {
    const found = side && t.avatars.find((a) => a.world === side.party && a.avatar.id === side.crossing.ours)?.avatar.title;
    if (found) return found;
  }
  return title(m);
};

const lower = (s: string): string => s.charAt(0).toLowerCase() + s.slice(1);

/** A job in a sentence's middle. */
const work = ({ job: j }: Ordered): string => (j.module !== undefined ? called(j) : `${/^[aeiou]/i.test(called(j)) ? "an" : "a"} ${lower(called(j))}`);

const named = (ns: string[]): string => (ns.length < 2 ? (ns[0] ?? "") : `${ns.slice(0, -1).join(", ")} and ${ns.at(-1)}`);

/** What is happening, the unusual first. */
export function now(t: Told, answers: Answer[], flows: Flow[]): Sentence[] {
  const list: Sentence[] = [];
  for (const { party, error } of answers) {
    if (error && error.status !== 403) list.push({ key: `down ${party.name}`, says: `${party.name} doesn’t answer`, more: error.reason, trouble: true });
  }
  for (const f of flows) if (f.trouble) list.push({ key: `trouble ${f.id} ${f.what}`, says: `From ${f.from} to ${f.to}: ${f.trouble}`, trouble: true });
  for (const m of t.moves.filter((m) => !over(m))) {
    list.push({ key: `move ${m.id}`, says: `${mover(t, m)} ${arrived(m) ? "has moved" : "is to move"} from ${m.from} to ${m.to}`, more: saidOfMove(m), href: to("crossings", m.id) });
  }
  for (const o of t.jobs.filter((o) => running(o.job))) {
    const p = o.job.progress;
    const far = p && p.attempt > 0 ? `, ${(p.permille / 10).toFixed(0)} % read` : "";
    list.push({ key: `job ${o.job.id}`, says: o.job.at === undefined ? `${o.world} itself computes ${work(o)}` : `${o.world} has ${o.job.at} compute ${work(o)}`, more: saidOfJob(o) + far, href: to("jobs", o.world, o.job.id) });
  }
  for (const f of flows) {
    const s = flowing(t, f);
    if (s !== undefined) list.push({ key: `flow ${f.id} ${f.what}`, ...s });
  }
  return list;
}

/** What goes over a reference point, in a sentence; undefined: it isn't part of the story. */
function flowing(t: Told, f: Flow): Omit<Sentence, "key"> | undefined {
  if (f.perSecond === undefined && f.now === undefined) return undefined; // nothing can be said yet
  const moving = (f.perSecond ?? f.now ?? 0) > 0;
  const much = f.perSecond === undefined ? "" : `${rate(f.perSecond)} ${f.what} a second`;
  switch (f.point) {
    case "Devices": {
      const who = named(t.things.filter((x) => x.agent === f.to && x.thing.connected > 0).map((x) => x.thing.title)) || "The devices";
      return { says: moving ? `${who} tell${who === "The devices" || who.includes(" and ") ? "" : "s"} ${f.to} ${much}` : `No device tells ${f.to} anything`, href: to("things") };
    }
    case "R1": {
      if (!moving) return { says: `${f.to} gets nothing of ${f.from} at the moment` };
      const got = t.things.flatMap((x) => (x.agent === f.from ? x.thing.mappings : [])).filter((m) => m.world === f.to && !m.stopped);
      const what = [...new Set(got.flatMap((m) => Object.keys(m.view.properties)))].map(words);
      return { says: `${f.from} passes on to ${f.to} ${much}`, ...(what.length > 0 && { more: `its owner lets it have ${named(what)}` }), href: to("avatars") };
    }
    case "R2":
      return moving && f.perSecond !== undefined ? { says: `${f.to} gives ${f.from} ${rate(f.perSecond)} receipts a second for what it states` } : undefined;
    case "R5":
      if (f.perSecond !== undefined) return moving ? { says: `${f.from} shares with ${f.to}, ${much}` } : { says: `${f.from} has a share with ${f.to}, and nothing new to give` };
      return f.now !== undefined && f.now > 0 && f.what === "shares" ? { says: `${f.from} shares with ${f.to}` } : undefined;
  }
  return undefined;
}

/** What happened, the newest first. */
export function past(t: Told): Happened[] {
  const list: Happened[] = [];
  const add = (at: string | undefined, s: Sentence): void => {
    const ms = at === undefined ? NaN : Date.parse(at);
    if (!Number.isNaN(ms)) list.push({ ...s, at: ms });
  };
  for (const { agent, thing } of t.things) add(thing.added, { key: `thing ${thing.id}`, says: `${thing.title} became a thing of ${agent}`, href: to("things", agent, thing.id) });
  for (const { world, avatar } of t.avatars) {
    // One that has moved there began with the move, which says so itself.
    if (t.moves.some((m) => m.to === world && m.target?.crossing.ours === avatar.id)) continue;
    add(avatar.created, { key: `avatar ${world} ${avatar.id}`, says: `${nameOf(t, world, avatar.id)} became an avatar in ${world}`, href: to("avatars", world, avatar.id) });
  }
  for (const { world, share: s } of t.shares) {
    if (s.direction !== "giving" && t.shares.some((o) => o.share.id === s.id && o.share.direction === "giving")) continue; // its giver tells it
    const [from, taker] = s.direction === "giving" ? [world, s.world] : [s.world, world];
    const whose = nameOf(t, world, s.ours);
    const href = to("avatars", world, s.ours);
    add(s.begun, { key: `share ${s.id}`, says: `${from} began to share ${s.view ? named(Object.keys(s.view.properties).map(words)) : "something"} of ${whose} with ${taker}, for ${s.purpose}`, href });
    if (s.ended) add(s.ended.time, { key: `share end ${s.id}`, says: `The share of ${whose} from ${from} to ${taker} ended`, more: s.ended.why, href });
  }
  for (const m of t.moves) {
    const href = to("crossings", m.id);
    const who = mover(t, m);
    add(m.begun, { key: `move ${m.id}`, says: `${m.to} was asked to take ${who} from ${m.from}`, href });
    const since = (state: string): string | undefined => (m.target?.crossing.steps ?? []).concat(m.source?.crossing.steps ?? []).find((s) => s.state === state)?.time;
    add(since("frozen"), { key: `frozen ${m.id}`, says: `${m.from} fixed what moves of ${who}, and released it`, href });
    add(since("home") ?? since("gone"), { key: `home ${m.id}`, says: `${who} came to live in ${m.to}`, href });
    add(since("dropped") ?? since("kept"), { key: `kept ${m.id}`, says: `${who} stays in ${m.from}`, ...(m.target?.crossing.why && { more: m.target.crossing.why }), href });
  }
  for (const { world, module: m } of t.modules) {
    add(m.added, { key: `module ${world} ${m.id}`, says: `${world} added the module ${m.id}` });
    if (m.revoked) add(m.revoked.made, { key: `revoked ${world} ${m.id}`, says: `${world} runs the module ${m.id} no more`, more: m.revoked.why });
  }
  for (const o of t.jobs) {
    const { world, job: j } = o;
    const href = to("jobs", world, j.id);
    const again = j.repeats !== undefined ? " once more" : "";
    add(j.made, { key: `job ${j.id}`, says: j.at === undefined ? `${world} began ${work(o)} itself${again}` : `${world} ordered ${work(o)} at ${j.at}${again}`, href });
    if (j.ended) {
      const bad = j.output === undefined && j.outcome !== "withdrawn";
      add(j.ended, {
        key: `ended ${j.id}`, says: `${where(o)} ended ${j.at === undefined ? work(o) : `${work(o)} of ${world}`}: ${saidOfJob(o)}`,
        ...((j.comparison || j.why) && { more: j.comparison ? `compared: ${j.comparison}` : j.why! }), ...(bad && { trouble: true }), href,
      });
    }
  }
  // What began and ended in one second has ended after it began.
  return list.map((e, i) => ({ e, i })).sort((p, q) => q.e.at - p.e.at || q.i - p.i).map(({ e }) => e);
}

/** What is drawn beside what flows: jobs at DPMs, and moves. */
export function drawn(t: Told, flows: Flow[]): Flow[] {
  const more = new Map<string, Flow>();
  const count = (point: string, from: string, to: string, what: string, busy: boolean): void => {
    const id = `${from}>${to}`;
    const f = more.get(id) ?? { id, point, from, to, what, now: 0, recent: [] };
    f.now = (f.now ?? 0) + (busy ? 1 : 0);
    more.set(id, f);
  };
  for (const { world, job } of t.jobs) if (job.at !== undefined) count("R6", world, job.at, "jobs", running(job));
  for (const m of t.moves) if (!over(m)) count("R5", m.from, m.to, "moves", true);
  return [...flows.filter((f) => !more.has(f.id)), ...more.values()];
}
