// The picture of the parties: who sends what to whom. From left to right, or from
// top to bottom where it is narrow.
import type { Identity, Reached } from "./api.ts";
import { type Answer, devices, type Flow, neighbours, readers } from "./flows.ts";
import { plural, rate } from "./format.ts";
import { curve, places, type Point } from "./labels.ts";

interface Node {
  name: string;
  role: string;
  x: number; // of the middle
  y: number;
  w: number;
  h: number;
  state: "up" | "down" | "quiet";
  party: boolean;
}

/** What a party is, in a word or two. */
export const roleNames = { things: "things agent", world: "world", dpm: "DPM", depot: "depot" } as const;

function stateOf(p: Reached, answers: Answer[]): Node["state"] {
  const a = answers.find((a) => a.party.name === p.name);
  if (a?.status || a?.own) return "up";
  return a?.error && a.error.status !== 403 ? "down" : "quiet";
}

/** Puts the parties in rows or columns by their roles. */
function layout(width: number, who: Identity, answers: Answer[], flows: Flow[]): { nodes: Node[]; height: number; across: boolean } {
  const of = (role: Reached["role"]): Reached[] => who.parties.filter((p) => p.role === role);
  const across = width >= 760;
  const outside = (name: string): Omit<Node, "x" | "y" | "w" | "h"> => ({ name, role: "", state: "quiet", party: false });
  const party = (p: Reached): Omit<Node, "x" | "y" | "w" | "h"> => ({ name: p.name, role: roleNames[p.role], state: stateOf(p, answers), party: true });
  const steps = [
    of("things").length > 0 ? [outside(devices)] : [],
    of("things").map(party),
    of("world").map(party),
    [...of("dpm"), ...of("depot")].map(party), // whom worlds use, for computing and for keeping
  ].filter((s) => s.length > 0);
  const most = Math.max(...steps.map((s) => s.length));
  const nodes: Node[] = [];
  if (across) {
    const w = Math.min(170, (width - 40) / steps.length - 70);
    const h = 66;
    const height = Math.max(most * 112, 200) + 40; // with a lane beneath
    steps.forEach((step, i) => {
      const x = steps.length === 1 ? width / 2 : w / 2 + 8 + (i * (width - w - 16)) / (steps.length - 1);
      step.forEach((n, j) => nodes.push({ ...n, x, y: ((height - 40) * (j + 0.5)) / step.length, w, h }));
    });
    return { nodes, height, across };
  }
  const h = 62;
  const inner = width - lane;
  let y = 6 + h / 2;
  steps.forEach((step, i) => {
    // Above a row of several there are what comes to each, and what goes between them; the more comes, the higher.
    const before = steps[i - 1] ?? [];
    const comes = flows.filter((f) => before.some((n) => n.name === f.from) && step.some((n) => n.name === f.to)).length;
    if (i > 0) y += h + (step.length > 1 ? 108 : 84) + 18 * Math.max(0, comes - 3);
    const w = Math.min(150, (inner - 12 * (step.length + 1)) / step.length);
    step.forEach((n, j) => nodes.push({ ...n, x: (inner * (j + 0.5)) / step.length, y, w, h }));
  });
  return { nodes, height: y + h / 2 + 14, across };
}

/** What is free at the right of a narrow picture, for what goes past a row. */
const lane = 26;

/** How high the bend of a way is in a narrow picture. */
const bend = 40;

interface Edge {
  flow: Flow;
  path: string;
  way: Point[];
  best: Point; // where its label stands, if nothing is in the way
}

/** A way of one or more curves. */
function curved(flow: Flow, best: Point, from: Point, ...curves: [Point, Point, Point][]): Edge {
  let [path, way, at]: [string, Point[], Point] = [`M${from}`, [], from];
  for (const [b, c, d] of curves) {
    path += ` C${b} ${c} ${d}`;
    way = [...way, ...curve(at, b, c, d)];
    at = d;
  }
  return { flow, path, way, best };
}

/** A straight piece of such a way. */
const straight = (from: Point, to: Point): [Point, Point, Point] => [from, to, to];

