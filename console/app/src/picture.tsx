// The picture of the parties: who sends what to whom. From left to right, or from
// top to bottom where it is narrow.
import type { Identity, Reached } from "./api.ts";
import { type Answer, devices, type Flow, readers } from "./flows.ts";
import { rate } from "./format.ts";

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

const roleNames = { things: "things agent", world: "world", depot: "depot" } as const;

function stateOf(p: Reached, answers: Answer[]): Node["state"] {
  const a = answers.find((a) => a.party.name === p.name);
  if (a?.status || a?.own) return "up";
  return a?.error && a.error.status !== 403 ? "down" : "quiet";
}

/** Puts the parties in rows or columns by their roles. */
function layout(width: number, who: Identity, answers: Answer[]): { nodes: Node[]; height: number; across: boolean } {
  const of = (role: Reached["role"]): Reached[] => who.parties.filter((p) => p.role === role);
  const across = width >= 760;
  const outside = (name: string): Omit<Node, "x" | "y" | "w" | "h"> => ({ name, role: "", state: "quiet", party: false });
  const party = (p: Reached): Omit<Node, "x" | "y" | "w" | "h"> => ({ name: p.name, role: roleNames[p.role], state: stateOf(p, answers), party: true });
  const steps = [
    of("things").length > 0 ? [outside(devices)] : [],
    of("things").map(party),
    of("world").map(party),
    of("depot").map(party),
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
    // Above a row of several there are what comes to each, and what goes between them.
    if (i > 0) y += h + (step.length > 1 ? 108 : 84);
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
  x: number; // of the label
  y: number;
}

/** Draws a flow from one party to another, around those between them. */
function edge(f: Flow, nodes: Node[], across: boolean, width: number, height: number): Edge | undefined {
  if (f.to === readers) return undefined; // stands at the world
  const a = nodes.find((n) => n.name === f.from);
  const b = nodes.find((n) => n.name === f.to);
  if (!a || !b) return undefined;
  if (across) {
    if (Math.abs(a.x - b.x) < 1) {
      // Between two of one column: straight, or around those between them.
      const [y1, y2] = a.y < b.y ? [a.y + a.h / 2, b.y - b.h / 2] : [a.y - a.h / 2, b.y + b.h / 2];
      const x = a.x + a.w * 0.33;
      const between = nodes.some((n) => Math.abs(n.x - a.x) < 1 && n.y > Math.min(a.y, b.y) + 1 && n.y < Math.max(a.y, b.y) - 1);
      if (!between) return { flow: f, path: `M${x},${y1} L${x},${y2}`, x, y: (y1 + y2) / 2 };
      const r = a.x + a.w / 2;
      return { flow: f, path: `M${r},${a.y + 8} C${r + 44},${a.y + 8} ${r + 44},${b.y - 8} ${r},${b.y - 8}`, x: r + 34, y: (a.y + b.y) / 2 };
    }
    const x1 = a.x + a.w / 2;
    const x2 = b.x - b.w / 2;
    const between = nodes.some((n) => n.x > a.x + 1 && n.x < b.x - 1);
    if (between) {
      // Beneath what stands between.
      const y = height - 14;
      return { flow: f, path: `M${a.x},${a.y + a.h / 2} C${a.x},${y + 10} ${a.x + 60},${y} ${(a.x + b.x) / 2},${y} S${b.x},${y + 6} ${b.x},${b.y + b.h / 2}`, x: (a.x + b.x) / 2 - 60, y };
    }
    const m = (x1 + x2) / 2;
    return { flow: f, path: `M${x1},${a.y} C${m},${a.y} ${m},${b.y} ${x2},${b.y}`, x: m, y: (a.y + b.y) / 2 };
  }
  if (Math.abs(a.y - b.y) < 1) {
    // Between two of one row: above those between them, and beside what comes from above.
    const y = a.y - a.h / 2;
    const aside = 0.2 * a.w * Math.sign(b.x - a.x);
    return { flow: f, path: `M${a.x + aside},${y} C${a.x + aside},${y - 40} ${b.x - aside},${y - 40} ${b.x - aside},${y}`, x: (a.x + b.x) / 2, y: y - 30 };
  }
  const y1 = a.y + a.h / 2;
  const y2 = b.y - b.h / 2;
  const between = nodes.some((n) => n.y > a.y + 1 && n.y < b.y - 1);
  if (between) {
    // Past the row between them, at the right.
    const x = width - lane / 2 - 4;
    const from = a.x + a.w / 2;
    return { flow: f, path: `M${from},${a.y} L${x - 14},${a.y} Q${x},${a.y} ${x},${a.y + 14} L${x},${b.y - 14} Q${x},${b.y} ${x - 14},${b.y} L${b.x + b.w / 2},${b.y}`, x: (from + x) / 2, y: a.y };
  }
  // It bends where there are fewer, and is straight, with what it says, where there are more.
  const row = (y: number): number => nodes.filter((n) => Math.abs(n.y - y) < 1).length;
  const more = row(b.y) - row(a.y);
  if (more > 0) return { flow: f, path: `M${a.x},${y1} C${a.x},${y1 + 28} ${b.x},${y1 + 12} ${b.x},${y1 + bend} L${b.x},${y2}`, x: b.x, y: y1 + bend + 6 };
  if (more < 0) return { flow: f, path: `M${a.x},${y1} L${a.x},${y2 - bend} C${a.x},${y2 - 12} ${b.x},${y2 - 28} ${b.x},${y2}`, x: a.x, y: y2 - bend - 6 };
  const m = (y1 + y2) / 2;
  return { flow: f, path: `M${a.x},${y1} C${a.x},${m} ${b.x},${m} ${b.x},${y2}`, x: (a.x + b.x) / 2, y: m };
}

const label = (f: Flow): string => (f.now !== undefined ? `${f.now} live` : f.perSecond === undefined ? "…" : `${rate(f.perSecond)}/s`);

export function Picture({ width, who, answers, flows }: { width: number; who: Identity; answers: Answer[]; flows: Flow[] }) {
  const { nodes, height, across } = layout(width, who, answers);
  const [corner, lower] = across ? [15, 0] : [9, 2]; // of the light, and the name beneath it
  const edges = flows.map((f) => edge(f, nodes, across, width, height)).filter((e) => e !== undefined);
  return (
    <svg width={width} height={height} viewBox={`0 0 ${width} ${height}`} role="img" aria-label={described(nodes, flows)}>
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
      {edges.map((e) => (
        <Pill key={e.flow.id} flow={e.flow} x={e.x} y={e.y} />
      ))}
      {flows
        .filter((f) => f.to === readers)
        .map((f) => {
          const n = nodes.find((n) => n.name === f.from);
          return n && <Pill key={f.id} flow={f} x={n.x} y={n.y + n.h / 2} />;
        })}
    </svg>
  );
}

/** How much goes over a reference point. */
function Pill({ flow, x, y }: { flow: Flow; x: number; y: number }) {
  const text = label(flow);
  const point = flow.point === "Devices" ? "" : flow.point;
  const w = 7 * (text.length + (point ? point.length + 1 : 0)) + 14;
  return (
    <g class="label">
      <rect x={x - w / 2} y={y - 11} width={w} height={22} rx={11} />
      <text x={x} y={y + 4}>
        {point && <tspan class="point">{point} </tspan>}
        {text}
      </text>
    </g>
  );
}

/** The picture in words, for who doesn't see it. */
function described(nodes: Node[], flows: Flow[]): string {
  const parties = nodes.filter((n) => n.party).map((n) => `${n.name}, ${n.role}${n.state === "down" ? ", does not answer" : ""}`);
  const ways = flows.map((f) => `${f.from} to ${f.to}`);
  return `Picture of the parties: ${parties.join("; ")}.` + (ways.length > 0 ? ` Data goes from ${ways.join(", ")}. The rates are in the table below.` : "");
}
