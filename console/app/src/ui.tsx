// What all pages are made of.
import type { ComponentChildren } from "preact";
import { useId } from "preact/hooks";

import type { Refusal } from "./api.ts";
import { count } from "./format.ts";

/** Something is on its way. */
export const Loading = ({ what }: { what: string }) => (
  <p class="loading" role="status">
    <span class="dots" aria-hidden="true" /> Loading {what}…
  </p>
);

/** What failed, in the words of who refused, and what to do. */
export const Failure = ({ error, what, again }: { error: Refusal; what: string; again?: () => void }) => (
  <div class="failure" role="alert">
    <p>
      <strong>{what}</strong> {error.reason}
    </p>
    {error.fix !== "" && <p class="fix">{sentence(error.fix)}</p>}
    {again && (
      <button type="button" class="small" onClick={again}>
        Try again
      </button>
    )}
  </div>
);

/** Nothing is there, and what to do then. */
export const Empty = ({ title, children }: { title: string; children: ComponentChildren }) => (
  <div class="empty">
    <p class="title">{title}</p>
    <p>{children}</p>
  </div>
);

/** Begins with a capital letter, unless with a name that stays as it is, and ends with a stop. */
export function sentence(s: string, names: string[] = []): string {
  const t = names.some((n) => s.startsWith(n + " ")) ? s : s.charAt(0).toUpperCase() + s.slice(1);
  return /[.!?…]$/.test(t) ? t : t + ".";
}

export const Section = ({ title, note, children, id }: { title: string; note?: ComponentChildren; children: ComponentChildren; id?: string }) => {
  const own = useId();
  return (
    <section class="section" aria-labelledby={id ?? own}>
      <header>
        <h2 id={id ?? own}>{title}</h2>
        {note !== undefined && <p class="note">{note}</p>}
      </header>
      {children}
    </section>
  );
};

/** A number with what it counts. */
export const Figure = ({ label, children }: { label: string; children: ComponentChildren }) => (
  <div class="figure">
    <dt>{label}</dt>
    <dd>{children}</dd>
  </div>
);

/** How many there are of something: one or many. */
export const Counted = ({ n, one, many = one + "s", at }: { n: number; one: string; many?: string; at?: string }) => (
  <Figure label={n === 1 ? one : many}>{at === undefined ? count(n) : <a href={at}>{count(n)}</a>}</Figure>
);

/** How sensitive data is, as the thing's description says. */
export const Sensitivity = ({ of }: { of: string }) => <span class={"tag " + of.replace(/[^a-z]/g, "-")}>{of === "" || of === "none" ? "public" : of.replaceAll("+", ", ")}</span>;

/** A list that a page is chosen from. */
export const Choice = ({ label, items }: { label: string; items: { href: string; title: string; more: string; now: boolean }[] }) => (
  <nav class="choice" aria-label={label}>
    <ul>
      {items.map((i) => (
        <li key={i.href}>
          <a href={i.href} aria-current={i.now ? "true" : undefined}>
            <span class="title">{i.title}</span>
            <span class="more">{i.more}</span>
          </a>
        </li>
      ))}
    </ul>
  </nav>
);

/** A table that scrolls by itself where it is too wide or long, by keyboard as well; whole: never for its length. */
export const Table = ({ caption, children, whole }: { caption: string; children: ComponentChildren; whole?: boolean }) => (
  <div class={whole ? "scroll whole" : "scroll"} role="region" aria-label={caption} tabIndex={0}>
    <table>
      <caption class="unseen">{caption}</caption>
      {children}
    </table>
  </div>
);

/** A table whose rows are cards on a phone, each cell with its column's name. */
export const Rows = ({ caption, columns, rows }: { caption: string; columns: string[]; rows: { key: string; cells: ComponentChildren[] }[] }) => (
  <div class="scroll whole rows" role="region" aria-label={caption} tabIndex={0}>
    <table role="table">
      <caption class="unseen">{caption}</caption>
      <thead role="rowgroup">
        <tr role="row">
          {columns.map((c) => (
            <th key={c} scope="col" role="columnheader">
              {c}
            </th>
          ))}
        </tr>
      </thead>
      <tbody role="rowgroup">
        {rows.map((r) => (
          <tr key={r.key} role="row">
            {r.cells.map((cell, i) => (
              <td key={columns[i]} role="cell" data-column={columns[i]} class={i === columns.length - 1 ? "says" : undefined}>
                <span>{cell}</span>
              </td>
            ))}
          </tr>
        ))}
      </tbody>
    </table>
  </div>
);

/** What the page has, as a file. It is made when it is asked for, and forgotten. */
export const Download = ({ name, type, content, children }: { name: string; type: string; content: BlobPart; children: string }) => (
  <button
    type="button"
    class="small nowrap"
    onClick={() => {
      const a = document.createElement("a");
      a.href = URL.createObjectURL(new Blob([content], { type }));
      a.download = name;
      a.click();
      setTimeout(() => URL.revokeObjectURL(a.href), 10_000);
    }}
  >
    {children}
  </button>
);
