import { useEffect, useMemo, useReducer, useRef, useState } from "preact/hooks";

import { ask, askIfThere, follow, history, state, type Got, type Identity, type LiveState, type Mapping, mayEdit, mayRead, type Measurement, type Page, type Property, type PropertyView, type Refused, said, type Share, shows, type Thing } from "./api.ts";
import { ago, count, date, plural, under, unit, value, words } from "./format.ts";
import { to, useAsk } from "./hooks.ts";
import { type Line, Plot, Values } from "./plot.tsx";
import { Choice, Empty, Failure, Figure, Loading, Section, Sensitivity, sentence, Table } from "./ui.tsx";
import { ChangeView } from "./view.tsx";

interface Found {
  party: string;
  thing: Thing;
}

export function Things({ who, place }: { who: Identity; place: string[] }) {
  const agents = who.parties.filter((p) => p.role === "things" && p.as);
  const { data, error, again } = useAsk<Found[]>(
    async (signal) => {
      const all = await Promise.all(agents.map(async (p) => (await ask<{ things: Thing[] }>(p.name, "/v1/things", signal)).things.map((thing) => ({ party: p.name, thing }))));
      return all.flat();
    },
    [who],
    2000,
  );
  if (agents.length === 0) {
    return (
      <>
        <h1>Things</h1>
        <Empty title="You have no things agent here.">
          {who.name} has no token of a things agent. Its operator can give one, under this name, to the console’s access file.
        </Empty>
      </>
    );
  }
  // Who chose none is shown the one that sends; it stays the one while others send.
  const first = useRef<string | undefined>(undefined);
  if (data !== undefined && !data.some((f) => f.thing.id === first.current)) first.current = sending(data)?.thing.id;
  const found = data?.find((f) => f.party === place[0] && f.thing.id === place[1]) ?? (place.length === 0 ? data?.find((f) => f.thing.id === first.current) : undefined);
  return (
    <>
      <h1>Things</h1>
      {error && <Failure what="The things can’t be asked for." error={error} again={again} />}
      {data === undefined && !error && <Loading what="the things" />}
      {data?.length === 0 && (
        <Empty title="No things yet.">
          Add one by its description: <code>carnet thing add --description FILE</code>
        </Empty>
      )}
      {data !== undefined && data.length > 0 && (
        <>
          {data.length > 1 && (
            <Choice
              label="Things"
              items={data.map((f) => ({ href: to("things", f.party, f.thing.id), title: f.thing.title, more: f.thing.id, now: f === found }))}
            />
          )}
          {found ? (
            <One key={found.party + found.thing.id} of={found} who={who} changed={again} />
          ) : (
            <Empty title="There is no such thing.">
              See <a href={to("things")}>all things</a>.
            </Empty>
          )}
        </>
      )}
    </>
  );
}

/** The thing that is connected, and of these the one that has measured something last. */
function sending(all: Found[]): Found | undefined {
  const last = ({ thing }: Found): string => thing.properties.map((p) => p.last_time ?? "").sort().at(-1) ?? "";
  return [...all].sort((a, b) => Number(b.thing.connected > 0) - Number(a.thing.connected > 0) || last(b).localeCompare(last(a)))[0];
}

/** How long the live plots look back, in seconds. */
const back = 120;

/** The newest values of an avatar, by property. */
type Series = Map<string, { times: number[]; values: (number | null)[]; last: Measurement }>;

interface World {
  mapping: Mapping;
  colour: string;
  readable: boolean;
  series: Series;
  live: LiveState;
  shares: Share[]; // that its avatar there takes
  gives: Share[]; // that its avatar there gives
}

const colours = ["line-1", "line-2", "line-3", "line-4"];

function add(series: Series, ms: Measurement[]): void {
  for (const m of ms) {
    const v = said(m);
    let s = series.get(m.n);
    if (!s) series.set(m.n, (s = { times: [], values: [], last: m }));
    if (m.t < s.last.t) continue; // late: the history has it
    s.last = m;
    const n = s.times.length;
    if (n > 0 && s.times[n - 1] === m.t) s.values[n - 1] = typeof v === "number" ? v : null;
    else {
      s.times.push(m.t);
      s.values.push(typeof v === "number" ? v : null);
    }
    if (s.times.length > 4000) {
      s.times = s.times.slice(-2000);
      s.values = s.values.slice(-2000);
    }
  }
}

