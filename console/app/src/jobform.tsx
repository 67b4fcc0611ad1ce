// Ordering a job: first it is said where it could run and what would leave for that,
// then it is ordered.
import { useState } from "preact/hooks";

import { ask, askIfThere, asRefusal, type Avatar, type Job, type JobPlan, type Module, type NewJob, type Reached, Refusal, tell } from "./api.ts";
import { bytes, count, plural, words } from "./format.ts";
import { to, useAsk } from "./hooks.ts";
import { Empty, Failure, Loading, Section, sentence, Sensitivity } from "./ui.tsx";

const example = "SELECT property, count(*) AS n, min(value) AS least, avg(value) AS mean, max(value) AS most\nFROM measurements GROUP BY property ORDER BY property";

const withins = [
  { label: "1 minute", seconds: 60 },
  { label: "10 minutes", seconds: 600 },
  { label: "1 hour", seconds: 3600 },
  { label: "1 day", seconds: 86400 },
];

/** What was filled in, but for the avatars and properties. */
interface Form {
  program: string; // query, file, or the id of a signed module
  query: string;
  file: File | undefined;
  parameters: string;
  from: string;
  to: string;
  within: number;
}

/** A plan with what it is the plan of: what is ordered is what was planned. */
interface Planned {
  job: NewJob;
  plan: JobPlan;
}

