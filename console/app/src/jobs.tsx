import { useState } from "preact/hooks";

import { askIfThere, asRefusal, type Avatar, type Identity, type Job, mayGovern, mayRead, maySurvey, type Peer, type Reached, type Refusal, tell } from "./api.ts";
import { bytes, count, date, moment, plural, words } from "./format.ts";
import { to, useAsk } from "./hooks.ts";
import { NewJobForm } from "./jobform.tsx";
import { Result, SoFar } from "./result.tsx";
import { Choice, Counted, Empty, Failure, Figure, Loading, Section, sentence, Sensitivity, Table } from "./ui.tsx";
import { called, family, type Ordered, running, said, where } from "./work.ts";

const mostListed = 8;

export function Jobs({ who, place }: { who: Identity; place: string[] }) {
  const worlds = who.parties.filter((p) => p.role === "world" && maySurvey(p));
  const ordering = worlds.filter(mayGovern);
  const [busy, setBusy] = useState(true);
  const [whole, setWhole] = useState(false);
  const { data, error, again } = useAsk<Ordered[]>(
    async (signal) => {
      const all = await Promise.all(
        worlds.map(async ({ name: world }) => (await askIfThere<{ jobs: Job[] | null }>(world, "/v1/jobs", signal))?.jobs?.map((job) => ({ world, job })) ?? []),
      );
      const jobs = all.flat().sort((p, q) => q.job.made.localeCompare(p.job.made) || p.job.id.localeCompare(q.job.id));
      setBusy(jobs.some(({ job }) => running(job) || uncompared(job)));
      return jobs;
    },
    [who],
    busy ? 1000 : 5000,
  );
  if (worlds.length === 0) {
    return (
      <>
        <h1>Jobs</h1>
        <Empty title="Nothing to show you here.">Jobs are for a world’s administrator and auditors, and {who.name} has no such token of one.</Empty>
      </>
    );
  }
  const making = place[0] === "new";
  const found = data?.find((o) => o.world === place[0] && o.job.id === place[1]) ?? (place.length === 0 ? data?.[0] : undefined);
  const listed = data?.filter((o, i) => whole || i < mostListed || o === found) ?? [];
  return (
    <>
      <div class="head-row">
        <h1>Jobs</h1>
        {ordering.length > 0 && !making && (
          <a class="button" href={to("jobs", "new")}>
            New job
          </a>
        )}
      </div>
      <p class="lead">What a world has computed over what avatars said: in the world itself, or at a DPM that gets the keys of exactly what the job needs.</p>
      {error && <Failure what="The jobs can’t be asked for." error={error} again={again} />}
      {making && ordering.length > 0 && <NewJobForm worlds={ordering} ordered={again} />}
      {making && ordering.length === 0 && <Empty title="Not for this role.">A world’s administrator orders jobs.</Empty>}
      {!making && data === undefined && !error && <Loading what="the jobs" />}
      {!making && data?.length === 0 && (
        <Empty title="Nothing has been computed yet.">
          {ordering.length > 0 ? <a href={to("jobs", "new")}>Order a job</a> : "A world’s administrator orders jobs"}, here or with <code>carnet job run</code>.
        </Empty>
      )}
      {!making && data !== undefined && data.length > 0 && (
        <>
          <Choice label="Jobs" items={listed.map((o) => ({ href: to("jobs", o.world, o.job.id), title: called(o.job), more: `${o.world}, ${moment(o.job.made)}: ${said(o)}`, now: o === found }))} />
          {listed.length < data.length && (
            <button type="button" class="small after" onClick={() => setWhole(true)}>
              Show all {count(data.length)}
            </button>
          )}
          {found ? (
            <One key={found.world + found.job.id} of={found} all={data.filter((o) => o.world === found.world).map((o) => o.job)} party={worlds.find((w) => w.name === found.world)!} again={again} />
          ) : (
            <Empty title="There is no such job.">
              See <a href={to("jobs")}>all jobs</a>.
            </Empty>
          )}
        </>
      )}
    </>
  );
}

/** Whether a repetition's comparison is still to come. */
const uncompared = (j: Job): boolean => j.repeats !== undefined && j.output !== undefined && !j.comparison;

