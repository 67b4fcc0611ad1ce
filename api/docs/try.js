// Makes the page try what it describes. It asks the page's own party and nobody else.
// The token that is pasted is in its input, and nowhere else: not stored, not in an
// address, not in the line to copy. Everything that is shown becomes text.
// @ts-check

/**
 * @typedef {{ name: string, in: string, required?: boolean, description?: string, example?: unknown, schema: { type?: string, enum?: unknown[] } }} Parameter
 * @typedef {{ path?: Record<string, string>, query?: Record<string, string>, body?: unknown, no_token?: boolean }} Call
 * @typedef {{ example?: unknown, examples?: Record<string, { summary: string, "x-call"?: Call }> }} Media
 * @typedef {{ operationId: string, security?: unknown[], parameters?: Parameter[], requestBody?: { content: Record<string, Media> }, responses: Record<string, { content?: Record<string, Media> }> }} Operation
 */

const problem = "application/problem+json";
const events = "text/event-stream";
const most = 200_000; // characters that are shown of an answer

/**
 * Makes an element.
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Record<string, string>} [attributes]
 * @param {(Node | string)[]} children
 * @returns {HTMLElementTagNameMap[T]}
 */
function make(tag, attributes = {}, ...children) {
  const e = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) e.setAttribute(name, value);
  e.append(...children);
  return e;
}

/** The token's input: it has no name, and belongs to no form that is sent. */
const token = make("input", { type: "password", autocomplete: "off", spellcheck: "false", autocapitalize: "none", placeholder: "paste it here" });

function showToken() {
  const forget = make("button", { type: "button", class: "quiet" }, "Forget");
  forget.addEventListener("click", () => {
    token.value = "";
    token.focus();
  });
  document.getElementById("token")?.append(make("label", {}, "Token", token), forget);
  addEventListener("pagehide", () => (token.value = ""));
}

/** Ids that answers had, by the path of their list: what an input suggests. */
const seen = /** @type {Map<string, Set<string>>} */ (new Map());

/** @param {string} path */
const collection = (path) => path.split("/").slice(0, 3).join("/");

/**
 * Remembers the ids in a list that was answered.
 * @param {string} path
 * @param {unknown} body
 */
function remember(path, body) {
  const ids = seen.get(collection(path)) ?? new Set();
  const lists = body && typeof body === "object" ? [body, ...Object.values(body).flat()] : [];
  for (const one of lists) {
    const id = one && typeof one === "object" && ("id" in one ? one.id : "name" in one ? one.name : "");
    if (typeof id === "string" && id) ids.add(id);
  }
  seen.set(collection(path), ids);
  for (const list of document.querySelectorAll("datalist[data-of]")) {
    if (list.getAttribute("data-of") === collection(path)) list.replaceChildren(...[...ids].map((id) => make("option", { value: id })));
  }
}

