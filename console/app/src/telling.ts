// What the parties tell, as a story: what is happening now and what happened before, in
// sentences. Pure.
import type { Avatar, Grant, MandateRequest, Mapping, Module, Principal, Refused, Share, Thing, ViewRecord } from "./api.ts";
import type { Answer, Flow } from "./flows.ts";
import { date, named, plural, rate, under, words } from "./format.ts";
import { to } from "./hooks.ts";
import { type Chain, placeOf } from "./items.ts";
import { alone, arrived, items, type Move, over, said as saidOfMove, title } from "./moves.ts";
import { nameOf as nameBy } from "./names.ts";
import { called, type Ordered, running, said as saidOfJob, where } from "./work.ts";

/** What was told, by whoever could be asked. */
export interface Told {
  things: { agent: string; thing: Thing }[];
  avatars: { world: string; avatar: Avatar }[];
  jobs: Ordered[];
  modules: { world: string; module: Module }[];
  moves: Move[];
  shares: { world: string; share: Share }[];
  acts: Acts;
}

/** What people did, which is asked for less often. */
export interface Acts {
  views: { agent: string; thing: Thing; mapping: Mapping; views: ViewRecord[] }[];
  refused: { agent: string; thing: Thing; code: string; n: number; last: Refused }[];
  grants: { world: string; grant: Grant }[];
  principals: Principal[];
  requests: { world: string; request: MandateRequest }[];
  shares: { world: string; share: Share }[]; // that who may not see all shares of a world sees of avatars
  chains: Chain[];
}

export const noActs: Acts = { views: [], refused: [], grants: [], principals: [], requests: [], shares: [], chains: [] };

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
  nameBy(id ?? "", t.avatars.find((a) => a.world === world && a.avatar.id === id)?.avatar.title, t.things.map((x) => x.thing));

/** Which avatar of its source moves. */
const leaver = ({ source, target }: Move): string | undefined => source?.crossing.ours ?? target?.crossing.theirs;

const mover = (t: Told, m: Move): string => {
  if (alone(m)) return title(m);
  // One that has moved since is where it moved to.
  const since = t.moves.filter((o) => o !== m && o.from === m.from && leaver(o) !== undefined && leaver(o) === leaver(m));
  for (const side of [m.target, m.source, ...since.map((o) => o.target)]) {
    const found = side && t.avatars.find((a) => a.world === side.party && a.avatar.id === side.crossing.ours)?.avatar.title;
    if (found) return found;
  }
  const left = leaver(m);
  return left === undefined ? title(m) : nameOf(t, m.from, left);
};

const lower = (s: string): string => s.charAt(0).toLowerCase() + s.slice(1);

