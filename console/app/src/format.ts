// How numbers, times and units are written for people.

const whole = new Intl.NumberFormat("en");

/** A count. */
export const count = (n: number): string => whole.format(n);

/** A rate per second. */
export function rate(n: number): string {
  if (n === 0) return "0";
  if (n < 10) return n.toFixed(1);
  return whole.format(Math.round(n));
}

/** A measured value: at most six digits that count. */
export function value(v: unknown): string {
  if (typeof v === "number") return Number.isInteger(v) ? whole.format(v) : String(Number(v.toPrecision(6)));
  if (typeof v === "boolean") return v ? "true" : "false";
  return v === undefined ? "" : String(v);
}

const units: Record<string, string> = { "beat/min": "bpm", Cel: "°C", "%RH": "% RH", lat: "°", lon: "°" };

/** What a table has under a name that others gave; what every object has of itself isn't in it. */
export const under = <T,>(table: Record<string, T>, name: string): T | undefined => (Object.hasOwn(table, name) ? table[name] : undefined);

/** A unit of RFC 8428 as people write it. */
export const unit = (u: string | undefined): string => (u === undefined ? "" : (under(units, u) ?? u));

/** A property's or purpose's name as people write it. */
export const words = (name: string): string => name.replaceAll("_", " ").replaceAll("/", " · ");

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit" });

/** A moment of today as a time, another with its date. */
export function moment(t: Date | string | number): string {
  const d = new Date(t);
  return Date.now() - d.getTime() < 12 * 3600e3 ? clock.format(d) : day.format(d);
}

/** A moment with its date. */
export const date = (t: Date | string | number): string => day.format(new Date(t));

/** How long ago, roughly. */
export function ago(t: Date | string | number): string {
  const s = Math.max(0, (Date.now() - new Date(t).getTime()) / 1000);
  if (s < 3) return "just now";
  if (s < 90) return `${Math.round(s)} s ago`;
  if (s < 5400) return `${Math.round(s / 60)} min ago`;
  if (s < 36 * 3600) return `${Math.round(s / 3600)} h ago`;
  return `${Math.round(s / 86400)} days ago`;
}

const sizes = ["B", "kB", "MB", "GB", "TB"];

/** A number of bytes. */
export function bytes(n: number): string {
  let i = 0;
  for (; n >= 1000 && i < sizes.length - 1; i++) n /= 1000;
  return `${i === 0 ? n : n.toFixed(n < 10 ? 1 : 0)} ${sizes[i]}`;
}

/** One or many of something. */
export const plural = (n: number, one: string, many = one + "s"): string => `${count(n)} ${n === 1 ? one : many}`;

/** Several names in a sentence. */
export const named = (ns: string[]): string => (ns.length < 2 ? (ns[0] ?? "") : `${ns.slice(0, -1).join(", ")} and ${ns.at(-1)}`);
