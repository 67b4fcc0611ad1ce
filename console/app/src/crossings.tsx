import { useRef, useState } from "preact/hooks";

import { askIfThere, asRefusal, type Avatar, claims, type Crossing, type Identity, mayGovern, maySurvey, type Reached, type Refusal, tell } from "./api.ts";
import { bytes, date, moment, plural, words } from "./format.ts";
import { to, useAsk } from "./hooks.ts";
import { alone, arrived, items, type Move, merged, over, paced, said, stages, title } from "./moves.ts";
import { Choice, Counted, Download, Empty, Failure, Figure, Loading, Section, sentence, Table } from "./ui.tsx";

export function Crossings({ who, place }: { who: Identity; place: string[] }) {
  const worlds = who.parties.filter((p) => p.role === "world" && maySurvey(p));
  const names = useRef(new Map<string, string>()); // of avatars, as their worlds call them
  const [busy, setBusy] = useState(true);
  const { data, error, again } = useAsk<Move[]>(
    async (signal) => {
      const all = await Promise.all(
        worlds.map(async (p) => {
          const list = await askIfThere<{ crossings: Crossing[] | null }>(p.name, "/v1/crossings", signal);
          return (list?.crossings ?? []).map((crossing) => ({ party: p.name, crossing }));
        }),
      );
      const moves = merged(all.flat());
      await Promise.all(moves.map((m) => named(m, worlds, names.current, signal)));
      setBusy(moves.some((m) => !over(m)));
      return moves;
    },
    [who],
    busy ? 1000 : 5000,
  );
  if (worlds.length === 0) {
    return (
      <>
        <h1>Crossings</h1>
        <Empty title="Nothing to show you here.">Crossings are for a world’s administrator and auditors, and {who.name} has no such token of one. Where your avatars live is under <a href={to("avatars")}>Avatars</a>; what a move asks of you comes as a request, for <code>carnet owner approve</code>.</Empty>
      </>
    );
  }
  const found = data?.find((m) => m.id === place[0]) ?? (place.length === 0 ? data?.[0] : undefined);
  const called = (m: Move): string => names.current.get(m.id) ?? title(m);
  return (
    <>
      <h1>Crossings</h1>
      <p class="lead">Avatars that move from world to world. Before a move and after it, one world is home; the registrar decides, neither world alone.</p>
      {error && <Failure what="The crossings can’t be asked for." error={error} again={again} />}
      {data === undefined && !error && <Loading what="the crossings" />}
      {data?.length === 0 && (
        <Empty title="Nothing has moved yet.">
          A move begins with <code>carnet avatar move AVATAR --from WORLD --to WORLD</code>, and its owner orders it with <code>carnet owner approve</code>.
        </Empty>
      )}
      {data !== undefined && data.length > 0 && (
        <>
          <Choice label="Crossings" items={data.map((m) => ({ href: to("crossings", m.id), title: called(m), more: `${m.from} → ${m.to}: ${said(m)}`, now: m === found }))} />
          {found ? (
            <One key={found.id} move={found} called={called(found)} worlds={worlds} again={again} />
          ) : (
            <Empty title="There is no such crossing.">
              See <a href={to("crossings")}>all crossings</a>.
            </Empty>
          )}
        </>
      )}
    </>
  );
}

/** Finds out how the avatar is called, in the world that shows it now. */
async function named(m: Move, worlds: Reached[], names: Map<string, string>, signal: AbortSignal): Promise<void> {
  if (names.has(m.id) || alone(m)) return;
  const [world, id] = arrived(m) ? [m.to, m.target?.crossing.ours] : [m.from, m.source?.crossing.ours ?? m.target?.crossing.theirs];
  if (id === undefined || !worlds.some((w) => w.name === world)) return;
  const a = await askIfThere<Avatar>(world, `/v1/avatars/${id}`, signal);
  if (a?.title) names.set(m.id, a.title);
}