/** What the plots show, as it is in the history. */
async function before(world: string, avatar: string, signal: AbortSignal): Promise<Measurement[]> {
  const all: Measurement[] = [];
  for (let from: number | undefined = Date.now() / 1000 - back; from !== undefined && all.length < 50_000; ) {
    const page: Page = await history(world, avatar, { from }, signal);
    all.push(...page.measurements);
    from = page.next;
  }
  return all;
}

/** Follows what every world gets, as far as who is signed in may read there. */
function useWorlds(mappings: Mapping[], who: Identity): World[] {
  const series = useRef(new Map<string, Series>());
  const states = useRef(new Map<string, LiveState>());
  const shares = useShares(mappings.filter((m) => who.parties.some((p) => p.name === m.world && p.as)));
  const [, shown] = useReducer((n: number) => n + 1, 0);
  const readable = (m: Mapping): boolean => mayRead(who.parties.find((p) => p.name === m.world));
  const which = mappings.filter((m) => !m.stopped && readable(m)).map((m) => `${m.world}/${m.avatar}`);
  useEffect(() => {
    const stops = which.map((w) => {
      const [world, avatar] = w.split("/") as [string, string];
      const s: Series = series.current.get(w) ?? new Map();
      series.current.set(w, s);
      const leave = new AbortController();
      let stop = (): void => {};
      // What was before comes first, so that the plots aren't empty: what they show, then
      // the last of each, however old it is.
      before(world, avatar, leave.signal)
        .then((ms) => add(s, ms), () => {})
        .then(() => state(world, avatar, leave.signal))
        .then((ms) => add(s, ms), () => {})
        .finally(() => {
          if (leave.signal.aborted) return;
          stop = follow(world, avatar, (ms) => add(s, ms), (is) => states.current.set(w, is));
        });
      return () => {
        leave.abort();
        stop();
      };
    });
    const timer = setInterval(() => document.hidden || shown(undefined), 1000);
    return () => {
      clearInterval(timer);
      for (const stop of stops) stop();
    };
  }, [which.join()]);
  return mappings.map((mapping, i) => ({
    mapping,
    colour: colours[i % colours.length]!,
    readable: readable(mapping),
    series: series.current.get(`${mapping.world}/${mapping.avatar}`) ?? new Map(),
    live: states.current.get(`${mapping.world}/${mapping.avatar}`) ?? "connecting",
    shares: shares.filter((s) => s.ours === mapping.avatar && s.direction === "taking"),
    gives: shares.filter((s) => s.ours === mapping.avatar && s.direction === "giving"),
  }));
}

/** What the avatars of a thing take from other worlds and give to them, where their worlds tell. */
function useShares(mappings: Mapping[]): Share[] {
  const which = [...new Set(mappings.map((m) => `${m.world}/v1/avatars/${m.avatar}/shares`))].sort();
  const [there, setThere] = useState(true);
  const { data } = useAsk<Share[]>(
    async (signal) => {
      const asked = mappings.map((m) => askIfThere<{ shares: Share[] | null }>(m.world, `/v1/avatars/${m.avatar}/shares`, signal).catch(() => undefined));
      const all = await Promise.all(asked);
      setThere(all.some((a) => a !== undefined));
      return all.flatMap((a) => a?.shares ?? []).filter((s) => s.state === "taking" || s.state === "giving");
    },
    [which.join()],
    there ? 5000 : 0,
  );
  return data ?? [];
}

/** The share by which a world gets a property of another one. */
const shareOf = (w: World, name: string): Share | undefined => w.shares.find((s) => inView(s, name) && !isWithdrawn(s, name));

const inView = (s: Share, name: string): boolean => s.view !== undefined && shows(s.view, name);

/** Whether a share's own giver isn't given a property any more. */
const isWithdrawn = (s: Share, name: string): boolean => (s.withdrawn ?? []).some((n) => n === name || n === name.split("/")[0]);