export function NewJobForm({ worlds, ordered }: { worlds: Reached[]; ordered: () => void }) {
  const [world, setWorld] = useState(worlds[0]!.name);
  const [chosen, setChosen] = useState<string[]>(); // avatars; undefined: the first
  const [only, setOnly] = useState<string[]>([]); // properties; none: all
  const [form, setForm] = useState<Form>({ program: "query", query: example, file: undefined, parameters: "", from: "", to: "", within: 600 });
  const [planned, setPlanned] = useState<Planned>();
  const [at, setAt] = useState("");
  const [error, setError] = useState<{ what: string; why: Refusal }>();
  const [busy, setBusy] = useState(false);
  const avatars = useAsk<Avatar[]>(async (signal) => (await ask<{ avatars: Avatar[] | null }>(world, "/v1/avatars", signal)).avatars ?? [], [world]);

  const modules = useAsk<Module[]>(async (signal) => ((await askIfThere<{ modules: Module[] | null }>(world, "/v1/modules", signal))?.modules ?? []).filter((m) => !m.revoked), [world]);
  const signed = modules.data?.find((m) => m.id === form.program);

  // Who changes something plans anew.
  const changed = (): void => {
    setPlanned(undefined);
    setError(undefined);
  };
  const change = (what: Partial<Form>): void => {
    changed();
    setForm({ ...form, ...what });
  };
  const mine = chosen ?? (avatars.data?.[0] ? [avatars.data[0].id] : []);
  const properties = [...new Set((avatars.data ?? []).filter((a) => mine.includes(a.id)).flatMap((a) => a.properties.map((p) => p.split("/")[0]!)))].sort();
  const given = only.filter((p) => properties.includes(p));

  const plan = async (e: Event): Promise<void> => {
    e.preventDefault();
    changed();
    setBusy(true);
    try {
      const job = await jobOf(form, mine, given);
      const plan = await tell<JobPlan>(world, "POST", "/v1/jobs/plans", job);
      setPlanned({ job, plan });
      setAt(plan.choice ?? "");
    } catch (e) {
      setError({ what: "It can’t be planned.", why: asRefusal(e) });
    }
    setBusy(false);
  };
  const order = async (): Promise<void> => {
    const place = planned?.plan.places.find((p) => p.at === at);
    if (planned === undefined || place === undefined) return;
    setBusy(true);
    setError(undefined);
    try {
      const made = await tell<Job>(world, "POST", "/v1/jobs", place.here ? planned.job : { ...planned.job, at: place.at });
      ordered();
      location.hash = to("jobs", world, made.id);
    } catch (e) {
      setError({ what: "It wasn’t ordered.", why: asRefusal(e) });
      setBusy(false);
    }
  };
  return (
    <Section title="New job">
      <form class="card job-form" onSubmit={(e) => void plan(e)}>
        {worlds.length > 1 && (
          <label>
            World
            <select
              value={world}
              onChange={(e) => {
                changed();
                setWorld(e.currentTarget.value);
                setChosen(undefined);
                setOnly([]);
                setForm({ ...form, program: "query" }); // another world knows other modules
              }}
            >
              {worlds.map((w) => (
                <option key={w.name} value={w.name}>
                  {w.name}
                </option>
              ))}
            </select>
          </label>
        )}
        {avatars.error && <Failure what="The avatars can’t be asked for." error={avatars.error} again={avatars.again} />}
        {avatars.data === undefined && !avatars.error && <Loading what="the avatars" />}
        {avatars.data?.length === 0 && <Empty title="No avatars yet.">There is nothing to compute over in {world}.</Empty>}
        {avatars.data !== undefined && avatars.data.length > 0 && (
          <Ticks
            legend="Whose measurements"
            all={avatars.data.map((a) => ({ id: a.id, name: a.title || `avatar ${a.id.slice(0, 8)}` }))}
            ticked={mine}
            tick={(ids) => {
              changed();
              setChosen(ids);
            }}
          />
        )}
        {properties.length > 0 && (
          <Ticks
            legend={`Only these properties; none ticked: ${signed?.reads?.length ? "what the module reads" : "all"}`}
            all={properties.map((p) => ({ id: p, name: words(p) }))}
            ticked={given}
            tick={(names) => {
              changed();
              setOnly(names);
            }}
          />
        )}
        <div class="pair">
          <label>
            Measured from
            <input type="datetime-local" step="1" value={form.from} onInput={(e) => change({ from: e.currentTarget.value })} />
            <span class="soft">left empty: from the first on</span>
          </label>
          <label>
            Measured before
            <input type="datetime-local" step="1" value={form.to} onInput={(e) => change({ to: e.currentTarget.value })} />
            <span class="soft">left empty: until now</span>
          </label>
        </div>
        <div class="pair">
          <label>
            Program
            <select value={form.program} onChange={(e) => change({ program: e.currentTarget.value })}>
              <option value="query">Query (SQL)</option>
              {modules.data !== undefined && modules.data.length > 0 && (
                <optgroup label="Signed modules">
                  {modules.data.map((m) => (
                    <option key={m.id} value={m.id}>
                      {m.id}
                    </option>
                  ))}
                </optgroup>
              )}
              <option value="file">Module from a file (WebAssembly)</option>
            </select>
          </label>
          <label>
            To be done within
            <select value={form.within} onChange={(e) => change({ within: Number(e.currentTarget.value) })}>
              {withins.map((w) => (
                <option key={w.seconds} value={w.seconds}>
                  {w.label}
                </option>
              ))}
            </select>
          </label>
        </div>
        {modules.error && <Failure what="The modules can’t be asked for." error={modules.error} again={modules.again} />}
        {form.program === "query" && (
          <label>
            Query
            <textarea rows={5} spellcheck={false} required value={form.query} onInput={(e) => change({ query: e.currentTarget.value })} />
            <span class="soft">over measurements(avatar, time, property, value, unit); avatars are a1, a2 and so on, time is in nanoseconds since 1970</span>
          </label>
        )}
        {form.program === "file" && (
          <label>
            Module file
            <input type="file" accept=".wasm,application/wasm" required onChange={(e) => change({ file: e.currentTarget.files?.[0] })} />
            <span class="soft">
              Nobody has signed it: it runs only where the operators of {world} and of the DPM allow that. <code>carnet module add</code> signs one.
            </span>
          </label>
        )}
        {signed && (
          <p class="soft">
            {signed.reads?.length ? `It reads ${signed.reads.map(words).join(", ")}. ` : ""}
            {bytes(signed.program.size)}, signed by <code>{signed.by}</code>
          </p>
        )}
        <label>
          Parameters
          <input type="text" spellcheck={false} placeholder={form.program === "query" ? '{"max": 190}, which is :max in the query' : '{"max": 190}'} value={form.parameters} onInput={(e) => change({ parameters: e.currentTarget.value })} />
        </label>
        {error && <Failure what={error.what} error={error.why} />}
        <div class="actions">
          <button type="submit" class={planned ? "quiet" : ""} disabled={busy || mine.length === 0}>
            See where it can run
          </button>
          <a class="small" href={to("jobs")}>
            Leave it
          </a>
        </div>
        {planned && <Places of={planned.plan} world={world} at={at} choose={setAt} order={() => void order()} busy={busy} />}
      </form>
    </Section>
  );
}