function One({ of, all, party, again }: { of: Ordered; all: Job[]; party: Reached; again: () => void }) {
  const { world, job: j } = of;
  const bad = j.state === "ended" && j.output === undefined && j.outcome !== "withdrawn";
  return (
    <article>
      <div class="title-row">
        <h2 class="big">
          {called(j)}{" "}
          <span class="soft">
            of {world}, {j.at === undefined ? "computed there" : `at ${j.at}`}
          </span>
        </h2>
        {mayGovern(party) && running(j) && j.state !== "withdrawing" && <Withdraw of={of} again={again} />}
      </div>
      <p class="soft id">
        <code>{j.id}</code>
      </p>
      <p class="standing" role="status">
        <strong>{sentence(said(of))}</strong> {j.why && <span class={bad ? "trouble" : "soft"}>{sentence(j.why)}</span>}
      </p>
      {running(j) && <Progress of={of} />}
      {running(j) && mayRead(party) && (j.progress?.parts ?? 0) > 0 && <SoFar world={world} job={j} />}
      {j.output && <Result world={world} job={j} readable={mayRead(party)} />}
      <Repeats of={of} all={all} party={party} again={again} />
      <Ordering of={of} />
    </article>
  );
}

function Progress({ of }: { of: Ordered }) {
  const p = of.job.progress;
  return (
    <Section title="Progress">
      {p === undefined || p.attempt === 0 ? (
        <p class="soft">It hasn’t begun to run{p?.state ? `: ${p.state}` : ""}.</p>
      ) : (
        <>
          <progress max={1000} value={p.permille} aria-label={`Read: ${(p.permille / 10).toFixed(0)} % of the measurements`} />
          <p class="soft">
            {(p.permille / 10).toFixed(0)} % read, {plural(p.measurements, "measurement")}, {plural(p.parts, "part")} put out, attempt {p.attempt}
          </p>
        </>
      )}
      {p?.trouble && <p class="trouble">{sentence(p.trouble)}</p>}
      <p class="soft">Until {moment(of.job.until)} it must have ended.</p>
    </Section>
  );
}

/** Withdraws a job: once more asked, since it can't be taken back. */
function Withdraw({ of: { world, job }, again }: { of: Ordered; again: () => void }) {
  const [sure, setSure] = useState(false);
  const [error, setError] = useState<Refusal>();
  const withdraw = async (): Promise<void> => {
    setSure(false);
    setError(undefined);
    try {
      await tell(world, "DELETE", `/v1/jobs/${job.id}`);
    } catch (e) {
      setError(asRefusal(e));
    }
    again();
  };
  return (
    <div class="actions">
      {error && <Failure what="It wasn’t withdrawn." error={error} />}
      {!sure && (
        <button type="button" class="quiet danger" onClick={() => setSure(true)}>
          Withdraw it
        </button>
      )}
      {sure && (
        <>
          <button type="button" class="quiet danger" onClick={() => void withdraw()}>
            Yes, nothing of it is taken
          </button>
          <button type="button" class="quiet" onClick={() => setSure(false)}>
            Let it run
          </button>
        </>
      )}
    </div>
  );
}

/** The same program over the same inputs once more, and what was found. */
function Repeats({ of: { world, job: j }, all, party, again }: { of: Ordered; all: Job[]; party: Reached; again: () => void }) {
  const [at, setAt] = useState("");
  const [error, setError] = useState<Refusal>();
  const [busy, setBusy] = useState(false);
  const kin = family(j, all);
  const may = mayGovern(party) && j.output !== undefined;
  // Whether one of them takes it, the world says.
  const { data: dpms } = useAsk<string[]>(
    async (signal) => (may ? ((await askIfThere<{ peers: Peer[] | null }>(world, "/v1/peers", signal))?.peers ?? []).filter((p) => p.role === "dpm" && p.state === "active").map((p) => p.name) : []),
    [world, may],
  );
  if (!may && kin.length < 2) return null;
  const repeat = (e: Event): void => {
    e.preventDefault();
    setBusy(true);
    setError(undefined);
    tell<Job>(world, "POST", `/v1/jobs/${j.id}/repetitions`, at === "" ? {} : { at }).then(
      (made) => {
        setBusy(false);
        again();
        location.hash = to("jobs", world, made.id);
      },
      (e: unknown) => {
        setBusy(false);
        setError(asRefusal(e));
      },
    );
  };
  return (
    <Section title="Repeat and compare" note="The same program over the same measurements puts out the same bytes, wherever it runs. If it doesn’t, and one ran in the world itself, the other’s DPM is named.">
      {may && (
        <form class="tools" onSubmit={repeat}>
          <label>
            Where
            <select value={at} onChange={(e) => setAt(e.currentTarget.value)}>
              <option value="">{world} itself</option>
              {dpms?.map((d) => (
                <option key={d} value={d}>
                  {d}
                </option>
              ))}
            </select>
          </label>
          <button type="submit" disabled={busy}>
            Repeat it
          </button>
        </form>
      )}
      {error && <Failure what="It wasn’t repeated." error={error} />}
      {kin.length > 1 && (
        <Table caption="The job and its repetitions" whole>
          <thead>
            <tr>
              <th scope="col">Ordered</th>
              <th scope="col">Where</th>
              <th scope="col">Compared</th>
              <th scope="col">Output</th>
              <th scope="col" class="wide">How it stands</th>
            </tr>
          </thead>
          <tbody>
            {kin.map((k) => (
              <tr key={k.id} aria-current={k.id === j.id ? "true" : undefined}>
                <td>{k.id === j.id ? <strong>{moment(k.made)}, this one</strong> : <a href={to("jobs", world, k.id)}>{moment(k.made)}</a>}</td>
                <td>{where({ world, job: k })}</td>
                <td>{found(k, kin)}</td>
                <td class="nowrap">{k.output && <code>{k.output.fingerprint.slice(0, 8)}…</code>}</td>
                <td class="wide">{said({ world, job: k })}</td>
              </tr>
            ))}
          </tbody>
        </Table>
      )}
    </Section>
  );
}