/** A job in a sentence's middle. */
const work = ({ job: j }: Ordered): string => (j.module !== undefined ? called(j) : `${/^[aeiou]/i.test(called(j)) ? "an" : "a"} ${lower(called(j))}`);

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
      const got = t.things.flatMap((x) => (x.agent === f.from ? x.thing.mappings : [])).filter((m) => m.world === f.to && !m.stopped);
      const what = [...new Set(got.flatMap((m) => Object.keys(m.view.properties)))].map(words);
      if (!moving && what.length === 0) return { says: `${f.to} gets nothing of ${f.from}` };
      if (!moving) return { says: `Nothing came from ${f.from} to ${f.to} in the last ${Math.round(f.over ?? 0)} s`, more: `its owner lets it have ${named(what)}`, href: to("avatars") };
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
    if (t.moves.some((m) => !alone(m) && m.to === world && m.target?.crossing.ours === avatar.id)) continue;
    add(avatar.created, { key: `avatar ${world} ${avatar.id}`, says: `${nameOf(t, world, avatar.id)} became an avatar in ${world}`, href: to("avatars", world, avatar.id) });
  }
  for (const e of [...shared(t), ...people(t), ...ofItems(t)]) add(e.when, e);
  for (const m of t.moves) {
    const href = to("crossings", m.id);
    const who = mover(t, m);
    add(m.begun, { key: `move ${m.id}`, says: `${m.to} was asked to take ${who} from ${m.from}`, href });
    const since = (state: string): string | undefined => (m.target?.crossing.steps ?? []).concat(m.source?.crossing.steps ?? []).find((s) => s.state === state)?.time;
    add(since("frozen"), { key: `frozen ${m.id}`, says: `${m.from} fixed what moves of ${who}, and released it`, href });
    const along = items(m).filter((i) => i.as !== undefined).map((i) => i.title);
    if (!alone(m)) add(since("home") ?? since("gone"), { key: `home ${m.id}`, says: `${who} came to live in ${m.to}`, ...(along.length > 0 && { more: `with ${named(along)}` }), href });
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

/** A sentence about a moment, as a party says it. */
interface Dated extends Sentence {
  when: string | undefined;
}

/** How shares began, were refused and ended. */
function shared(t: Told): Dated[] {
  const list: Dated[] = [];
  const all = [...t.shares, ...t.acts.shares.filter((a) => !t.shares.some((s) => s.world === a.world && s.share.id === a.share.id))];
  for (const { world, share: s } of all) {
    const gives = s.direction === "giving";
    if (!gives && all.some((o) => o.share.id === s.id && o.share.direction === "giving")) continue; // its giver tells it
    const [from, taker] = gives ? [world, s.world] : [s.world, world];
    const whose = nameOf(t, from, gives ? s.ours : s.theirs);
    const href = to("avatars", world, s.ours);
    if (!s.view) {
      // Nothing was ever shared: it was asked for.
      const asks = `${taker} asked ${from} for what ${whose} is given, for ${s.purpose}`;
      if (s.ended) list.push({ when: s.ended.time, key: `refused ${s.id}`, says: `${asks}, and was refused`, more: s.ended.why, trouble: true, href });
      else list.push({ when: s.begun, key: `share ${s.id}`, says: asks, more: `${from} hasn’t answered yet`, href });
      continue;
    }
    list.push({ when: s.begun, key: `share ${s.id}`, says: `${from} began to share ${named(Object.keys(s.view.properties).map(words)) || "nothing"} of ${whose} with ${taker}, for ${s.purpose}`, href });
    if (s.ended) list.push({ when: s.ended.time, key: `share end ${s.id}`, says: `The share of ${whose} from ${from} to ${taker} ended`, more: s.ended.why, href });
  }
  return list;
}

/** By what a mapping changes when nobody gave a command. */
const because: Record<string, string> = { move: "the avatar has moved", peering: "the peering has changed", erasure: "the avatar is erased" };

/** What people did: views, grants, mandates; and what was refused. */
function people(t: Told): Dated[] {
  const list: Dated[] = [];
  for (const { agent, thing, mapping: m, views } of t.acts.views) {
    const href = to("things", agent, thing.id);
    views.forEach((v, i) => {
      const by = under(because, v.by);
      const what = named(Object.keys(v.view.properties).map(words)) || "nothing";
      const key = `view ${m.id} ${v.policy_version}`;
      const who = v.by || "its owner";
      if (v.stopped) list.push({ when: v.time, key, says: by ? `${m.world} gets nothing more of ${thing.title}` : `${who} ended what ${m.world} gets of ${thing.title}`, more: by ?? `${m.world} keeps what it has, as the view let it`, href });
      else if (i === 0) list.push({ when: v.time, key, says: by ? `${m.world} gets ${what} of ${thing.title}` : `${who} let ${m.world} have ${what} of ${thing.title}`, ...(by && { more: by }), href });
      else {
        const before = Object.keys(views[i - 1]!.view.properties);
        const gone = before.filter((n) => under(v.view.properties, n) === undefined).map(words);
        list.push({
          when: v.time, key, says: by ? `What ${m.world} gets of ${thing.title} changed` : `${who} changed what ${m.world} gets of ${thing.title}`,
          more: `${by ? by + ": " : ""}${what}${gone.length > 0 ? `, and no longer ${named(gone)}` : ""}`, href,
        });
      }
    });
  }
  for (const { agent, thing, code, n, last } of t.acts.refused) {
    list.push({ when: last.time, key: `refusals ${agent} ${thing.id} ${code}`, says: `${agent} refused ${plural(n, "message")} of ${thing.title}, this the last: ${words(code)}`, more: last.reason, trouble: true, href: to("things", agent, thing.id) });
  }
  for (const { world, grant: g } of t.acts.grants) {
    const href = to("avatars", world, g.avatar);
    const whose = nameOf(t, world, g.avatar);
    const whom = receiver(t, world, g);
    const what = named(Object.keys(g.view.properties).map(words)) || "nothing";
    list.push({ when: g.given, key: `grant ${g.id}`, says: `${g.by} granted ${whom} ${what} of ${whose} in ${world}, for ${g.purpose}`, more: `to ${named(g.actions)}, until ${date(g.expires)}`, href });
    if (g.revoked) list.push({ when: g.revoked, key: `revoked ${g.id}`, says: `${g.revoked_by ?? "Somebody"} took back what ${whom} was granted of ${whose} in ${world}`, href });
    else if (Date.parse(g.expires) < Date.now()) list.push({ when: g.expires, key: `expired ${g.id}`, says: `What ${whom} was granted of ${whose} in ${world} ended`, more: "its time was over", href });
  }
  for (const { world, request: r } of t.acts.requests) {
    const at = r.request.aud?.replace("urn:carnet:party:", "") ?? "another world"; // as it calls itself
    const about = nameOf(t, at, r.request.avatar);
    list.push({
      when: r.made, key: `request ${r.id}`, says: `${world} asked the owner of ${about} in ${at} for a mandate, for ${r.request.purpose ?? "a purpose"}`,
      more: `${r.request.text ? `“${r.request.text}” ` : ""}${r.expires ? `Signed by its owner, the last until ${date(r.expires)}` : "Its owner hasn’t signed"}`, href: to("avatars", world, r.avatar),
    });
  }
  return list;
}

/** To whom a grant is. */
function receiver(t: Told, world: string, { to: r }: Grant): string {
  if (r.application) return `the application ${t.acts.principals.find((p) => p.id === r.application)?.name ?? r.application.slice(0, 8)}`;
  return r.avatar ? nameOf(t, world, r.avatar) : `an avatar of ${r.platform ?? "another world"}`;
}

/** What happened to items, as their chains say. */
function ofItems(t: Told): Dated[] {
  return t.acts.chains.flatMap((c) => {
    if (c.entries.length === 0) return [{ when: c.item.since, key: `item ${c.item.id} gone`, says: `${c.item.title}, ${c.item.kind} no. ${c.item.serial}, left ${c.world} for ${c.item.to ?? "another world"}` }];
    return c.entries.map((e, i): Dated => {
      const at = placeOf(c, e, t.acts.chains);
      const has = nameOf(t, at ?? "", e.avatar);
      const called = `${c.item.title}, ${c.item.kind} no. ${c.item.serial}`;
      const base = { when: e.time, key: `item ${c.item.id} ${i}`, href: to("avatars", c.world, c.item.avatar) };
      switch (e.what) {
        case "issued":
          return { ...base, says: `${at ?? c.item.world} issued ${called}, to ${has}` };
        case "given":
          return { ...base, says: `${nameOf(t, at ?? "", c.entries[i - 1]?.avatar)} gave ${called} to ${has}` };
        case "moved":
          return { ...base, says: `${called} came to ${at ?? "another world"}, with ${has}` };
        case "retired":
          return { ...base, says: `${called} is retired`, more: `by ${at ?? "its world"}, for ever` };
      }
      return { ...base, says: `${called}: ${e.what}` };
    });
  });
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