function One({ move: m, called, worlds, again }: { move: Move; called: string; worlds: Reached[]; again: () => void }) {
  const why = m.target?.crossing.why ?? m.source?.crossing.why;
  const progress = m.target?.crossing.progress;
  const amount = m.target?.crossing.amount ?? m.source?.crossing.amount;
  return (
    <article>
      <div class="title-row">
        <h2 class="big">
          {called}{" "}
          <span class="soft">
            from {m.from} to {m.to}
          </span>
        </h2>
        <Cancel move={m} worlds={worlds} again={again} />
      </div>
      <p class="soft id">
        <code>{m.id}</code>
      </p>
      <p class="standing" role="status">
        <strong>{sentence(said(m))}</strong> {why && <span class="trouble">{sentence(why)}</span>}
      </p>
      <Section title="Steps" note={[m.from, m.to].some((name) => !worlds.some((w) => w.name === name)) ? "As one of its two worlds tells it: you have no token of the other." : undefined}>
        <ol class="steps">
          {stages(m).map((s) => (
            <li key={s.title} class={s.is} data-step={s.name} aria-current={s.is === "now" ? "step" : undefined}>
              <span class="what">{s.title}</span>
              <span class="soft">{s.at ? moment(s.at) : s.is === "now" ? "now" : s.is === "off" ? "not any more" : ""}</span>
              {s.more && <span class="more">{s.more}</span>}
              {s.name === "copied" && s.is === "now" && progress && progress.of_bytes > 0 && (
                <>
                  <progress max={progress.of_bytes} value={progress.bytes} aria-label={`Copied: ${bytes(progress.bytes)} of ${bytes(progress.of_bytes)}`} />
                  <span class="soft">{paced(progress)}</span>
                </>
              )}
            </li>
          ))}
        </ol>
        {progress?.waits && <p class="trouble">It waits, and is tried again: {sentence(progress.waits)}</p>}
      </Section>
      <Order move={m} />
      {amount && (
        <Section title={arrived(m) ? "What moved" : "What moves"} note="As the manifest lists it, which both worlds have signed. Bytes are as they were: sealed once, copied as they are.">
          <dl class="figures">
            <Counted n={amount.measurements} one="measurement" />
            <Counted n={amount.batches} one="sealed batch" many="sealed batches" />
            <Counted n={amount.stretches} one="stretch" many="stretches" />
            <Counted n={amount.streams} one="stream" />
            <Figure label="stored">{bytes(amount.bytes)}</Figure>
            <Counted n={amount.keys} one="epoch’s key" many="epochs’ keys" />
            <Counted n={amount.properties} one="newest value" />
            {!!amount.left_batches && <Counted n={amount.left_measurements ?? 0} one="measurement left behind by the owner’s order" many="measurements left behind by the owner’s order" />}
          </dl>
          {m.target?.crossing.surveyed && (
            <p class={m.target.crossing.unfit ? "trouble after" : "soft after"}>
              {m.target.crossing.unfit ? `${plural(m.target.crossing.unfit, "batch", "batches")} can’t be used; the log of ${m.to} names them.` : "Every batch has been opened at its new home, and fits."}
            </p>
          )}
        </Section>
      )}
      <Carried move={m} />
      <Proof move={m} />
    </article>
  );
}

/** The items of a move: what goes along, and what ends with it. */
function Carried({ move: m }: { move: Move }) {
  const all = items(m);
  if (all.length === 0) return null;
  return (
    <Section title="Items" note={alone(m) ? "It moves by itself: the avatar that had it stays." : "What the avatar has comes along, or ends with the move, as its owner ordered."}>
      <ul class="cards items">
        {all.map((i) => (
          <li key={i.id} class="card" data-item={i.id}>
            <h3>{i.title}</h3>
            <p class="soft">{words(i.kind)}</p>
            <p>{i.as === undefined ? <span class="trouble">{over(m) || arrived(m) ? "It ended with the move." : "It ends with the move."}</span> : <>Counts in {m.to} as {words(i.as)}</>}</p>
          </li>
        ))}
      </ul>
    </Section>
  );
}

