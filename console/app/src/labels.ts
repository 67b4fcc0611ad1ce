// Where what is written along the ways of a picture stands, so that nothing covers
// anything. Pure.

export type Point = [x: number, y: number];

/** What takes room; x and y are of its middle. */
export interface Box {
  x: number;
  y: number;
  w: number;
  h: number;
}

/** What is to be written along a way: how large it is, and where it stands best. */
export interface Label {
  way: Point[];
  w: number;
  h: number;
  best: Point;
}

const air = 3; // between two of them

/** How much two boxes cover of each other, with some air around. */
function covered(a: Box, b: Box): number {
  const x = (a.w + b.w) / 2 + air - Math.abs(a.x - b.x);
  const y = (a.h + b.h) / 2 + air - Math.abs(a.y - b.y);
  return x > 0 && y > 0 ? x * y : 0;
}

const distance = ([x1, y1]: Point, [x2, y2]: Point): number => Math.hypot(x2 - x1, y2 - y1);

/** The point at a part of a way's length. */
function along(way: Point[], part: number): Point {
  let left = part * way.slice(1).reduce((sum, p, i) => sum + distance(way[i]!, p), 0);
  for (let i = 1; i < way.length; i++) {
    const [a, b] = [way[i - 1]!, way[i]!];
    const d = distance(a, b);
    if (left <= d && d > 0) return [a[0] + ((b[0] - a[0]) * left) / d, a[1] + ((b[1] - a[1]) * left) / d];
    left -= d;
  }
  return way.at(-1)!;
}

const steps = 50;

interface Placed {
  at: Point[];
  covers: number; // in all
  worst?: number; // the label that covers most
}

/** Gives each label in turn the nearest free place on its way; where none is free, that which covers least. */
function placed(labels: Label[], order: number[], taken: Box[], width: number): Placed {
  const room = [...taken];
  const result: Placed = { at: [], covers: 0 };
  let most = 0;
  for (const i of order) {
    const { way, w, h, best } = labels[i]!;
    const others = Array.from({ length: steps - 1 }, (_, k) => along(way, (k + 1) / steps)).sort((p, q) => distance(p, best) - distance(q, best));
    let found: { box: Box; covers: number } | undefined;
    for (const [at, y] of [best, ...others]) {
      const box = { x: Math.min(Math.max(at, w / 2), width - w / 2), y, w, h };
      const covers = room.reduce((sum, b) => sum + covered(box, b), 0);
      if (found === undefined || covers < found.covers) found = { box, covers };
      if (covers === 0) break;
    }
    room.push(found!.box);
    result.at[i] = [found!.box.x, found!.box.y];
    result.covers += found!.covers;
    if (found!.covers > most) [most, result.worst] = [found!.covers, i];
  }
  return result;
}

/** Finds a place for each label, on its way and beside what has room already. One that finds none is tried first then. */
export function places(labels: Label[], taken: Box[], width: number): Point[] {
  let order = labels.map((_, i) => i);
  let best: Placed | undefined;
  for (let turn = 0; turn <= 2 * labels.length; turn++) {
    const now = placed(labels, order, taken, width);
    if (best === undefined || now.covers < best.covers) best = now;
    if (now.worst === undefined) break;
    order = [now.worst, ...order.filter((i) => i !== now.worst)];
  }
  return best!.at;
}

/** Points of a cubic Bézier curve. */
export function curve(a: Point, b: Point, c: Point, d: Point): Point[] {
  return Array.from({ length: 25 }, (_, i) => {
    const t = i / 24;
    const u = 1 - t;
    const mixed = (k: 0 | 1): number => u * u * u * a[k] + 3 * u * u * t * b[k] + 3 * u * t * t * c[k] + t * t * t * d[k];
    return [mixed(0), mixed(1)];
  });
}
