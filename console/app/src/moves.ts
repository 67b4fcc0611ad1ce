// What two worlds tell of one move, put together.
import type { Crossing, CrossingProgress, MovingItem } from "./api.ts";
import { bytes } from "./format.ts";

interface Side {
  party: string;
  crossing: Crossing;
}

/** A move as the worlds tell it that can be asked: both, or one of them. */
export interface Move {
  id: string;
  from: string;
  to: string;
  begun: string;
  source?: Side;
  target?: Side;
}

/** Puts together what the worlds tell, the newest first. */
export function merged(all: Side[]): Move[] {
  const moves = new Map<string, Move>();
  for (const side of all) {
    const { party, crossing: c } = side;
    const arriving = c.direction === "arriving";
    const m = moves.get(c.id) ?? { id: c.id, from: arriving ? c.world : party, to: arriving ? party : c.world, begun: c.begun };
    if (arriving) m.target = side;
    else m.source = side;
    if (c.begun < m.begun) m.begun = c.begun;
    moves.set(c.id, m);
  }
  return [...moves.values()].sort((p, q) => q.begun.localeCompare(p.begun) || p.id.localeCompare(q.id));
}

/** Whether nothing more comes: the source has signed that it deleted, or it stays. */
export function over({ source, target }: Move): boolean {
  const left = (target ?? source)?.crossing;
  return left === undefined || left.state === "dropped" || left.state === "kept" || (left.departure !== undefined && left.departure !== "");
}

/** Whether the avatar lives in the world that it was to move to. */
export const arrived = ({ source, target }: Move): boolean => target?.crossing.state === "home" || source?.crossing.state === "gone";

/** The item that moves without its avatar. */
export const alone = ({ source, target }: Move): MovingItem | undefined => {
  const c = target?.crossing ?? source?.crossing;
  return c?.alone ? c.items?.[0] : undefined;
};

/** What goes along with an avatar, and what ends with it; or the item that moves by itself. */
export const items = ({ source, target }: Move): MovingItem[] => target?.crossing.items ?? source?.crossing.items ?? [];

/** How what moves is called whose name isn't known. */
export const title = (m: Move): string => alone(m)?.title ?? `avatar ${(m.source?.crossing.ours ?? m.target?.crossing.theirs ?? m.target?.crossing.ours ?? "").slice(0, 8)}`;

/** What its state means, in words. */
export function said(m: Move): string {
  const target = m.target?.crossing.state;
  const source = m.source?.crossing.state;
  if (arrived(m) && alone(m)) return `it is in ${m.to} now`;
  if (arrived(m)) return over(m) ? `it lives in ${m.to} now` : `it lives in ${m.to} now, and is being deleted in ${m.from}`;
  if (target === "dropped" || source === "kept") return `it stays in ${m.from}`;
  if (target === "leaving") return "it was called off; the registrar is asked to decide abort";
  if (target === "prepared") return "everything is there and checked; the registrar is asked to decide";
  if (source === "frozen") return "what moves is fixed; it waits for the registrar’s decision";
  if (target === "asked") return "its owner hasn’t ordered it yet";
  return "it is being copied, and stays live meanwhile";
}

export interface Stage {
  name: string;
  title: string;
  at?: string;
  more?: string;
  is: "done" | "now" | "next" | "off";
}

/** The steps of a move, in their order, with what is known of each. */
export function stages(m: Move): Stage[] {
  const [source, target] = [m.source?.crossing, m.target?.crossing];
  const since = (c: Crossing | undefined, ...states: string[]): string | undefined => c?.steps?.find((s) => states.includes(s.state))?.time;
  const frozen = since(source, "frozen");
  const decided = since(target, "home", "dropped") ?? since(source, "gone", "kept");
  const stays = target?.state === "dropped" || source?.state === "kept";
  const prepared = since(target, "prepared");
  const ordered = since(target, "copying") ?? since(source, "offered");
  const home = since(target, "home") ?? (target === undefined ? since(source, "gone") : undefined);
  const cleared = target?.departure || source?.departure ? (source?.ended ?? target?.ended ?? decided) : undefined;
  const all: { name: string; title: string; at: string | undefined; more?: string }[] = [
    { name: "ordered", title: "Ordered by its owner", at: ordered },
    { name: "copied", title: `Copied, while it stays live in ${m.from}`, at: frozen ?? prepared },
    { name: "fixed", title: "What moves is fixed and released", at: frozen ?? prepared },
    { name: "checked", title: `Everything is in ${m.to}, and checked`, at: prepared },
    { name: "decided", title: stays ? `Decided: it stays in ${m.from}` : "Decided by the registrar", at: decided },
    { name: "home", title: `At home in ${m.to}`, at: home },
    { name: "cleared", title: `Deleted in ${m.from}, with a receipt`, at: cleared },
  ];
  if (frozen && decided) all[4]!.more = `it kept still for ${((Date.parse(decided) - Date.parse(frozen)) / 1000).toFixed(1)} s`;
  const next = stays ? -1 : all.findIndex((s) => s.at === undefined);
  return all.map(({ at, ...s }, i) => {
    const stage: Stage = { ...s, is: at !== undefined ? "done" : stays ? "off" : i === next ? "now" : "next" };
    if (at !== undefined) stage.at = at;
    return stage;
  });
}

/** How far copying is, how fast it goes, and how long it will take as far as is known. */
export function paced(p: CrossingProgress): string {
  const far = `${bytes(p.bytes)} of ${bytes(p.of_bytes)}`;
  const took = p.since ? (Date.now() - Date.parse(p.since)) / 1000 : 0;
  if (p.fetched === 0 || took < 0.5) return far;
  const rate = p.fetched / took;
  return `${far}, ${bytes(Math.round(rate))}/s, some ${Math.ceil((p.of_bytes - p.bytes) / rate)} s left`;
}
