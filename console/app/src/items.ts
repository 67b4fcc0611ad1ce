// What proves an item, read for people. Pure. The console checks no signature: carnet
// verify does.
import { claims, type Item, type ItemProof } from "./api.ts";

/** One link of an item's chain. */
export interface Entry {
  what: string; // issued, given, moved or retired
  world: string; // did:key of who signed it
  avatar: string;
  time: string;
}

/** An item with what happened to it, as one world has it. */
export interface Chain {
  world: string; // that was asked
  item: Item;
  entries: Entry[];
}

const text = (v: unknown): string => (typeof v === "string" ? v : "");

export const entriesOf = (p: ItemProof): Entry[] => p.entries.map(claims).map((c) => ({ what: text(c["what"]), world: text(c["world"]), avatar: text(c["avatar"]), time: text(c["time"]) }));

/** The world that signed an entry, as far as the chains that are known tell. */
export function placeOf(of: Chain, e: Entry, all: Chain[]): string | undefined {
  for (const c of [of, ...all]) {
    if (e.world === c.item.issuer) return c.item.world;
    // Who has an item now, or ended it, signed its last entry.
    if (c.item.state !== "gone" && c.entries.at(-1)?.world === e.world) return c.world;
  }
  return undefined;
}

/** Of each item the chain that says most: that of where it is, of several that tell of it. */
export function longest(all: Chain[]): Chain[] {
  const best = new Map<string, Chain>();
  for (const c of all) {
    const had = best.get(c.item.id);
    if (!had || c.entries.length > had.entries.length || (had.item.state === "gone" && c.item.state !== "gone")) best.set(c.item.id, c);
  }
  return [...best.values()];
}

/** What an item is, by its issuer's word and by that of the world where it is. */
export const kindOf = (i: Item): string => `${i.kind} no. ${i.serial} of ${i.world}`;

/** Attributes in words. */
export const attributes = (a: Item["attributes"] | undefined): string => Object.entries(a ?? {}).map(([name, v]) => `${name.replaceAll("_", " ")} ${String(v)}`).join(", ");
