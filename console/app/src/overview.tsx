import { useState } from "preact/hooks";

import { askIfThere, type Identity, maySurvey, type Peer, type Reached } from "./api.ts";
import { useFlows } from "./asking.ts";
import type { Answer, Flow } from "./flows.ts";
import { bytes, count, named, plural, rate } from "./format.ts";
import { to, useAsk, useWidth } from "./hooks.ts";
import { Picture, roleNames } from "./picture.tsx";
import { Counted, Empty, Failure, Figure, Loading, Section, sentence, Table } from "./ui.tsx";

export function Overview({ who }: { who: Identity }) {
  const { answers, flows } = useFlows(who);
  const [box, width] = useWidth<HTMLDivElement>();
  if (who.parties.length === 0) {
    return (
      <>
        <h1>Overview</h1>
        <Empty title="The console knows no party.">Name parties in its access file, with the tokens that their operators gave you, and start it again.</Empty>
      </>
    );
  }
  const asked = answers?.some((a) => a.status || a.own);
  const own = asked && !answers?.some((a) => a.status);
  return (
    <>
      <h1>Overview</h1>
      <p class="lead">The parties, and what goes between them now. Nobody has to trust a neighbour: each has its own keys, and sees what its peering and the owners’ views admit.</p>
      <div class="picture" ref={box}>
        {width > 0 && <Picture width={width} who={who} answers={answers ?? []} flows={flows} more="The rates are in the table below." />}
      </div>
      {answers === undefined && <Loading what="the parties" />}
      {answers !== undefined && !asked && <NoStatus answers={answers} who={who} />}
      {asked && (
        <Section title="Over each reference point" note={own ? "Of your own things, every two seconds." : "Counted by the parties themselves, every two seconds. Answers and events are what avatars of one world are given of each other under grants (R3), and people and programs (R4); sealed pieces are the capsules, contents and parts of jobs (R6)."}>
          <Table caption="What goes over each reference point" whole>
            <thead>
              <tr>
                <th scope="col">Point</th>
                <th scope="col">From, to</th>
                <th scope="col" class="number">Now</th>
                <th scope="col" class="wide">Last 2 min</th>
                <th scope="col" class="number wide">In all</th>
              </tr>
            </thead>
            <tbody>
              {flows.map((f) => (
                <tr key={f.id + f.what}>
                  <td>{f.point}</td>
                  <td>
                    {f.from} <span class="soft">to</span> {f.to}
                  </td>
                  <td class="number" data-flow={f.id}>
                    <Now flow={f} />
                    {f.trouble !== undefined && <span class="trouble"> {f.trouble}</span>}
                  </td>
                  <td class="wide">{f.recent.length > 1 && <Spark of={f.recent} />}</td>
                  <td class="number wide">{f.all !== undefined ? count(f.all) : "–"}</td>
                </tr>
              ))}
            </tbody>
          </Table>
        </Section>
      )}
      {answers !== undefined && (
        <Section title="Parties">
          {answers.some(tells) && <ul class="cards">
            {answers.filter(tells).sort((a, b) => order.indexOf(a.party.role) - order.indexOf(b.party.role)).map((a) => (
              <li key={a.party.name} class="card">
                <Card of={a} />
              </li>
            ))}
          </ul>}
          <Untold answers={answers.filter((a) => !tells(a))} who={who} />
        </Section>
      )}
    </>
  );
}

const Now = ({ flow: f }: { flow: Flow }) =>
  f.now !== undefined ? (
    <>{plural(f.now, f.what.replace(/s$/, ""), f.what)}</>
  ) : f.perSecond === undefined ? (
    <>…</>
  ) : (
    <>
      {rate(f.perSecond)} {f.what}/s
    </>
  );

const Spark = ({ of }: { of: number[] }) => {
  const top = Math.max(...of, 1e-9);
  const points = of.map((v, i) => `${(i * 100) / Math.max(of.length - 1, 9)},${(22 - (v / top) * 20).toFixed(1)}`).join(" ");
  return (
    <svg class="spark" viewBox="0 0 100 24" width="100" height="24" aria-hidden="true" preserveAspectRatio="none">
      <polyline points={points} fill="none" stroke="currentColor" stroke-width="1.6" stroke-linejoin="round" />
    </svg>
  );
};

const order: Reached["role"][] = ["things", "world", "dpm", "depot"];

/** Whether there is something to show of how a party is. */
const tells = (a: Answer): boolean => a.status !== undefined || (a.error !== undefined && a.error.status !== 403) || maySurvey(a.party);