function One({ of: { party, thing }, who, changed }: { of: Found; who: Identity; changed: () => void }) {
  const mappings = thing.mappings.filter((m) => !m.stopped);
  const ended = thing.mappings.filter((m) => m.stopped);
  const worlds = useWorlds(mappings, who);
  const [changing, setChanging] = useState<Mapping>();
  const [done, setDone] = useState("");
  const refused = Object.values(thing.refused ?? {}).reduce((a, b) => a + b, 0);
  const broken = worlds.filter((w) => w.live === "broken").map((w) => w.mapping.world);
  return (
    <article>
      <div class="title-row">
        <h2 class="big">{thing.title}</h2>
        <dl class="figures inline">
          <Figure label="id">{thing.id}</Figure>
          <Figure label="owner">{thing.owner}</Figure>
          <Figure label="connected">{thing.connected > 0 ? plural(thing.connected, "session") : "no"}</Figure>
          <Figure label="refused">{count(refused)}</Figure>
        </dl>
      </div>
      <p class="done" role="status">{done}</p>
      {broken.length > 0 && <p class="trouble" role="status">Live values of {broken.join(", ")} are interrupted; connecting again.</p>}
      <Section title="What each world gets" note={mappings.length > 0 ? "Side by side, as it arrives there. What isn’t admitted never leaves the agent." : undefined}>
        {mappings.length === 0 ? (
          <Empty title="No world gets anything of it.">
            Map it to one: <code>carnet thing map {thing.id} --world WORLD --view FILE</code>
          </Empty>
        ) : (
          <>
            <ul class="worlds">
              {worlds.map((w) => (
                <li key={w.mapping.id} class={"card " + w.colour}>
                  <h3>
                    <span class={"swatch " + w.colour} aria-hidden="true" /> {w.mapping.world}
                  </h3>
                  <p class="soft">
                    {w.mapping.uncounted ? sentence(`How much it got is ${w.mapping.uncounted}`) : plural(w.mapping.got.reduce((n, g) => n + g.sent, 0), "measurement") + " sent,"} policy version {w.mapping.policy_version}
                    {!w.readable && <>. {who.name} may not read in {w.mapping.world}, so its values aren’t shown</>}
                  </p>
                  {w.gives.map((s) => (
                    <p key={s.id} class="shared-on">
                      Shared on to {s.world}: {Object.keys(s.view?.properties ?? {}).filter((n) => !isWithdrawn(s, n)).map(words).join(", ") || "nothing"}, for {s.purpose}, since {date(s.begun)}
                      {s.onward && ", and may be passed on there"}
                      {(s.withdrawn ?? []).length > 0 && <span class="soft"> No longer {s.withdrawn!.map(words).join(", ")}, since {w.mapping.world} isn’t given that.</span>}
                      {s.held && <span class="trouble"> Nothing comes across: {s.held}.</span>}
                    </p>
                  ))}
                  <p class="actions">
                    {mayEdit(who.parties.find((p) => p.name === party)) && (
                      <button type="button" class="small" onClick={() => setChanging(w.mapping)}>
                        Change what {w.mapping.world} gets
                      </button>
                    )}
                    {w.readable && <a class="small" href={to("avatars", w.mapping.world, w.mapping.avatar)}>Its avatar</a>}
                  </p>
                </li>
              ))}
            </ul>
            <Properties thing={thing} worlds={worlds} />
          </>
        )}
        {ended.length > 0 && <p class="soft">Gets nothing more: {ended.map((m) => m.world).join(", ")}.</p>}
      </Section>
      {mayRead(who.parties.find((p) => p.name === party)) && <Refusals party={party} thing={thing} />}
      {changing && (
        <ChangeView
          party={party}
          thing={thing}
          mapping={changing}
          close={(what) => {
            setChanging(undefined);
            setDone(what ?? "");
            if (what !== undefined) changed();
          }}
        />
      )}
    </article>
  );
}

/** A property with its fields: position/lat and position/lon are one. */
interface Group {
  name: string;
  leaves: Property[];
}

export function groups(properties: Property[]): Group[] {
  const all: Group[] = [];
  for (const p of properties) {
    const name = p.name.split("/")[0]!;
    const g = all.find((g) => g.name === name);
    if (g) g.leaves.push(p);
    else all.push({ name, leaves: [p] });
  }
  return all;
}

