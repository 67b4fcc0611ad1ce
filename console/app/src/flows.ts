// What goes over the reference points, worked out from the counters of the parties'
// statuses: a rate is the difference of two answers, by the party's own clock.
import type { Identity, Reached, Refusal, Share, Status, Thing } from "./api.ts";

/** One answer of a party, or why there is none. */
export interface Answer {
  party: Reached;
  status?: Status;
  things?: Thing[]; // with a status: all of a things agent's
  error?: Refusal;
  own?: Own; // what who may not see a status sees: one's own
}

/** What goes on with one's own things. */
export interface Own {
  things: Thing[];
  shares: { from: string; share: Share }[];
  time: number;
}

export interface Flow {
  id: string;
  point: string; // the reference point
  from: string;
  to: string;
  what: string; // what is counted
  perSecond?: number; // over the last seconds; undefined: not known yet
  over?: number; // how many seconds that are
  now?: number; // of what is not a rate
  all?: number;
  trouble?: string; // what is wrong with it
  recent: number[]; // rates, the newest last
}

export const devices = "devices";
export const readers = "people and programs";
export const neighbours = "its own avatars, of each other";

interface Counter {
  id: string;
  point: string;
  from: string;
  to: string;
  what: string;
  all?: number;
  now?: number;
  time: number;
  trouble?: string;
}

/** Lists what the answers count. */
function counters(who: Identity, answers: Answer[]): Counter[] {
  const list: Counter[] = [];
  const depots = who.parties.filter((p) => p.role === "depot");
  const depot = depots.length === 1 ? depots[0]!.name : "depot";
  for (const { party, status, things, own } of answers) {
    if (own) list.push(...ownCounters(party.name, own));
    if (!status) continue;
    const time = Date.parse(status.time) / 1000;
    const stated = (s: { statements: number; receipts: number }): void => {
      const c: Counter = { id: `${party.name}>${depot}`, point: "R2", from: party.name, to: depot, what: "receipts", all: s.receipts, time };
      const waiting = s.statements - s.receipts;
      if (waiting > 500) c.trouble = `${waiting} statements wait for a receipt`;
      list.push(c);
    };
    if (status.things) {
      list.push({ id: `${devices}>${party.name}`, point: "Devices", from: devices, to: party.name, what: "messages", all: status.things.messages, time });
      for (const l of status.things.links) {
        // As the agent counts it: a world's own total has what comes by shares and moves, too.
        const sent = things && sentTo(l.world, things);
        const [what, all] = sent === undefined ? ["frames", l.acked] as const : ["measurements", sent] as const;
        const c: Counter = { id: `${party.name}>${l.world}`, point: "R1", from: party.name, to: l.world, what, all, time };
        if (!l.up) c.trouble = "the link is down; the agent keeps what it has to send";
        else if (l.lag > 5000) c.trouble = `${l.lag} messages are not sent yet`;
        list.push(c);
      }
      stated(status.things);
    }
    if (status.world) {
      stated(status.world);
      for (const s of status.world.shares ?? []) {
        if (s.giving === 0 && s.acked === 0) continue; // its other side says it
        list.push({ id: `${party.name}>${s.world}`, point: "R5", from: party.name, to: s.world, what: "frames", all: s.acked, time });
      }
      list.push({ id: `${party.name}>${readers}`, point: "R4", from: party.name, to: readers, what: "live subscriptions", now: status.world.live, time });
      // A world that an older program runs doesn't count what follows.
      const { reads, events, exchanged, dpms } = status.world;
      if (reads !== undefined && events !== undefined) list.push({ id: `${party.name}>${readers}/given`, point: "R4", from: party.name, to: readers, what: "answers and events", all: reads + events, time });
      if (exchanged !== undefined) list.push({ id: `${party.name}>${neighbours}`, point: "R3", from: party.name, to: neighbours, what: "answers and events", all: exchanged, time });
      for (const d of dpms ?? []) list.push({ id: `${party.name}>${d.dpm}`, point: "R6", from: party.name, to: d.dpm, what: "sealed pieces", all: d.handed + d.returned, time });
    }
  }
  return list.sort((a, b) => points.indexOf(a.point) - points.indexOf(b.point));
}

/** How many measurements of things a world got from their agent; undefined: not known. */
function sentTo(world: string, things: Thing[]): number | undefined {
  const mappings = things.flatMap((t) => t.mappings).filter((m) => m.world === world);
  if (mappings.some((m) => m.uncounted)) return undefined;
  return mappings.flatMap((m) => m.got).reduce((n, g) => n + g.sent, 0);
}

/** Counts what worlds get of one's own things. */
function ownCounters(agent: string, { things, shares, time }: Own): Counter[] {
  const worlds = new Set(things.flatMap((t) => t.mappings).filter((m) => !m.stopped).map((m) => m.world));
  return [
    ...[...worlds].map((world): Counter => {
      const all = sentTo(world, things);
      return { id: `${agent}>${world}`, point: "R1", from: agent, to: world, what: "measurements", time, ...(all !== undefined && { all }) };
    }),
    ...shares.map(({ from, share }): Counter => {
      const c: Counter = { id: `${from}>${share.world}`, point: "R5", from, to: share.world, what: "shares", now: shares.filter((s) => s.from === from && s.share.world === share.world).length, time };
      if (share.held) c.trouble = share.held;
      return c;
    }),
  ].filter((c, i, all) => all.findIndex((d) => d.id === c.id) === i);
}

const points = ["Devices", "R1", "R2", "R3", "R4", "R5", "R6"];

const kept = 60;

/** How long a rate is of, in seconds: what comes in bursts doesn't flicker. */
const span = 10;

interface Counted {
  samples: { all: number; time: number }[]; // the oldest is the last that is so old as a rate is long
  recent: number[]; // rates from one answer to the next
}

/** Works out flows from one answer to the next. */
export class Meter {
  private counted = new Map<string, Counted>();

  take(who: Identity, answers: Answer[]): Flow[] {
    return counters(who, answers).map((c) => {
      const f: Flow = { id: c.id, point: c.point, from: c.from, to: c.to, what: c.what, recent: [] };
      if (c.trouble !== undefined) f.trouble = c.trouble;
      if (c.now !== undefined) f.now = c.now;
      if (c.all === undefined) return f;
      f.all = c.all;
      const key = c.id + c.what;
      const now = { all: c.all, time: c.time };
      let n = this.counted.get(key);
      const last = n?.samples.at(-1);
      if (n === undefined || last === undefined || now.all < last.all) {
        this.counted.set(key, (n = { samples: [now], recent: [] }));
      } else if (now.time > last.time) {
        n.recent = [...n.recent, (now.all - last.all) / (now.time - last.time)].slice(-kept);
        n.samples.push(now);
        while (now.time - n.samples[1]!.time >= span) n.samples.shift();
      }
      const [first, newest] = [n.samples[0]!, n.samples.at(-1)!];
      if (newest.time > first.time) {
        f.over = newest.time - first.time;
        f.perSecond = (newest.all - first.all) / f.over;
      }
      f.recent = n.recent;
      return f;
    });
  }
}
