// A plot of one property over time, of one or several worlds. uPlot draws it on a
// canvas; the way by keyboard, and what a screen reader says, is here.
import { useEffect, useId, useRef, useState } from "preact/hooks";
import uPlot from "uplot";

import { date, moment, value } from "./format.ts";
import { useWidth } from "./hooks.ts";
import { colour, onTheme } from "./theme.ts";

export interface Line {
  name: string;
  colour: string; // a name of the style sheet
  times: number[]; // seconds, ascending
  values: (number | null)[];
}

export interface Range {
  from: number;
  to: number;
}

interface Plotted {
  lines: Line[];
  range: Range;
  label: string;
  unit: string;
  height: number;
  zoom?: (to: Range) => void; // somebody drew a stretch
}

/** Joins lines whose times differ. */
function joined(lines: Line[]): uPlot.AlignedData {
  const tables = lines.map((l): uPlot.AlignedData => [l.times, l.values]);
  if (tables.length === 0) return [[]];
  return tables.length === 1 ? tables[0]! : uPlot.join(tables);
}

const font = "12px 'Inter Variable', system-ui, sans-serif";

export function Plot({ lines, range, label, unit, height, zoom }: Plotted) {
  const [box, width] = useWidth<HTMLDivElement>();
  const at = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | undefined>(undefined);
  const [themed, setThemed] = useState(0);
  const zoomed = useRef(zoom);
  zoomed.current = zoom;
  const limits = useRef(range);
  limits.current = range;
  const names = lines.map((l) => `${l.name}:${l.colour}`).join();

  useEffect(() => onTheme(() => setThemed((n) => n + 1)), []);
  useEffect(() => {
    if (width === 0 || !at.current) return;
    const ink = colour("soft");
    const grid = { stroke: colour("line"), width: 1 };
    const u = new uPlot(
      {
        width,
        height,
        padding: [8, 8, 0, 0],
        legend: { show: false },
        cursor: { drag: { x: zoomed.current !== undefined, y: false, setScale: false }, points: { size: 7 }, y: false },
        select: { show: zoomed.current !== undefined, left: 0, top: 0, width: 0, height: 0 },
        scales: {
          x: { time: true, range: () => [limits.current.from, limits.current.to] },
          y: { range: (_u, low, high) => spread(low, high) },
        },
        axes: [
          { stroke: ink, grid: { show: false }, ticks: { ...grid, size: 4 }, font, size: 30, space: 76, values: (_u, ts) => ts.map((t) => tick(t, limits.current)) },
          { stroke: ink, grid, ticks: { show: false }, font, size: 46, space: 34, values: (_u, vs) => vs.map((v) => value(v)) },
        ],
        series: [
          {},
          // The later ones are dashed, so that one doesn't hide another with the same values.
          ...lines.map((l, i): uPlot.Series => {
            const c = colour(l.colour);
            return { label: l.name, stroke: c, width: 2, ...(i > 0 && { dash: [8, 4 + 4 * i] }), spanGaps: true, points: { size: 4, fill: c, show: (_u, _i, from, to) => to - from < 90 } };
          }),
        ],
        hooks: {
          setSelect: [
            (u) => {
              if (u.select.width < 4) return;
              const from = u.posToVal(u.select.left, "x");
              const to = u.posToVal(u.select.left + u.select.width, "x");
              u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
              zoomed.current?.({ from, to });
            },
          ],
        },
      },
      joined(lines),
      at.current,
    );
    plot.current = u;
    return () => {
      u.destroy();
      plot.current = undefined;
    };
  }, [width, height, names, themed]);
  useEffect(() => plot.current?.setData(joined(lines)), [lines, range.from, range.to]);

  return (
    <div class="plot" ref={box}>
      <div ref={at} role="img" aria-label={described(label, unit, lines, range)} style={{ height: `${height}px` }} />
    </div>
  );
}

const seconds = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const minutes = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const days = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });

/** A moment at the axis, as exact as the range is short. */
function tick(t: number, r: Range): string {
  const length = r.to - r.from;
  return (length < 900 ? seconds : length < 20 * 3600 ? minutes : days).format(t * 1000);
}

const largest = 1e300; // from here to its negative is still a number

/**
 * Leaves some room above and below, and a line that is flat in the middle; and so much
 * that numbers of that size have steps in it: the axis looks for its marks step by step.
 */
function spread(least: number | null, most: number | null): uPlot.Range.MinMax {
  if (least === null || most === null) return [0, 1];
  const [low, high] = [Math.max(least, -largest), Math.min(most, largest)];
  const size = Math.max(Math.abs(low), Math.abs(high));
  const room = Math.max(high > low ? (high - low) * 0.12 : Math.max(size * 0.1, 1), size * 1e-12);
  return [low - room, high + room];
}

/** A plot in words. */
function described(label: string, unit: string, lines: Line[], range: Range): string {
  const said = lines.map((l) => {
    const vs = l.values.filter((v): v is number => v !== null);
    if (vs.length === 0) return `${l.name}: nothing`;
    let low = vs[0]!;
    let high = vs[0]!;
    for (const v of vs) {
      low = Math.min(low, v);
      high = Math.max(high, v);
    }
    return `${l.name}: ${vs.length} values from ${value(low)} to ${value(high)} ${unit}, the last ${value(vs.at(-1))}`;
  });
  return `${label} from ${date(range.from * 1000)} to ${moment(range.to * 1000)}. ${said.join("; ")}.`;
}

const most = 200;

/** A plot's newest values as a table. */
export function Values({ lines, unit, label }: { lines: Line[]; unit: string; label: string }) {
  const [open, setOpen] = useState(false);
  const id = useId();
  const rows = open ? newest(lines) : [];
  return (
    <details class="values" onToggle={(e) => setOpen(e.currentTarget.open)}>
      <summary id={id}>{label} as a table</summary>
      {open && (
        <div class="scroll" role="region" aria-labelledby={id} tabIndex={0}>
          <table>
            <thead>
              <tr>
                <th scope="col">Measured</th>
                {lines.map((l) => (
                  <th scope="col" class="number" key={l.name}>
                    {l.name}
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {rows.map(([t, vs]) => (
                <tr key={t}>
                  <td>{date(t * 1000) + ":" + String(new Date(t * 1000).getSeconds()).padStart(2, "0")}</td>
                  {vs.map((v, i) => (
                    <td class="number" key={i}>
                      {v === null || v === undefined ? "" : `${value(v)} ${unit}`}
                    </td>
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
          {rows.length === most && <p class="soft">The newest {most}; zoom in for others.</p>}
        </div>
      )}
    </details>
  );
}

function newest(lines: Line[]): [number, (number | null | undefined)[]][] {
  const at = new Map<number, (number | null | undefined)[]>();
  lines.forEach((l, i) => {
    for (let j = Math.max(0, l.times.length - most); j < l.times.length; j++) {
      const t = l.times[j]!;
      const row = at.get(t) ?? [];
      row[i] = l.values[j];
      at.set(t, row);
    }
  });
  return [...at.entries()]
    .sort((a, b) => b[0] - a[0])
    .slice(0, most)
    .map(([t, row]) => [t, lines.map((_, i) => row[i])]);
}