/** Draws a flow from one party to another, around those between them. */
function edge(f: Flow, nodes: Node[], across: boolean, width: number, height: number): Edge | undefined {
  if (f.to === readers || f.to === neighbours) return undefined; // stands at the world
  const a = nodes.find((n) => n.name === f.from);
  const b = nodes.find((n) => n.name === f.to);
  if (!a || !b) return undefined;
  const [mx, my] = [(a.x + b.x) / 2, (a.y + b.y) / 2];
  if (across) {
    if (Math.abs(a.x - b.x) < 1) {
      // Between two of one column: straight, or around those between them.
      const between = nodes.some((n) => Math.abs(n.x - a.x) < 1 && n.y > Math.min(a.y, b.y) + 1 && n.y < Math.max(a.y, b.y) - 1);
      if (!between) {
        const [y1, y2] = a.y < b.y ? [a.y + a.h / 2, b.y - b.h / 2] : [a.y - a.h / 2, b.y + b.h / 2];
        const x = a.x + a.w * 0.33;
        return curved(f, [x, my], [x, y1], straight([x, y1], [x, y2]));
      }
      const r = a.x + a.w / 2;
      return curved(f, [r + 33, my], [r, a.y + 8], [[r + 44, a.y + 8], [r + 44, b.y - 8], [r, b.y - 8]]);
    }
    const x1 = a.x + a.w / 2;
    const x2 = b.x - b.w / 2;
    const between = nodes.some((n) => n.x > a.x + 1 && n.x < b.x - 1);
    if (between) {
      // Beneath what stands between.
      const y = height - 14;
      return curved(f, [mx - 60, y], [a.x, a.y + a.h / 2], [[a.x, y + 10], [a.x + 60, y], [mx, y]], [[b.x - 60, y], [b.x, y + 6], [b.x, b.y + b.h / 2]]);
    }
    const m = (x1 + x2) / 2;
    return curved(f, [m, my], [x1, a.y], [[m, a.y], [m, b.y], [x2, b.y]]);
  }
  if (Math.abs(a.y - b.y) < 1) {
    // Between two of one row: above those between them, and beside what comes from above.
    const y = a.y - a.h / 2;
    const aside = 0.2 * a.w * Math.sign(b.x - a.x);
    return curved(f, [mx, y - 30], [a.x + aside, y], [[a.x + aside, y - 40], [b.x - aside, y - 40], [b.x - aside, y]]);
  }
  const y1 = a.y + a.h / 2;
  const y2 = b.y - b.h / 2;
  const between = nodes.some((n) => n.y > a.y + 1 && n.y < b.y - 1);
  if (between) {
    // Past the row between them, at the right.
    const x = width - lane / 2 - 4;
    const [from, to] = [a.x + a.w / 2, b.x + b.w / 2];
    return {
      flow: f, path: `M${from},${a.y} L${x - 14},${a.y} Q${x},${a.y} ${x},${a.y + 14} L${x},${b.y - 14} Q${x},${b.y} ${x - 14},${b.y} L${to},${b.y}`,
      way: [[from, a.y], [x, a.y], [x, b.y], [to, b.y]], best: [(from + x) / 2, a.y],
    };
  }
  // It bends where there are fewer, and is straight, with what it says, where there are more.
  const row = (y: number): number => nodes.filter((n) => Math.abs(n.y - y) < 1).length;
  const more = row(b.y) - row(a.y);
  if (more > 0) {
    const to: Point = [b.x, y1 + bend];
    return curved(f, [b.x, y1 + bend + 6], [a.x, y1], [[a.x, y1 + 28], [b.x, y1 + 12], to], straight(to, [b.x, y2]));
  }
  if (more < 0) {
    const to: Point = [a.x, y2 - bend];
    return curved(f, [a.x, y2 - bend - 6], [a.x, y1], straight([a.x, y1], to), [[a.x, y2 - 12], [b.x, y2 - 28], [b.x, y2]]);
  }
  const m = (y1 + y2) / 2;
  return curved(f, [mx, m], [a.x, y1], [[a.x, m], [b.x, m], [b.x, y2]]);
}