function Properties({ thing, worlds }: { thing: Thing; worlds: World[] }) {
  const all = groups(thing.properties);
  const given = all.filter((g) => worlds.some((w) => g.leaves.some((l) => got(w, l.name))));
  const rest = all.filter((g) => !given.includes(g));
  return (
    <>
      <ol class="properties">
        {given.map((g) => (
          <PropertyRow key={g.name} group={g} worlds={worlds} />
        ))}
      </ol>
      {rest.length > 0 && (
        <div class="withheld-all">
          <h3>No world gets</h3>
          <ul>
            {rest.map((g) => (
              <li key={g.name}>
                <strong>{words(g.name)}</strong> <Sensitivity of={g.leaves[0]!.sensitivity} />
              </li>
            ))}
          </ul>
        </div>
      )}
    </>
  );
}

/** Whether a world gets a property now, by its view in force or by a share. */
function gets(w: World, name: string): boolean {
  return shareOf(w, name) !== undefined || shows(w.mapping.view, name);
}

/** Whether a world gets a property, or did. */
const got = (w: World, name: string): boolean => gets(w, name) || (w.mapping.got.find((g) => g.property === name)?.sent ?? 0) > 0;

function PropertyRow({ group, worlds }: { group: Group; worlds: World[] }) {
  const main = group.leaves[0]!;
  const now = Date.now() / 1000;
  const range = { from: now - back, to: now };
  const numeric = group.leaves.length === 1 && (main.kind === "number" || main.kind === "integer");
  const lines: Line[] = worlds
    .filter((w) => w.readable && w.series.has(main.name))
    .map((w) => ({ name: w.mapping.world, colour: w.colour, times: w.series.get(main.name)!.times, values: w.series.get(main.name)!.values }));
  const title = words(group.name);
  const silent = !lines.some((l) => l.times.some((t) => t >= range.from));
  const plotted = numeric && lines.length > 0;
  return (
    <li class="property card">
      <header>
        <h3>{title}</h3>
        <Sensitivity of={main.sensitivity} />
        <span class="soft">{main.last_time ? `measured ${ago(main.last_time)}` : "not measured yet"}</span>
      </header>
      <div class={plotted ? "columns" : "columns plotless"}>
        {plotted && silent && <Silent worlds={worlds} lines={lines} />}
        {plotted && !silent && (
          <div>
            <Plot lines={lines} range={range} label={`${title}, last two minutes`} unit={unit(main.unit)} height={170} />
            <Values lines={lines} unit={unit(main.unit)} label={title} />
          </div>
        )}
        <dl class="sides">
          {worlds.map((w) => (
            <Side key={w.mapping.id} world={w} group={group} />
          ))}
        </dl>
      </div>
    </li>
  );
}

/** What stands where nothing is to be drawn: since when nothing came, and where what came before is. */
function Silent({ worlds, lines }: { worlds: World[]; lines: Line[] }) {
  const last = Math.max(...lines.map((l) => l.times.at(-1) ?? 0));
  const w = worlds.find((w) => w.mapping.world === lines.find((l) => l.times.at(-1) === last)?.name);
  return (
    <p class="silent">
      Nothing came in the last two minutes; the last was measured {ago(last * 1000)}. {w && <a href={to("avatars", w.mapping.world, w.mapping.avatar)}>See the history</a>}
    </p>
  );
}

/** How exactly a view shows a property; whole: what is said of one that it shows as it is. */
function howExactly(v: PropertyView | undefined, u: string, whole = "as measured"): string {
  if (v === undefined) return "";
  const said = [];
  if (v.round !== undefined) said.push(`to the nearest ${value(v.round)} ${u}`.trim());
  if (v.precision_m !== undefined) said.push(`to ${v.precision_m >= 1000 ? value(v.precision_m / 1000) + " km" : v.precision_m + " m"}`);
  if (v.rate !== undefined) said.push(`at most one each ${v.rate}`);
  if (v["deadband"] !== undefined) said.push(`changes from ${value(v["deadband"])} ${u} on`.trim());
  if (v["windows"] !== undefined) said.push("at certain times");
  return said.length > 0 ? said.join(", ") : whole;
}

/** Why a property is sent or isn't, with its name as people write it. */
const called = (g: Got): string => g.why.replaceAll(g.property, words(g.property));