/** Of which parties nothing is told, and why: once, however many they are. */
function Untold({ answers, who }: { answers: Answer[]; who: Identity }) {
  if (answers.length === 0) return null;
  const none = answers.filter((a) => !a.party.as).map((a) => a.party.name);
  const shy = answers.filter((a) => a.party.as).map((a) => a.party.name);
  return (
    <p class="soft untold">
      {shy.length > 0 && <>How things stand at {named(shy)} is shown to their administrators and auditors; what concerns you is under <a href={to("things")}>Things</a> and <a href={to("avatars")}>Avatars</a>. </>}
      {none.length > 0 && <>For {named(none)} {who.name} has no token: the operator can give one, under this name, to the console’s access file. </>}
      Their lights in the picture are grey where nothing is known.
    </p>
  );
}

function Card({ of: { party, status, error } }: { of: Answer }) {
  return (
    <>
      <h3>
        {party.name} <span class="soft">{roleNames[party.role]}</span>
      </h3>
      {error && <Failure what={`${party.name}:`} error={error} />}
      {status?.things && (
        <dl class="figures">
          <Counted n={status.things.things} one="thing" at={to("things")} />
          <Counted n={status.things.messages} one="message" />
          <Figure label="refused">{count(status.things.refusals)}</Figure>
          <Figure label="policy version">{count(status.things.policy_version)}</Figure>
        </dl>
      )}
      {status?.world && (
        <dl class="figures">
          <Counted n={status.world.avatars} one="avatar" at={to("avatars")} />
          <Counted n={status.world.measurements} one="measurement" />
          <Counted n={status.world.batches} one="sealed batch" many="sealed batches" />
          {status.world.defects > 0 && <Counted n={status.world.defects} one="unusable batch" many="unusable batches" />}
        </dl>
      )}
      {status?.dpm && (
        <dl class="figures">
          <Counted n={status.dpm.workers} one="worker" />
          <Counted n={status.dpm.leased} one="job that runs" many="jobs that run" />
          <Counted n={status.dpm.waiting + status.dpm.ready} one="that waits" many="that wait" />
          <Counted n={status.dpm.ended} one="that has ended" many="that have ended" />
          {status.dpm.parked > 0 && <Figure label="parked">{count(status.dpm.parked)}</Figure>}
        </dl>
      )}
      {status?.depot && (
        <dl class="figures">
          <Counted n={status.depot.entries} one="ledger entry" many="ledger entries" />
          <Counted n={status.depot.objects} one="sealed object" />
          <Figure label="ciphertext">{bytes(status.depot.bytes)}</Figure>
        </dl>
      )}
      {maySurvey(party) && <Peers of={party} />}
    </>
  );
}

/** Whom a party trusts for something, where it tells. */
function Peers({ of }: { of: Reached }) {
  const [there, setThere] = useState(true);
  const { data } = useAsk<Peer[] | undefined>(
    async (signal) => {
      const all = (await askIfThere<{ peers: Peer[] }>(of.name, "/v1/peers", signal))?.peers;
      setThere(all !== undefined);
      return all;
    },
    [of.name],
    there ? 10_000 : 0,
  );
  if (!data || data.length === 0) return null;
  return (
    <ul class="peers" aria-label={`Peers of ${of.name}`}>
      {data.map((p) => (
        <li key={p.name}>
          <span class={"standing " + (p.state === "active" ? "good" : "other")} title={p.name}>
            {agent(p) ? "a things agent" : p.name}
          </span>{" "}
          <span class="soft">
            {agent(p) && `called ${p.name.slice(0, 8)}… here, `}
            {p.scope.map((s) => s.toUpperCase()).join(", ")}
            {p.state !== "active" && `, ${p.state}`}
          </span>
          {(p.trouble ?? p.next) && p.state !== "removed" && <span class={p.trouble ? "trouble" : "soft"}> {sentence(p.trouble ?? p.next ?? "")}</span>}
        </li>
      ))}
    </ul>
  );
}

/** Whether a peer is a things agent that shows this party a name made for it alone, so that parties can't compare. */
const agent = (p: Peer): boolean => p.role === "things" && p.name.startsWith("p-");

/** Why there are no rates, where no party tells its status. */
function NoStatus({ answers, who }: { answers: Answer[]; who: Identity }) {
  if (!answers.every((a) => a.error === undefined || a.error.status === 403)) return null; // the cards say it
  return (
    <Empty title="No rates to show.">
      No party lets {who.name} ask how it is: that is for its administrator and auditors. What concerns you is under <a href={to("things")}>Things</a> and <a href={to("avatars")}>Avatars</a>.
    </Empty>
  );
}

