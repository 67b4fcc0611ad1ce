// What came out of a job: as a table, and drawn where it can be.
import type { Job } from "./api.ts";
import { output, partial, type PutOut } from "./api.ts";
import { bytes, count, moment, plural, value, words } from "./format.ts";
import { useAsk } from "./hooks.ts";
import { type Line, Plot } from "./plot.tsx";
import { type BarGroup, bars, cell, type Grid, grids, series, type Series, type Sheet, sheets } from "./sheets.ts";
import { Download, Empty, Failure, Loading, Section, Table } from "./ui.tsx";

export function Result({ world, job: j, readable }: { world: string; job: Job; readable: boolean }) {
  const { data, error, again } = useAsk<Uint8Array<ArrayBuffer> | undefined>((signal) => (readable ? output(world, j.id, signal) : Promise.resolve(undefined)), [world, j.id, readable]);
  return (
    <Section title="Result" note={j.output && `Of ${plural(j.output.measurements, "measurement")}, ${bytes(j.output.size)}. Its SHA-256 is signed by who computed it.`}>
      <p class="soft manifest">
        <code>{j.output?.fingerprint}</code>
      </p>
      {!readable && <Empty title="Not for this role.">An auditor sees that something came out, and reads none of it.</Empty>}
      {error && <Failure what="The result can’t be asked for." error={error} again={again} />}
      {readable && data === undefined && !error && <Loading what="the result" />}
      {data && <Shown of={data} engine={j.task.engine} name={j.id} what="the result" />}
    </Section>
  );
}

/** What a job that runs has put out so far: asked for again when somebody wants it, since each time all of it comes. */
export function SoFar({ world, job: j }: { world: string; job: Job }) {
  const { data, error, again } = useAsk<PutOut>((signal) => partial(world, j.id, signal), [world, j.id, j.progress?.attempt]);
  const more = data !== undefined && (j.progress?.parts ?? 0) > data.parts;
  return (
    <Section title="So far" note="What the program has put out until now. Nothing proves it: what proves a result is signed over the whole of it, when the job has ended.">
      {error && <Failure what="What came out so far can’t be asked for." error={error} again={again} />}
      {data === undefined && !error && <Loading what="what came out so far" />}
      {data && (
        <>
          <p class="soft">
            {plural(data.parts, "part")} of attempt {data.attempt}, {bytes(data.output.length)}
            {data.heard && `, heard at ${moment(data.heard)}`}{" "}
            {more && (
              <button type="button" class="small" onClick={again}>
                Ask again: there is more
              </button>
            )}
          </p>
          {data.output.length > 0 && <Shown of={data.output} engine={j.task.engine} name={`${j.id}-so-far`} what="what came out so far" />}
        </>
      )}
    </Section>
  );
}

const mostText = 20_000; // characters of what is no table

function Shown({ of, engine, name, what }: { of: Uint8Array<ArrayBuffer>; engine: string; name: string; what: string }) {
  const text = new TextDecoder().decode(of);
  const all = sheets(text, engine);
  return (
    <>
      {of.length === 0 && <Empty title="Nothing came out.">The program ended well, and put out nothing.</Empty>}
      {all?.map((s, i) => <Drawn key={i} sheet={s} />)}
      {all?.map((s, i) => <Rows key={i} sheet={s} name={all.length > 1 ? `Rows of ${what}, kind ${i + 1}` : `Rows of ${what}`} />)}
      {all === undefined && of.length > 0 && (
        <pre class="put-out" role="region" aria-label="Result, as it is" tabIndex={0}>
          {text.slice(0, mostText)}
          {text.length > mostText && "…"}
        </pre>
      )}
      <p class="after">
        <Download name={`${name}.jsonl`} type="application/octet-stream" content={of}>
          Get it as it is
        </Download>
      </p>
    </>
  );
}

const mostRows = 500;

function Rows({ sheet: s, name }: { sheet: Sheet; name: string }) {
  if (s.rows.length === 0) return <Empty title="No rows.">The query ran, and found nothing: {s.columns.join(", ")}.</Empty>;
  const right = s.columns.map((_, i) => s.rows.every((r) => typeof r[i] === "number"));
  return (
    <div class="after">
      <Table caption={name}>
        <thead>
          <tr>
            {s.columns.map((c, i) => (
              <th scope="col" key={i} class={right[i] ? "number" : undefined}>
                {words(c)}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {s.rows.slice(0, mostRows).map((r, n) => (
            <tr key={n}>
              {s.columns.map((_, i) => (
                <td key={i} class={right[i] ? "number" : undefined}>
                  {cell(r[i])}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </Table>
      {s.rows.length > mostRows && (
        <p class="soft">
          The first {mostRows} of {count(s.rows.length)} rows; the file has all.
        </p>
      )}
    </div>
  );
}

/** What can be drawn of rows. */
function Drawn({ sheet }: { sheet: Sheet }) {
  const over = series(sheet);
  const drawn = [...grids(sheet).map((g, i) => <Cells key={`g${i}`} of={g} />), ...(over ? [] : bars(sheet).map((b, i) => <Bars key={`b${i}`} of={b} />))];
  return (
    <>
      {over && <OverTime of={over} />}
      {drawn.length > 0 && <div class="drawn">{drawn}</div>}
    </>
  );
}

function OverTime({ of }: { of: Series }) {
  const lines: Line[] = of.lines.map((l, i) => ({ name: l.name, colour: `line-${i + 1}`, times: of.times, values: l.values }));
  const [from, to] = [of.times[0]!, of.times.at(-1)!];
  const room = Math.max((to - from) * 0.02, 0.5);
  return (
    <div class="card">
      <Plot lines={lines} range={{ from: from - room, to: to + room }} label="Result" unit="" height={260} />
      <p class="soft legend">
        {lines.map((l) => (
          <span key={l.name}>
            <i class={`swatch ${l.colour}`} /> {l.name}
          </span>
        ))}
      </p>
    </div>
  );
}

function Bars({ of }: { of: BarGroup }) {
  const most = Math.max(...of.bars.map((b) => b.value), 1e-9);
  return (
    <figure class="card bars">
      <figcaption>{of.title}</figcaption>
      <ul>
        {of.bars.map((b, i) => (
          <li key={i}>
            <span class="name">{b.name}</span>
            <span class="track" aria-hidden="true">
              <i style={{ width: `${(100 * b.value) / most}%` }} />
            </span>
            <span class="number">{value(b.value)}</span>
          </li>
        ))}
      </ul>
    </figure>
  );
}

function Cells({ of: { title, cells } }: { of: Grid }) {
  const rows = cells.length;
  const columns = cells[0]!.length;
  const most = Math.max(...cells.flat(), 1e-9);
  const found = cells.flatMap((r, y) => r.map((v, x) => ({ v, x, y }))).reduce((a, b) => (b.v > a.v ? b : a));
  const says = `${title}: a map of ${columns} by ${rows} cells. The most, ${value(found.v)}, is in column ${found.x + 1} of row ${found.y + 1}.`;
  return (
    <figure class="card grid">
      <figcaption>{title}</figcaption>
      <svg viewBox={`0 0 ${columns} ${rows}`} role="img" aria-label={says} preserveAspectRatio="xMinYMid meet">
        {cells.flatMap((r, y) => r.map((v, x) => <rect key={`${x},${y}`} x={x + 0.04} y={y + 0.04} width={0.92} height={0.92} fill-opacity={0.06 + (0.94 * Math.max(0, v)) / most} />))}
      </svg>
      <p class="soft">The most in one cell: {value(found.v)}</p>
    </figure>
  );
}