/** Quotes for a shell. @param {string} text */
const quote = (text) => (/^[\w./:=@%+-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`);

/**
 * JSON on lines of its own, with every digit as it was sent: reading numbers would round them.
 * @param {string} text JSON
 */
function indented(text) {
  const out = [];
  let depth = 0, opened = false; // opened: a bracket, and nothing since
  const line = () => out.push("\n", "  ".repeat(depth));
  for (const [token] of text.matchAll(/"(?:[^"\\]|\\.)*"|[[\]{},:]|[^\s"[\]{},:]+/g)) {
    const closes = token === "]" || token === "}";
    if (closes) depth--;
    if (opened !== closes) line(); // before what is first in brackets, and before what closes some
    opened = token === "[" || token === "{";
    if (opened) depth++;
    out.push(token === ":" ? ": " : token);
    if (token === ",") line();
  }
  return out.join("");
}

/** @param {number} n */
const counted = (n, /** @type {string} */ what) => `${n.toLocaleString("en")} ${what}${n === 1 ? "" : "s"}`;

class Trial {
  /**
   * @param {HTMLElement} place
   * @param {string} method
   * @param {string} path
   * @param {Operation} operation
   */
  constructor(place, method, path, operation) {
    this.method = method;
    this.path = path;
    this.operation = operation;
    /** @type {Map<string, { of: Parameter, input: HTMLInputElement | HTMLSelectElement }>} */
    this.inputs = new Map();
    this.outcome = make("div", { class: "outcome", role: "status", "aria-live": "polite" });
    this.detail = make("div", { class: "outcome" });
    this.curl = make("code");
    this.send = make("button", { type: "submit" }, "Send");
    this.stop = make("button", { type: "button", class: "quiet", hidden: "" }, "Stop");
    this.stop.addEventListener("click", () => this.asking?.abort());
    this.token = true;
    const form = make("form", { "aria-label": `Try ${operation.operationId}` }, this.fields());
    const contents = Object.entries(operation.requestBody?.content ?? {});
    if (contents.length > 0) {
      const [type, media] = contents[0];
      this.type = type;
      this.body = make("textarea", { spellcheck: "false", rows: "8" });
      this.body.value = typeof media.example === "string" ? media.example : JSON.stringify(media.example, null, 2);
      this.example = this.body.value;
      form.append(make("label", {}, `Body, ${type}`, this.body));
    }
    if (method !== "GET" && !["check", "assess-grant"].includes(operation.operationId)) {
      form.append(make("p", { class: "warning" }, "This is done for real."));
    }
    form.append(this.buttons());
    form.addEventListener("submit", (e) => {
      e.preventDefault();
      void this.ask();
    });
    form.addEventListener("input", () => this.draw());
    const copy = make("button", { type: "button", class: "quiet" }, "Copy");
    const copied = make("span", { class: "unseen", role: "status" });
    copy.addEventListener("click", async () => {
      await navigator.clipboard.writeText(this.curl.textContent ?? "");
      copy.textContent = "Copied";
      copied.textContent = "Copied";
      setTimeout(() => ((copy.textContent = "Copy"), (copied.textContent = "")), 2000);
    });
    const line = make("div", { class: "line" }, make("pre", { tabindex: "0", role: "region", "aria-label": `curl for ${operation.operationId}` }, this.curl), copy, copied);
    place.append(make("h4", {}, "Try it"), form, line, this.outcome, this.detail);
    this.draw();
  }

  /** The parameters' inputs, and the forms in which it can answer. */
  fields() {
    const fields = make("div", { class: "inputs" });
    for (const p of this.operation.parameters ?? []) {
      const choices = p.schema.enum ?? (p.schema.type === "boolean" ? ["", "true", "false"] : undefined);
      const input = choices
        ? make("select", {}, ...choices.map((c) => make("option", { value: String(c) }, String(c) || "left out")))
        : make("input", { autocomplete: "off", spellcheck: "false", autocapitalize: "none", placeholder: p.example === undefined ? "" : String(p.example) });
      const label = make("label", {}, `${p.name}${p.required ? "" : " (may be left out)"}`, input);
      if (p.required) input.required = true;
      if (p.in === "path" && input instanceof HTMLInputElement && this.path.startsWith(`${collection(this.path)}/{${p.name}}`)) {
        const list = make("datalist", { id: `${this.operation.operationId}-${p.name}-known`, "data-of": collection(this.path) });
        list.append(...[...(seen.get(collection(this.path)) ?? [])].map((id) => make("option", { value: id })));
        input.setAttribute("list", list.id);
        label.append(list);
      }
      this.inputs.set(p.name, { of: p, input });
      fields.append(label);
    }
    const types = Object.entries(this.operation.responses).flatMap(([status, r]) => (/^2/.test(status) ? Object.keys(r.content ?? {}) : []));
    if (types.length > 1) {
      this.accept = make("select", {}, ...types.map((t) => make("option", { value: t }, t)));
      this.accept.value = types.find((t) => t.endsWith("json")) ?? types[0];
      fields.append(make("label", {}, "Answer as", this.accept));
    } else {
      this.only = types[0];
    }
    return fields;
  }

  /** What can be done. */
  buttons() {
    const buttons = make("div", { class: "buttons" }, this.send, this.stop);
    const refused = this.operation.responses.default?.content?.[problem]?.examples?.refused;
    const call = refused?.["x-call"];
    if (call) {
      const load = make("button", { type: "button", class: "quiet" }, "Fill in what is refused");
      load.addEventListener("click", () => {
        for (const { of, input } of this.inputs.values()) if (of.in === "path" && input.value === "") input.value = String(of.example ?? "");
        for (const [name, value] of Object.entries({ ...call.path, ...call.query })) {
          const field = this.inputs.get(name);
          if (field) field.input.value = value;
        }
        if (this.body && call.body !== undefined) this.body.value = JSON.stringify(call.body, null, 2);
        this.token = !call.no_token;
        this.draw();
        this.said(refused.summary, "");
        this.send.focus();
      });
      buttons.append(load);
    }
    return buttons;
  }

  /** The address below the party's own. */
  address() {
    let path = this.path;
    const query = new URLSearchParams();
    for (const [name, { of, input }] of this.inputs) {
      if (of.in === "path") path = path.replace(`{${name}}`, encodeURIComponent(input.value || `{${name}}`));
      if (of.in === "query" && input.value !== "") query.set(name, input.value);
    }
    return path + (query.size > 0 ? `?${query}` : "");
  }

  /** The headers, with whatever stands for the token. */
  headers(/** @type {string} */ bearer) {
    /** @type {Record<string, string>} */
    const headers = {};
    if (this.token && bearer && this.operation.security?.length !== 0) headers.Authorization = `Bearer ${bearer}`;
    const accept = this.accept?.value ?? this.only;
    if (accept) headers.Accept = accept;
    if (this.body && this.type) headers["Content-Type"] = this.type;
    return headers;
  }

  /** Writes the line to copy. */
  draw() {
    const words = ["curl", "--cacert", "ca.pem"];
    if (this.headers("").Accept === events) words.push("-N");
    if (this.method !== "GET") words.push("-X", this.method);
    for (const [name, value] of Object.entries(this.headers("$TOKEN"))) {
      words.push("-H", name === "Authorization" ? `"${name}: ${value}"` : quote(`${name}: ${value}`));
    }
    if (this.body) words.push("--data-binary", quote(this.body.value));
    words.push(quote(location.origin + decodeURI(this.address()).replaceAll("%7B", "{").replaceAll("%7D", "}")));
    this.curl.textContent = words.join(" ");
  }

  /** @param {string} text @param {string} how */
  said(text, how) {
    this.outcome.replaceChildren(make("p", { class: `status ${how}` }, text));
    this.detail.replaceChildren();
  }

  async ask() {
    this.asking?.abort();
    const asking = (this.asking = new AbortController());
    this.said("Asking…", "");
    const begun = performance.now();
    try {
      const answer = await fetch(this.address(), {
        method: this.method, headers: this.headers(token.value.trim()), body: this.body?.value, signal: asking.signal,
        credentials: "omit", cache: "no-store", redirect: "error", referrerPolicy: "no-referrer",
      });
      await this.show(answer, Math.round(performance.now() - begun), asking);
    } catch (e) {
      if (!asking.signal.aborted) this.said(`The party can't be asked: ${e instanceof Error ? e.message : e}`, "bad");
    } finally {
      if (this.asking === asking) this.stop.hidden = true;
      this.token = true;
      this.draw();
    }
  }

  /** @param {Response} answer @param {number} took @param {AbortController} asking */
  async show(answer, took, asking) {
    const type = (answer.headers.get("Content-Type") ?? "").split(";")[0];
    this.said(`${answer.status} ${answer.statusText || ""}`.trim() + `, after ${took.toLocaleString("en")} ms`, answer.ok ? "good" : "bad");
    const headers = [...answer.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
    const shown = make("code");
    const name = this.operation.operationId;
    this.detail.append(
      make("details", {}, make("summary", {}, counted([...answer.headers].length, "header")), make("pre", { tabindex: "0", role: "region", "aria-label": `Headers of the answer to ${name}` }, make("code", {}, headers))),
      make("pre", { tabindex: "0", role: "region", "aria-label": `Body of the answer to ${name}` }, shown),
    );
    if (answer.ok && type === events && answer.body) return this.follow(answer.body, shown, asking);
    if (!/json$|^text\/|jwt$|xml$/.test(type)) {
      const bytes = await answer.blob();
      shown.textContent = bytes.size === 0 ? "No body." : `${counted(bytes.size, "byte")} of ${type}`;
      if (bytes.size > 0) this.detail.append(this.saved(bytes));
      return;
    }
    const text = await answer.text();
    let pretty = text;
    if (/json$/.test(type)) {
      try {
        const body = JSON.parse(text);
        pretty = indented(text);
        if (answer.ok) remember(this.path, body);
      } catch {
        // It isn't what it says: it is shown as it is.
      }
    }
    shown.textContent = pretty.length > most ? `${pretty.slice(0, most)}\n… and ${counted(pretty.length - most, "character")} more` : pretty || "No body.";
  }

  /** Offers bytes as a file. @param {Blob} bytes */
  saved(bytes) {
    const address = URL.createObjectURL(bytes);
    const link = make("a", { href: address, download: this.operation.operationId.replace(/^get-/, "") + (bytes.type.includes("tar") ? ".tar" : ".bin") }, "Save");
    addEventListener("pagehide", () => URL.revokeObjectURL(address), { once: true });
    return make("p", {}, link);
  }

  /**
   * Shows events as they come, the newest first.
   * @param {ReadableStream<Uint8Array>} body @param {HTMLElement} shown @param {AbortController} asking
   */
  async follow(body, shown, asking) {
    this.stop.hidden = false;
    const decoder = new TextDecoder();
    const reader = body.getReader();
    let rest = "";
    let count = 0;
    /** @type {string[]} */
    const newest = [];
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        const parts = (rest + decoder.decode(value, { stream: true })).split("\n\n");
        rest = parts.pop() ?? "";
        for (const part of parts) {
          newest.unshift(part);
          count += /^data:/m.test(part) ? 1 : 0;
        }
        newest.length = Math.min(newest.length, 50);
        shown.textContent = newest.join("\n\n");
        this.outcome.querySelector(".count")?.remove();
        this.outcome.append(make("p", { class: "count", "aria-live": "off" }, `${counted(count, "event")} so far`));
      }
    } catch (e) {
      if (!asking.signal.aborted) throw e;
    }
    this.outcome.append(make("p", {}, asking.signal.aborted ? "Stopped." : "The party ended it."));
  }
}