/** What was found of a repetition. */
function found(k: Job, kin: Job[]) {
  if (k.repeats === undefined) return <span class="soft">the first</span>;
  if (k.comparison) return <span class={same(k, kin) ? "alike" : "trouble"}>{k.comparison}</span>;
  return running(k) || uncompared(k) ? <span class="soft">not yet</span> : <span class="soft">there is nothing to compare</span>;
}

/** Whether two outputs have one fingerprint: the page doesn't go by the words. */
const same = (k: Job, kin: Job[]): boolean => k.output !== undefined && kin.find((f) => f.id === k.repeats)?.output?.fingerprint === k.output.fingerprint;

/** What was ordered. */
function Ordering({ of: { world, job: j } }: { of: Ordered }) {
  const { data: names } = useAsk<Map<string, string>>(
    async (signal) => new Map(((await askIfThere<{ avatars: Avatar[] | null }>(world, "/v1/avatars", signal))?.avatars ?? []).map((a) => [a.id, a.title || `avatar ${a.id.slice(0, 8)}`])),
    [world],
  );
  const { task } = j;
  const inputs = task.inputs ?? [];
  return (
    <Section title="What was ordered" note="Everything here decides the output, and is in the order that the world signed.">
      <dl class="order">
        <Figure label={j.avatars.length === 1 ? "avatar" : "avatars"}>
          {j.avatars.map((id, i) => (
            <span key={id}>
              {i > 0 && ", "}
              {names?.has(id) ? <a href={to("avatars", world, id)}>{names.get(id)}</a> : <>avatar {id.slice(0, 8)}</>}
            </span>
          ))}
        </Figure>
        <Figure label="measured">
          {task.from === 0 ? "from the first on" : date(task.from / 1e6)} to {date(task.to / 1e6)}
        </Figure>
        <Figure label={task.properties?.length === 1 ? "property" : "properties"}>{task.properties?.length ? task.properties.map(words).join(", ") : "all"}</Figure>
        <Counted n={inputs.reduce((n, i) => n + i.batches, 0)} one="sealed batch" many="sealed batches" />
        <Figure label="for">{j.purpose}</Figure>
        <Figure label="what comes out is">
          <Sensitivity of={j.label.sensitivity} />
        </Figure>
        <Figure label="ordered">{date(j.made)}</Figure>
        {j.ended && <Figure label="ended">{date(j.ended)}</Figure>}
        {task.parameters !== undefined && (
          <Figure label="parameters">
            <code>{JSON.stringify(task.parameters)}</code>
          </Figure>
        )}
        {j.policies?.map((p) => (
          <Figure key={p.avatar} label={j.avatars.length === 1 ? "under its owner’s policy" : `under the policy of ${p.avatar}’s owner`}>
            version {p.version}
          </Figure>
        ))}
        {j.module !== undefined && <Figure label="signed module">{j.module}</Figure>}
        <Figure label={`program for ${task.engine}, ${bytes(task.program.size)}`}>
          <code>{task.program.fingerprint}</code>
        </Figure>
      </dl>
    </Section>
  );
}