/** Where it could run, and what would leave for that. */
function Places({ of: p, world, at, choose, order, busy }: { of: JobPlan; world: string; at: string; choose: (at: string) => void; order: () => void; busy: boolean }) {
  const place = p.places.find((q) => q.at === at);
  return (
    <div class="plan" role="group" aria-label="Where it can run">
      <p>
        The program would be given {plural(p.measurements, "measurement")}
        {p.properties && Object.keys(p.properties).length > 0 && `: ${Object.entries(p.properties).map(([n, k]) => `${words(n)} ${count(k)}`).join(", ")}`}. What comes out is <Sensitivity of={p.label.sensitivity} />.
      </p>
      <fieldset>
        <legend>Where</legend>
        {p.places.map((q) => (
          <label key={q.at} class="tick place">
            <input type="radio" name="place" value={q.at} checked={at === q.at} disabled={!q.can} onChange={() => choose(q.at)} />
            <span>
              <strong>{q.here ? `${q.at} itself` : q.at}</strong> <span class={q.can ? "soft" : "trouble"}>{sentence(q.why)}</span>
            </span>
          </label>
        ))}
      </fieldset>
      <p class="soft">{p.choice ? `Best: ${p.choice}, since ${p.why}.` : sentence(p.why)}</p>
      {place && (
        <>
          <p role="status">
            {place.here
              ? `Nothing leaves ${world}.`
              : `To ${place.at} would go ${plural(p.batches, "sealed batch", "sealed batches")}, ${bytes(p.bytes)}, and ${plural(p.keys, "key")}.${p.along > 0 ? ` It could read ${plural(p.along, "measurement")} more, from the same batches.` : ""}`}
          </p>
          <button type="button" disabled={busy} onClick={order}>
            Run it at {place.at}
          </button>
        </>
      )}
    </div>
  );
}

function Ticks({ legend, all, ticked, tick }: { legend: string; all: { id: string; name: string }[]; ticked: string[]; tick: (ids: string[]) => void }) {
  return (
    <fieldset class="ticks">
      <legend>{legend}</legend>
      {all.map((a) => (
        <label key={a.id} class="tick">
          <input type="checkbox" checked={ticked.includes(a.id)} onChange={(e) => tick(e.currentTarget.checked ? [...ticked, a.id] : ticked.filter((t) => t !== a.id))} /> {a.name}
        </label>
      ))}
    </fieldset>
  );
}

/** Makes an order of what was filled in. What a party would refuse it refuses itself, but for what can't be sent. */
async function jobOf(f: Form, avatars: string[], properties: string[]): Promise<NewJob> {
  const job: NewJob = { avatars, within: f.within };
  if (f.program === "query") Object.assign(job, { engine: "sql", program: base64(new TextEncoder().encode(f.query)) });
  else if (f.program === "file") Object.assign(job, { engine: "wasm", program: base64(new Uint8Array((await f.file?.arrayBuffer()) ?? new ArrayBuffer(0))) });
  else job.module = f.program;
  if (f.parameters.trim() !== "") {
    try {
      job.parameters = JSON.parse(f.parameters);
    } catch {
      throw new Refusal(0, "The parameters aren’t JSON.", "Write an object, such as {\"max\": 190}.");
    }
  }
  if (f.from !== "") job.from = new Date(f.from).toISOString();
  if (f.to !== "") job.to = new Date(f.to).toISOString();
  if (properties.length > 0) job.properties = properties;
  return job;
}

function base64(of: Uint8Array): string {
  let text = "";
  for (let i = 0; i < of.length; i += 0x8000) text += String.fromCharCode(...of.subarray(i, i + 0x8000));
  return btoa(text);
}
