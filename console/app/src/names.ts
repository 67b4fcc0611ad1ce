// How people call avatars. Pure.
import type { Thing } from "./api.ts";
import { named } from "./format.ts";

/** How an avatar is called: by its title; by the thing that it gets something of, where that is known; or by its id. */
export function nameOf(id: string, title: string | undefined, things: Thing[]): string {
  if (title) return title;
  const of = things.filter((t) => t.mappings.some((m) => m.avatar === id));
  const sends = of.filter((t) => t.mappings.some((m) => m.avatar === id && !m.stopped));
  return named([...new Set((sends.length > 0 ? sends : of).map((t) => t.title))]) || `avatar ${id.slice(0, 8)}`;
}