/** Calls a move off, as long as neither world has signed. */
function Cancel({ move: m, worlds, again }: { move: Move; worlds: Reached[]; again: () => void }) {
  const [sure, setSure] = useState(false);
  const [error, setError] = useState<Refusal>();
  const side = [m.target, m.source].find((s) => s && ["asked", "copying", "offered"].includes(s.crossing.state) && mayGovern(worlds.find((w) => w.name === s.party)));
  if (!side) return error ? <Failure what="It wasn’t called off." error={error} /> : null;
  const cancel = async (): Promise<void> => {
    setSure(false);
    setError(undefined);
    try {
      await tell(side.party, "DELETE", `/v1/crossings/${m.id}`);
    } catch (e) {
      setError(asRefusal(e));
    }
    again();
  };
  return (
    <div class="actions">
      {error && <Failure what="It wasn’t called off." error={error} />}
      {!sure && (
        <button type="button" class="quiet danger" onClick={() => setSure(true)}>
          Call it off
        </button>
      )}
      {sure && (
        <>
          <button type="button" class="quiet danger" onClick={() => void cancel()}>
            Yes, it stays in {m.from}
          </button>
          <button type="button" class="quiet" onClick={() => setSure(false)}>
            Let it go on
          </button>
        </>
      )}
    </div>
  );
}

/** What the owner is asked to approve, while the move waits for that. */
function Order({ move: m }: { move: Move }) {
  const c = m.target?.crossing;
  if (c?.state !== "asked" || c.request === undefined) return null;
  const file = `${m.id}.json`;
  return (
    <Section title="Its owner’s word" note="Nobody but the owner of the key that is registered with the avatar can order this, and no world has that key.">
      <p>
        <Download name={file} type="application/json" content={JSON.stringify(c.request)}>
          Get the request
        </Download>{" "}
        and have its owner read and sign it: <code>carnet owner approve {file} --keystore FILE --party {m.to}</code>
      </p>
    </Section>
  );
}

interface Token {
  name: string;
  by: string;
  says: string;
  text: string;
}

/** Who signed what, to be kept and checked elsewhere. */
function Proof({ move: m }: { move: Move }) {
  const [a, b] = [m.source?.crossing, m.target?.crossing];
  const manifest = b?.manifest ?? a?.manifest;
  const tokens: Token[] = [];
  const decision = b?.decision ?? a?.decision;
  if (decision) {
    const d = claims(decision);
    tokens.push({ name: "decision", by: "the registrar", says: `${d["outcome"] ?? "decided"}${typeof d["time"] === "string" ? ", " + date(d["time"]) : ""}`, text: decision });
  }
  const departure = b?.departure ?? a?.departure;
  if (departure) {
    const d = claims(departure);
    tokens.push({ name: "departure", by: m.from, says: `unreadable there since ${day(d["unreadable"])}, in no backup any more from ${day(d["unrecoverable"])} on`, text: departure });
  }
  if (!manifest && tokens.length === 0) return null;
  return (
    <Section title="Proof" note="Signed messages, each by a key that its reader has from elsewhere. Every receipt from before verifies at the new home: carnet verify.">
      {manifest && (
        <p class="soft manifest">
          The manifest’s SHA-256, in both worlds’ signatures: <code>{manifest}</code>
        </p>
      )}
      {tokens.length > 0 && (
        <Table caption="Signed messages of this crossing">
          <thead>
            <tr>
              <th scope="col">Message</th>
              <th scope="col">By</th>
              <th scope="col">Says</th>
              <th scope="col">JWS</th>
            </tr>
          </thead>
          <tbody>
            {tokens.map((t) => (
              <tr key={t.name}>
                <td>{t.name}</td>
                <td>{t.by}</td>
                <td class="says">{t.says}</td>
                <td>
                  <Download name={`${m.id}-${t.name}.jws`} type="application/jose" content={t.text}>
                    Get it
                  </Download>
                </td>
              </tr>
            ))}
          </tbody>
        </Table>
      )}
    </Section>
  );
}

/** A time that a message says. */
const day = (v: unknown): string => (typeof v === "string" ? date(v) : "an unknown time");