const label = (f: Flow): string => (f.now !== undefined ? (f.to === readers ? `${f.now} live` : plural(f.now, f.what.replace(/s$/, ""), f.what)) : f.perSecond === undefined ? "…" : `${rate(f.perSecond)}/s`);

export function Picture({ width, who, answers, flows, more }: { width: number; who: Identity; answers: Answer[]; flows: Flow[]; more: string }) {
  const { nodes, height, across } = layout(width, who, answers, flows);
  const [corner, lower] = across ? [15, 0] : [9, 2]; // of the light, and the name beneath it
  const edges = flows.map((f) => edge(f, nodes, across, width, height)).filter((e) => e !== undefined);
  // Rates of what is read at a world are in the table alone: there is no room for them.
  const at = flows.filter((f) => f.to === readers && f.now !== undefined).flatMap((flow) => nodes.filter((n) => n.name === flow.from).map((n) => ({ flow, x: n.x, y: n.y + n.h / 2 })));
  const found = places(
    edges.map((e) => ({ way: e.way, w: wide(e.flow, 5), h: tall, best: e.best })),
    [...nodes, ...at.map((l) => ({ ...l, w: wide(l.flow, 6), h: tall }))],
    width,
  );
  return (
    <svg width={width} height={height} viewBox={`0 0 ${width} ${height}`} role="img" aria-label={described(nodes, flows, more)}>
      <defs>
        <marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
          <path d="M0,0.6 L7.4,4 L0,7.4 z" class="tip" />
        </marker>
      </defs>
      {edges.map((e) => (
        <path key={e.flow.id} d={e.path} class={"way" + ((e.flow.perSecond ?? e.flow.now ?? 0) > 0 ? " busy" : "") + (e.flow.trouble ? " broken" : "")} marker-end="url(#tip)" />
      ))}
      {nodes.map((n) => (
        <g key={n.name} class={(n.party ? "node " : "outside ") + n.state}>
          <rect x={n.x - n.w / 2} y={n.y - n.h / 2} width={n.w} height={n.h} rx="10" />
          {n.party ? (
            <>
              <circle cx={n.x - n.w / 2 + corner} cy={n.y - n.h / 2 + corner} r="4" />
              <text x={n.x} y={n.y - 5 + lower} class="name">{n.name}</text>
              <text x={n.x} y={n.y + 12 + lower} class="role">{n.state === "down" ? "no answer" : n.role}</text>
            </>
          ) : (
            <text x={n.x} y={n.y + 4} class="role">{n.name}</text>
          )}
        </g>
      ))}
      {edges.map((e, i) => (
        <Pill key={e.flow.id} flow={e.flow} x={found[i]![0]} y={found[i]![1]} />
      ))}
      {at.map((l) => (
        <Pill key={l.flow.id} {...l} />
      ))}
    </svg>
  );
}

const point = (f: Flow): string => (f.point === "Devices" ? "" : f.point);

const tall = 22;

/** How wide what is written of a flow is; of at least so many letters, so that nothing moves for one more. */
const wide = (f: Flow, least = 0): number => 7 * (Math.max(label(f).length, least) + (point(f) ? point(f).length + 1 : 0)) + 14;

/** How much goes over a reference point. */
function Pill({ flow, x, y }: { flow: Flow; x: number; y: number }) {
  const w = wide(flow);
  return (
    <g class="label">
      <rect x={x - w / 2} y={y - tall / 2} width={w} height={tall} rx={tall / 2} />
      <text x={x} y={y + 4}>
        {point(flow) && <tspan class="point">{point(flow)} </tspan>}
        {label(flow)}
      </text>
    </g>
  );
}

/** The picture in words, for who doesn't see it. */
function described(nodes: Node[], flows: Flow[], more: string): string {
  const parties = nodes.filter((n) => n.party).map((n) => `${n.name}, ${n.role}${n.state === "down" ? ", does not answer" : ""}`);
  const ways = [...new Set(flows.map((f) => `${f.from} to ${f.to}`))];
  return `Picture of the parties: ${parties.join("; ")}.` + (ways.length > 0 ? ` Data goes from ${ways.join(", ")}. ${more}` : "");
}
