// Changing what a world gets of a thing. What the form doesn't know of a view stays as
// it is.
import { useEffect, useId, useRef, useState } from "preact/hooks";

import { asRefusal, type Mapping, type PropertyView, type Refusal, tell, type Thing, type View } from "./api.ts";
import { under, unit, words } from "./format.ts";
import { groups } from "./things.tsx";
import { Failure, Sensitivity } from "./ui.tsx";

interface Row {
  name: string;
  sensitivity: string;
  unit: string;
  place: boolean; // a position
  numeric: boolean;
  given: boolean;
  round: string;
  precision: string;
  rate: string;
  rest: PropertyView; // what the form doesn't show
}

function rows(thing: Thing, view: View): Row[] {
  return groups(thing.properties).map((g) => {
    const main = g.leaves[0]!;
    const own = under(view.properties, g.name);
    const { round, precision_m, rate, ...rest } = own ?? {};
    return {
      name: g.name,
      sensitivity: main.sensitivity,
      unit: unit(main.unit),
      place: g.leaves.some((l) => l.unit === "lat"),
      numeric: g.leaves.length === 1 && (main.kind === "number" || main.kind === "integer"),
      given: own !== undefined,
      round: round === undefined ? "" : String(round),
      precision: precision_m === undefined ? "" : String(precision_m),
      rate: rate ?? "",
      rest,
    };
  });
}

/** The view that the form says. Fields of an object that are named one by one stay. */
function viewOf(rows: Row[], before: View): View {
  const properties: Record<string, PropertyView> = {};
  for (const [name, v] of Object.entries(before.properties)) if (name.includes("/")) properties[name] = v;
  for (const r of rows) {
    if (!r.given) continue;
    const v: PropertyView = { ...r.rest };
    if (r.round !== "") v.round = Number(r.round);
    if (r.precision !== "") v.precision_m = Number(r.precision);
    if (r.rate !== "") v.rate = r.rate;
    properties[r.name] = v;
  }
  return { ...before, properties };
}

export function ChangeView({ party, thing, mapping, close }: { party: string; thing: Thing; mapping: Mapping; close: (done?: string) => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const done = useRef<string | undefined>(undefined);
  const title = useId();
  const [list, setList] = useState(() => rows(thing, mapping.owner_view));
  const [error, setError] = useState<Refusal>();
  const [busy, setBusy] = useState(false);
  useEffect(() => dialog.current?.showModal(), []);
  // The browser's own closing gives the focus back to where it was.
  const leave = (): void => dialog.current?.close();
  const change = (i: number, to: Partial<Row>): void => setList(list.map((r, j) => (i === j ? { ...r, ...to } : r)));
  const send = (what: () => Promise<Mapping>, says: (m: Mapping) => string): void => {
    setBusy(true);
    setError(undefined);
    what().then(
      (m) => {
        done.current = says(m);
        leave();
      },
      (e: unknown) => {
        setBusy(false);
        setError(asRefusal(e));
      },
    );
  };
  const save = (e: Event): void => {
    e.preventDefault();
    send(
      () => tell<Mapping>(party, "PUT", `/v1/mappings/${mapping.id}/view`, viewOf(list, mapping.owner_view)),
      (m) => `Changed: ${m.world} gets by policy version ${m.policy_version} what isn’t sent yet.`,
    );
  };
  const stop = (): void =>
    send(
      () => tell<Mapping>(party, "DELETE", `/v1/mappings/${mapping.id}`),
      (m) => `${m.world} gets nothing more. What it has it keeps, as the view let it.`,
    );
  return (
    <dialog ref={dialog} aria-labelledby={title} onClose={() => close(done.current)}>
      <form onSubmit={save}>
        <h2 id={title}>What {mapping.world} gets</h2>
        <p class="soft">
          Of {thing.title}, from what isn’t sent yet on. The strictest of this and what {mapping.world} itself takes counts. What isn’t ticked is withheld.
        </p>
        <div class="view">
          {list.map((r, i) => (
            <fieldset key={r.name} class={r.given ? "given" : ""}>
              <legend class="unseen">{words(r.name)}</legend>
              <label class="tick">
                <input type="checkbox" checked={r.given} onChange={(e) => change(i, { given: e.currentTarget.checked })} />
                <span>{words(r.name)}</span> <Sensitivity of={r.sensitivity} />
              </label>
              {r.given && (
                <div class="how">
                  {r.numeric && (
                    <label>
                      Nearest
                      <span class="with-unit">
                        <input type="number" min="0" step="any" placeholder="as measured" value={r.round} onInput={(e) => change(i, { round: e.currentTarget.value })} />
                        {r.unit && <span>{r.unit}</span>}
                      </span>
                    </label>
                  )}
                  {r.place && (
                    <label>
                      Precision
                      <span class="with-unit">
                        <input type="number" min="1" max="1000000" step="1" placeholder="as measured" value={r.precision} onInput={(e) => change(i, { precision: e.currentTarget.value })} />
                        <span>m</span>
                      </span>
                    </label>
                  )}
                  <label>
                    At most one per
                    <input type="text" pattern="([0-9]+(\.[0-9]+)?(ms|s|m|h))+" title="A time such as 1s, 30s, 5m or 1h" placeholder="no limit" aria-describedby={`${title}-${i}`} value={r.rate} onInput={(e) => change(i, { rate: e.currentTarget.value })} />
                    <span class="soft hint" id={`${title}-${i}`}>a time, such as 10s, 5m or 1h</span>
                  </label>
                  {Object.keys(r.rest).length > 0 && <p class="soft">Also kept: {Object.keys(r.rest).map(words).join(", ")}</p>}
                </div>
              )}
            </fieldset>
          ))}
        </div>
        {mapping.owner_view.purposes && <p class="soft">Only for: {mapping.owner_view.purposes.join(", ")}.</p>}
        {error && <Failure what="Not changed." error={error} />}
        <footer>
          <button type="submit" disabled={busy}>
            Save
          </button>
          <button type="button" class="quiet" onClick={leave}>
            Cancel
          </button>
          <details class="danger">
            <summary>Give nothing more…</summary>
            <p>
              This ends the mapping for good: {mapping.world} gets nothing more of {thing.title}, and keeps what it has.{" "}
              <button type="button" class="small danger" disabled={busy} onClick={stop}>
                End it
              </button>
            </p>
          </details>
        </footer>
      </form>
    </dialog>
  );
}