function Side({ world: w, group }: { world: World; group: Group }) {
  const counts = group.leaves.map((l) => w.mapping.got.find((g) => g.property === l.name)).filter((g) => g !== undefined);
  const sent = Math.max(0, ...counts.map((c) => c.sent));
  const reasons = new Map<string, number>();
  for (const c of counts) for (const [r, n] of Object.entries(c.withheld ?? {})) reasons.set(r, Math.max(reasons.get(r) ?? 0, n));
  const last = group.leaves.map((l) => w.series.get(l.name)?.last).filter((m) => m !== undefined);
  const gives = gets(w, group.leaves[0]!.name);
  const had = !gives && (sent > 0 || last.length > 0);
  const share = shareOf(w, group.leaves[0]!.name);
  const over = gives ? undefined : w.shares.find((s) => inView(s, group.leaves[0]!.name)); // it gave it
  const u = unit(group.leaves[0]!.unit);
  const own = howExactly(under(w.mapping.view.properties, group.name), u);
  // What is shared is as exact as the giver has it, at most.
  const shared = share && howExactly(share.view && under(share.view.properties, group.name), u, `as ${share.world} has it`);
  const exactly = own || shared;
  return (
    <div class={"side" + (gives ? "" : " none")} data-world={w.mapping.world} data-property={group.name}>
      <dt>
        <span class={"swatch " + w.colour} aria-hidden="true" /> {w.mapping.world}
      </dt>
      <dd class="now">
        {last.length > 0 ? last.map((m) => `${value(said(m))} ${unit(m.u)}`.trim()).join(", ") : had ? "no longer given" : !gives ? "withheld" : !w.readable ? "not shown to you" : sent > 0 ? "nothing kept" : "nothing yet"}
      </dd>
      {had && last.length > 0 && <dd class="no-longer">No longer given{over && `, since ${over.world} isn’t given it any more`}; the last it got{last[0] && `, ${ago(last[0].t * 1000)}`}.</dd>}
      {exactly && <dd class="how-exactly">{exactly}</dd>}
      {share && <dd class="by-share">From {share.world}, by a share{own && shared && `, ${shared}`}.</dd>}
      <dd class="soft">
        {share && sent === 0 && "The thing itself sends it nothing of it: "}
        {counts[0] && (share && sent === 0 ? called(counts[0]) + "." : sentence(called(counts[0])))}{" "}
        <span>
          {w.mapping.uncounted ? "How much was sent isn’t known yet" : plural(sent, "sent", "sent")}
          {[...reasons].map(([r, n]) => (
            <span key={r}> · {count(n)} withheld: {words(r)}</span>
          ))}
        </span>
      </dd>
    </div>
  );
}

function Refusals({ party, thing }: { party: string; thing: Thing }) {
  const total = Object.values(thing.refused ?? {}).reduce((a, b) => a + b, 0);
  const { data, error, again } = useAsk<Refused[]>(
    async (signal) => (await ask<{ refusals: Refused[] | null }>(party, `/v1/things/${encodeURIComponent(thing.id)}/refusals?limit=100`, signal)).refusals ?? [],
    [party, thing.id, total],
  );
  const names = thing.properties.flatMap((p) => [p.name, p.name.split("/")[0]!]);
  const codes = useMemo(() => Object.entries(thing.refused ?? {}).sort((a, b) => b[1] - a[1]), [thing.refused]);
  return (
    <Section title="Refused messages" note="What can never be accepted is acknowledged to the device, and kept with its reason.">
      {error && <Failure what="The refusals can’t be asked for." error={error} again={again} />}
      {data === undefined && !error && <Loading what="the refusals" />}
      {data?.length === 0 && <Empty title="Nothing was refused.">Every message fitted the description.</Empty>}
      {data !== undefined && data.length > 0 && (
        <>
          <p>
            {codes.map(([c, n], i) => (
              <span key={c}>
                {i > 0 && ", "}
                <strong>{count(n)}</strong> {words(c)}
              </span>
            ))}
          </p>
          <Table caption="Refused messages, newest first">
            <thead>
              <tr>
                <th scope="col">When</th>
                <th scope="col">Reason, and what to do</th>
                <th scope="col" class="wide">What was sent</th>
              </tr>
            </thead>
            <tbody>
              {data.map((r, i) => (
                <tr key={i}>
                  <td class="nowrap">{date(r.time)}</td>
                  <td>
                    {sentence(r.reason, names)} {r.fix && <span class="soft">{sentence(r.fix)}</span>}
                  </td>
                  <td class="wide">
                    <code class="sent">{r.sent}</code>
                  </td>
                </tr>
              ))}
            </tbody>
          </Table>
        </>
      )}
    </Section>
  );
}