/** Opens what the address points to. */
function open() {
  const at = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const details = at?.querySelector(":scope > details");
  if (details instanceof HTMLDetailsElement) details.open = true;
  for (const a of document.querySelectorAll("#operations a")) {
    if (a.getAttribute("href") === location.hash && location.hash) a.setAttribute("aria-current", "true");
    else a.removeAttribute("aria-current");
  }
  if (details) at?.scrollIntoView();
}

/** Finds operations by what they say. */
function showFinder() {
  const list = document.getElementById("operations");
  const input = make("input", { type: "search", autocomplete: "off", placeholder: "path, id or word" });
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/);
    for (const li of list?.querySelectorAll("li") ?? []) {
      const id = li.querySelector("a")?.getAttribute("href")?.slice(1) ?? "";
      const text = `${id} ${li.textContent} ${document.getElementById(id)?.querySelector(".what")?.textContent}`.toLowerCase();
      li.hidden = !words.every((w) => text.includes(w));
    }
    for (const group of list?.querySelectorAll("details") ?? []) group.hidden = !group.querySelector("li:not([hidden])");
  });
  list?.prepend(make("label", { class: "find" }, "Find an operation", input));
}

async function start() {
  showToken();
  showFinder();
  if (matchMedia("(max-width: 60rem)").matches) for (const group of document.querySelectorAll("#operations details")) group.removeAttribute("open");
  const answer = await fetch("/openapi.json", { credentials: "omit" });
  /** @type {{ paths: Record<string, Record<string, Operation>> }} */
  const { paths } = await answer.json();
  for (const [path, item] of Object.entries(paths)) {
    for (const [method, operation] of Object.entries(item)) {
      const place = document.getElementById(operation.operationId)?.querySelector(".trial");
      if (!(place instanceof HTMLElement)) continue; // the item's servers
      if (place.dataset.elsewhere) {
        place.append(make("p", { class: "note" }, "It is on another listener, behind mutual TLS: a page can't try it."));
        continue;
      }
      const details = place.closest("details");
      const begin = () => place.childElementCount || new Trial(place, method.toUpperCase(), path, operation);
      if (details?.open) begin();
      details?.addEventListener("toggle", begin);
    }
  }
  addEventListener("hashchange", open);
  open();
  document.documentElement.dataset.ready = "true";
}

await start();
