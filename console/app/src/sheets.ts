// What a program put out, as tables and as what can be drawn of them. A query puts out
// lines of JSON arrays, of which the first names the columns; a module lines of
// whatever it likes, ours JSON objects (docs/design/modules.md). Pure.
import { value, words } from "./format.ts";

/** Rows of one kind. */
export interface Sheet {
  columns: string[];
  rows: unknown[][];
}

/** Numbers with what each is of. */
export interface BarGroup {
  title: string;
  bars: { name: string; value: number }[];
}

/** Numbers in a grid, row by row. */
export interface Grid {
  title: string;
  cells: number[][];
}

/** Numbers over time. */
export interface Series {
  times: number[]; // seconds, ascending
  lines: { name: string; values: (number | null)[] }[];
}

const isObject = (v: unknown): v is Record<string, unknown> => typeof v === "object" && v !== null && !Array.isArray(v);
const isNumbers = (v: unknown): v is number[] => Array.isArray(v) && v.length > 0 && v.every((n) => typeof n === "number");

const mostSheets = 16;
const mostColumns = 128;
const mostDepth = 8;

/** Reads an output; undefined: it is no lines of JSON that make a table, or more than a page has room for. */
export function sheets(text: string, engine: string): Sheet[] | undefined {
  const lines: unknown[] = [];
  try {
    for (const line of text.split("\n")) if (line.trim() !== "") lines.push(JSON.parse(line));
  } catch {
    return undefined;
  }
  if (engine === "sql") {
    const [names, ...rows] = lines;
    if (!Array.isArray(names) || !rows.every((r) => Array.isArray(r))) return undefined;
    if (names.length > mostColumns || deeper(lines, mostDepth)) return undefined;
    return [{ columns: names.map(String), rows: rows as unknown[][] }];
  }
  if (lines.length === 0 || !lines.every(isObject) || deeper(lines, mostDepth)) return undefined;
  const found: Sheet[] = [];
  for (const line of lines) {
    const keys = Object.keys(line);
    if (keys.length > mostColumns) return undefined;
    // What has most of its members in common with others is of their kind.
    let sheet = found.find((s) => 2 * keys.filter((k) => s.columns.includes(k)).length > Math.min(keys.length, s.columns.length));
    if (!sheet) found.push((sheet = { columns: [], rows: [] }));
    for (const k of keys) if (!sheet.columns.includes(k)) sheet.columns.push(k);
    if (found.length > mostSheets || sheet.columns.length > mostColumns) return undefined;
    sheet.rows.push(sheet.columns.map((k) => line[k]));
  }
  return found;
}

/** Whether something is nested deeper than so many. */
function deeper(v: unknown, most: number): boolean {
  if (typeof v !== "object" || v === null) return false;
  return most === 0 || Object.values(v).some((w) => deeper(w, most - 1));
}

/** A cell in words. */
export function cell(v: unknown): string {
  if (v === null || v === undefined) return "";
  const time = timeOf(v);
  if (time !== undefined) return stamp(time);
  if (Array.isArray(v)) return v.length > 0 && v.every(Array.isArray) ? `${v.length} × ${(v[0] as unknown[]).length} values` : v.map(cell).join(", ");
  if (isObject(v)) return Object.entries(v).map(([k, w]) => `${words(k)} ${cell(w)}`).join(", ");
  return value(v);
}

/** A moment in seconds, where a value is one: nanoseconds since 1970, or RFC 3339. */
export function timeOf(v: unknown): number | undefined {
  if (typeof v === "number") return v > 1e17 && v < 1e19 ? v / 1e9 : undefined;
  if (typeof v !== "string" || !/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d/.test(v)) return undefined;
  const t = Date.parse(v) / 1000;
  return Number.isNaN(t) ? undefined : t;
}

const clock = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit" });
const stamp = (t: number): string => clock.format(t * 1000);

const numeric = (s: Sheet, i: number): boolean => {
  const vs = s.rows.map((r) => r[i]).filter((v) => v !== null && v !== undefined);
  return vs.length > 0 && vs.every((v) => typeof v === "number" && timeOf(v) === undefined);
};

const mostLines = 4;

/** A sheet's numbers over time, where its rows are of moments. */
export function series(s: Sheet): Series | undefined {
  const at = s.columns.findIndex((_, i) => s.rows.length > 1 && s.rows.every((r) => timeOf(r[i]) !== undefined));
  const lines = s.columns.map((_, i) => i).filter((i) => numeric(s, i)).slice(0, mostLines);
  if (at < 0 || lines.length === 0) return undefined;
  const rows = [...s.rows].sort((p, q) => timeOf(p[at])! - timeOf(q[at])!);
  const once = rows.filter((r, i) => i === 0 || timeOf(r[at]) !== timeOf(rows[i - 1]![at]));
  return {
    times: once.map((r) => timeOf(r[at])!),
    lines: lines.map((i) => ({ name: words(s.columns[i]!), values: once.map((r) => (typeof r[i] === "number" ? (r[i] as number) : null)) })),
  };
}

const mostBars = 48;

/** What of a sheet can be compared by length: lists of numbers, or a number for each row. */
export function bars(s: Sheet): BarGroup[] {
  const named = s.columns.findIndex((_, i) => s.rows.every((r) => typeof r[i] === "string" && timeOf(r[i]) === undefined));
  const groups: BarGroup[] = [];
  for (const [i, column] of s.columns.entries()) {
    for (const [n, r] of s.rows.entries()) {
      const v = r[i];
      const of = s.rows.length > 1 ? `, ${named >= 0 ? String(r[named]) : `row ${n + 1}`}` : "";
      if (isNumbers(v)) groups.push({ title: words(column) + of, bars: v.map((n, k) => ({ name: String(k), value: n })) });
      else if (isObject(v) && Object.keys(v).length > 1 && isNumbers(Object.values(v))) {
        groups.push({ title: words(column) + of, bars: Object.entries(v).map(([k, n]) => ({ name: words(k), value: n as number })) });
      }
    }
    if (named >= 0 && s.rows.length > 1 && s.rows.length <= mostBars && numeric(s, i)) {
      groups.push({ title: words(column), bars: s.rows.map((r) => ({ name: words(String(r[named])), value: (r[i] as number | null) ?? 0 })) });
    }
  }
  return groups.filter((g) => g.bars.length <= mostBars && g.bars.every((b) => b.value >= 0)).slice(0, 8);
}

/** What of a sheet is a map. */
export function grids(s: Sheet): Grid[] {
  return s.columns.flatMap((column, i) =>
    s.rows.flatMap((r): Grid[] => {
      const v = r[i];
      const square = Array.isArray(v) && v.length > 0 && v.every((row) => isNumbers(row) && row.length === (v[0] as number[]).length);
      return square && v.length <= 64 && (v[0] as number[]).length <= 128 ? [{ title: words(column), cells: v as number[][] }] : [];
    }),
  ).slice(0, 8);
}
