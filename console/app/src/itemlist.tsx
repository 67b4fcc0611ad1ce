// The items of an avatar: what each is, where it is from, and what proves that.
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";

import { ask, askIfThere, type Item, type ItemProof } from "./api.ts";
import { date, under, words } from "./format.ts";
import { useAsk } from "./hooks.ts";
import { attributes, entriesOf, kindOf } from "./items.ts";
import { Download, Failure, Loading, Section } from "./ui.tsx";

export function Items({ world, avatar }: { world: string; avatar: string }) {
  const [there, setThere] = useState(false);
  const { data, error, again } = useAsk<Item[] | undefined>(
    async (signal) => {
      const all = await askIfThere<{ items: Item[] | null }>(world, `/v1/avatars/${avatar}/items`, signal);
      setThere(all !== undefined);
      return all && (all.items ?? []);
    },
    [world, avatar],
    there ? 5000 : 0,
  );
  if (error) {
    return (
      <Section title="Items">
        <Failure what="The items can’t be asked for." error={error} again={again} />
      </Section>
    );
  }
  if (data === undefined || data.length === 0) return null; // this world has none to tell, or not to this role
  return (
    <Section title="Items" note="What worlds have made and this avatar has. An item is in one world at a time; who issued it has signed once and for all what it is.">
      <ul class="cards items">
        {data.map((i) => (
          <li key={i.id} class="card" data-item={i.id}>
            <One item={i} world={world} />
          </li>
        ))}
      </ul>
    </Section>
  );
}

function One({ item: i, world }: { item: Item; world: string }) {
  const foreign = i.as !== undefined;
  const has = attributes(foreign ? i.as!.attributes : i.attributes);
  return (
    <>
      <h3>{i.title}</h3>
      <p class="soft">{kindOf(i)}</p>
      <dl>
        <Fact name="Issued by">
          {i.world}, {date(i.issued)}
        </Fact>
        {foreign && <Fact name={`Counts in ${world} as`}>{words(i.as!.kind)}</Fact>}
        {has && <Fact name="Attributes">{has}</Fact>}
        <Fact name="Here since">{date(i.since)}</Fact>
        {i.slot && <Fact name="Put on">{words(i.slot)}</Fact>}
      </dl>
      {i.moving && <p class="trouble">It keeps still for a move.</p>}
      <Provenance key={i.last} item={i} world={world} />
    </>
  );
}

const Fact = ({ name, children }: { name: string; children: ComponentChildren }) => (
  <div class="fact">
    <dt>{name}</dt>
    <dd>{children}</dd>
  </div>
);

/** What happened to an item, by the chain that each world where it was has signed; asked for when it is opened. */
function Provenance({ item, world }: { item: Item; world: string }) {
  const [open, setOpen] = useState(false);
  return (
    <details class="values" onToggle={(e) => setOpen(e.currentTarget.open)}>
      <summary>Where it comes from: {item.entries === 1 ? "1 entry" : `${item.entries} entries`}, signed</summary>
      {open && <Entries item={item} world={world} />}
    </details>
  );
}

const happened: Record<string, string> = { issued: "issued", given: "given to another avatar", moved: "came from another world", retired: "retired" };

function Entries({ item, world }: { item: Item; world: string }) {
  const { data, error, again } = useAsk<ItemProof>((signal) => ask(world, `/v1/items/${item.id}/proof`, signal), [world, item.id]);
  if (error) return <Failure what="What proves it can’t be asked for." error={error} again={again} />;
  if (data === undefined) return <Loading what="its entries" />;
  return (
    <>
      <ol class="entries">
        {entriesOf(data).map((e, i) => (
          <li key={i}>
            {date(e.time)}: {under(happened, e.what) ?? e.what} <span class="soft">avatar {e.avatar.slice(0, 8)}, signed by {e.world === item.issuer ? item.world : e.world.slice(0, 20) + "…"}</span>
          </li>
        ))}
      </ol>
      <Download name={`item-${item.id}.json`} type="application/json" content={JSON.stringify(data)}>
        Get what proves it
      </Download>{" "}
      <span class="soft">
        for <code>carnet verify</code>
      </span>
    </>
  );
}
