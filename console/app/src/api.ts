// The way to the console's server and, through it, to the parties. The key is the
// page's half of the session (docs/design/console.md); the other half is a cookie that
// no script sees.

import { under } from "./format.ts";

/** A refusal: of the console, of a party, or of the network. */
export class Refusal extends Error {
  constructor(
    readonly status: number,
    readonly reason: string,
    readonly fix: string = "",
    readonly code: string = "",
    readonly from: string = "",
  ) {
    super(reason);
  }
}

/** What an error says to people. */
export function asRefusal(e: unknown): Refusal {
  if (e instanceof Refusal) return e;
  return new Refusal(0, e instanceof Error ? e.message : String(e), "Load the page again.");
}

export interface Reached {
  name: string;
  role: "things" | "world" | "depot" | "dpm";
  as?: string; // the role there; absent: no token
}

// What the built-in roles may do (docs/design/access.md), so that nobody is offered
// what is surely refused. Whether it may be done, the party decides.

/** Whether a role may change what worlds get. */
export const mayEdit = (p: Reached | undefined): boolean => p?.as === "administrator" || p?.as === "creator" || p?.as === "user";

/** Whether a role may decide what its party does with others. */
export const mayGovern = (p: Reached | undefined): boolean => p?.as === "administrator";

/** Whether a role may see how a party is, and all of what it has with others. */
export const maySurvey = (p: Reached | undefined): boolean => p?.as === "administrator" || p?.as === "auditor";

/** Whether a role may read what was measured. */
export const mayRead = (p: Reached | undefined): boolean => p?.as !== undefined && p.as !== "auditor";

export interface Identity {
  name: string;
  role: string;
  idle_ends: string;
  ends: string;
  parties: Reached[];
}

const place = "carnet-key";
let key = localStorage.getItem(place) ?? "";
let onEnd: (why: Refusal) => void = () => {};

/** Who is to be told that the session is over. */
export function whenOver(f: (why: Refusal) => void): void {
  onEnd = f;
}

function keep(k: string): void {
  key = k;
  if (k === "") localStorage.removeItem(place);
  else localStorage.setItem(place, k);
}

// Another tab that signs in or out does so for this one, too.
addEventListener("storage", (e) => {
  if (e.key === place) {
    key = e.newValue ?? "";
    if (key === "") onEnd(new Refusal(401, "You signed out in another tab.", "", "unauthenticated", "console"));
  }
});

interface Call {
  method?: string;
  body?: unknown;
  accept?: string;
  signal?: AbortSignal;
}

async function call(path: string, c: Call = {}): Promise<Response> {
  const headers: Record<string, string> = { Accept: c.accept ?? "application/json" };
  if (key !== "") headers["Carnet-Key"] = key;
  if (c.body !== undefined) headers["Content-Type"] = "application/json";
  const init: RequestInit = { method: c.method ?? "GET", headers, cache: "no-store", credentials: "same-origin", redirect: "error" };
  if (c.body !== undefined) init.body = JSON.stringify(c.body);
  if (c.signal) init.signal = c.signal;
  let r: Response;
  try {
    r = await fetch(path, init);
  } catch (e) {
    if (c.signal?.aborted) throw e;
    throw new Refusal(0, "The console does not answer.", "See whether it still runs; the page tries again by itself.");
  }
  if (r.ok) return r;
  const p: Record<string, unknown> = await heard(r).catch(() => ({}));
  const text = (name: string): string => (typeof p[name] === "string" ? p[name] : "");
  const refusal = new Refusal(r.status, text("detail") || text("title") || r.statusText, text("fix"), text("code"), text("from"));
  if (r.status === 401 && refusal.from === "console" && path !== "/session") {
    keep("");
    onEnd(refusal);
  }
  throw refusal;
}

export async function signIn(name: string, password: string): Promise<Identity> {
  const r = await call("/session", { method: "POST", body: { name, password } });
  const i: Identity & { key: string } = await r.json();
  keep(i.key);
  return i;
}

/** Who is signed in; undefined: nobody. */
export async function whoAmI(): Promise<Identity | undefined> {
  if (key === "") return undefined;
  try {
    return await (await call("/session")).json();
  } catch (e) {
    if (asRefusal(e).status === 401) {
      keep("");
      return undefined;
    }
    throw e;
  }
}

export async function signOut(everywhere: boolean): Promise<void> {
  try {
    await call(everywhere ? "/sessions" : "/session", { method: "DELETE" });
  } finally {
    keep("");
  }
}

/** Text without what steers how the text around it runs: control characters, and embeddings, overrides and isolates of direction. */
const steers = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g;
const plain = (_: string, v: unknown): unknown => (typeof v === "string" ? v.replace(steers, "\ufffd") : v);

/** What a party says, as the page shows it. */
const heard = async (r: Response) => JSON.parse(await r.text(), plain);

const at = (party: string, path: string): string => `/api/${party}${path}`;

/** Asks a party. */
export async function ask<T>(party: string, path: string, signal?: AbortSignal): Promise<T> {
  return heard(await call(at(party, path), signal ? { signal } : {}));
}

/** Has a party change something. */
export async function tell<T>(party: string, method: "POST" | "PUT" | "DELETE", path: string, body?: unknown): Promise<T> {
  const r = await call(at(party, path), { method, body });
  return r.status === 204 ? (undefined as T) : heard(r);
}

/** What came out of a job, as its program put it out. */
export async function output(world: string, job: string, signal: AbortSignal): Promise<Uint8Array<ArrayBuffer>> {
  return new Uint8Array(await (await call(at(world, `/v1/jobs/${job}/output`), { accept: "application/octet-stream", signal })).arrayBuffer());
}

/** What a job that runs has put out so far, which nothing proves yet. */
export interface PutOut {
  attempt: number;
  parts: number;
  heard?: string; // from its DPM
  output: Uint8Array<ArrayBuffer>;
}

export async function partial(world: string, job: string, signal: AbortSignal): Promise<PutOut> {
  const told = await ask<Omit<PutOut, "output"> & { output: string }>(world, `/v1/jobs/${job}/partial`, signal);
  return { ...told, output: Uint8Array.from(atob(told.output), (c) => c.charCodeAt(0)) };
}

/** A SenML record (RFC 8428), resolved: its base fields are in it. */
export interface Measurement {
  n: string;
  u?: string;
  t: number;
  v?: number;
  vs?: string;
  vb?: boolean;
  vd?: string;
}

/** What a measurement says. */
export const said = (m: Measurement): number | string | boolean | undefined => m.v ?? m.vb ?? m.vs ?? m.vd;

interface SenMLRecord extends Partial<Measurement> {
  bn?: string;
  bt?: number;
  bu?: string;
  bv?: number;
}

/** Resolves a pack (RFC 8428 §4.6): base fields hold for their record and those after it. */
function resolved(pack: SenMLRecord[]): Measurement[] {
  let base: { n: string; t: number; u?: string; v: number } = { n: "", t: 0, v: 0 };
  return pack.map(({ bn, bt, bu, bv, ...r }) => {
    base = { ...base, n: bn ?? base.n, t: bt ?? base.t, v: bv ?? base.v };
    if (bu !== undefined) base.u = bu;
    const m: Measurement = { ...r, n: base.n + (r.n ?? ""), t: base.t + (r.t ?? 0) };
    const u = r.u ?? base.u;
    if (u !== undefined) m.u = u;
    if (r.v !== undefined) m.v = base.v + r.v;
    return m;
  });
}

export interface Page {
  measurements: Measurement[];
  next?: number; // from where there is more, in seconds
}

/** A page of an avatar's history. */
export async function history(
  world: string, avatar: string, q: { from?: number; to?: number; property?: string; limit?: number }, signal?: AbortSignal,
): Promise<Page> {
  const p = new URLSearchParams();
  for (const [name, v] of Object.entries(q)) if (v !== undefined) p.set(name, typeof v === "number" && name !== "limit" ? v.toFixed(3) : String(v));
  const c: Call = { accept: "application/senml+json" };
  if (signal) c.signal = signal;
  const r = await call(at(world, `/v1/avatars/${avatar}/history?${p}`), c);
  const page: Page = { measurements: resolved(await heard(r)) };
  const next = r.headers.get("Carnet-Next");
  if (r.headers.get("Carnet-More") === "true" && next) page.next = /^[\d.]+$/.test(next) ? Number(next) : Date.parse(next) / 1000;
  return page;
}

export const state = async (world: string, avatar: string, signal?: AbortSignal): Promise<Measurement[]> => {
  const c: Call = { accept: "application/senml+json" };
  if (signal) c.signal = signal;
  return resolved(await heard(await call(at(world, `/v1/avatars/${avatar}/state`), c)));
};

export type LiveState = "connecting" | "live" | "broken";

/**
 * Follows an avatar until stop is called: over lost connections, after the last
 * cursor, so that nothing comes twice or is left out.
 */
export function follow(world: string, avatar: string, got: (ms: Measurement[]) => void, is: (s: LiveState) => void): () => void {
  let cursor: string | undefined;
  let socket: WebSocket | undefined;
  let wait = 500;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let stopped = false;
  const connect = (): void => {
    const u = new URL(at(world, `/v1/avatars/${avatar}/live`), location.href);
    u.protocol = u.protocol.replace("http", "ws");
    if (cursor !== undefined) u.searchParams.set("after", cursor);
    socket = new WebSocket(u, ["carnet.senml+json", "key." + key]);
    socket.onmessage = (e) => {
      const frame: { cursor: string; pack: SenMLRecord[] } = JSON.parse(String(e.data), plain);
      cursor = frame.cursor;
      wait = 500;
      is("live");
      if (frame.pack.length > 0) got(resolved(frame.pack));
    };
    socket.onopen = () => is("live");
    socket.onclose = () => {
      if (stopped) return;
      is("broken");
      timer = setTimeout(connect, wait);
      wait = Math.min(2 * wait, 10_000);
    };
  };
  is("connecting");
  connect();
  return () => {
    stopped = true;
    clearTimeout(timer);
    socket?.close();
  };
}

// What the parties answer, as far as the pages use it (/openapi.json of a party).

export interface Link {
  world: string;
  up: boolean;
  acked: number;
  lag: number;
  waiting: number;
}

export interface ShareLink {
  world: string;
  giving: number;
  taking: number;
  acked: number;
  waiting: boolean;
}

export interface Status {
  party: string;
  time: string;
  things?: { things: number; policy_version: number; messages: number; sent_frames: number; sent_batches: number; refusals: number; statements: number; receipts: number; links: Link[] };
  world?: { avatars: number; streams: number; measurements: number; batches: number; frames: number; stretches: number; defects: number; statements: number; receipts: number; live: number; reads?: number; events?: number; exchanged?: number; dpms?: { dpm: string; running: number; handed: number; returned: number }[]; shares?: ShareLink[] };
  depot?: { objects: number; bytes: number; entries: number };
  dpm?: { workers: number; waiting: number; ready: number; leased: number; ended: number; parked: number };
}

export interface Property {
  name: string;
  unit?: string;
  kind: string;
  sensitivity: string;
  last_time?: string;
}

export interface PropertyView {
  round?: number;
  precision_m?: number;
  rate?: string;
  [other: string]: unknown;
}

export interface View {
  properties: Record<string, PropertyView>;
  purposes?: string[];
  [other: string]: unknown;
}

/** Whether a view shows a property, by its name or that of its object. */
export const shows = (v: View, name: string): boolean => (under(v.properties, name) ?? under(v.properties, name.split("/")[0]!)) !== undefined;

export interface Got {
  property: string;
  sent: number;
  withheld?: Record<string, number>;
  why: string;
}

export interface Mapping {
  id: string;
  thing: string;
  world: string;
  avatar: string;
  policy_version: number;
  owner_view: View;
  view: View;
  stopped: boolean;
  got: Got[];
  uncounted?: string; // why what is counted isn't known
}

export interface Thing {
  id: string;
  owner: string;
  title: string;
  added: string;
  properties: Property[];
  mappings: Mapping[];
  refused?: Record<string, number>;
  connected: number;
}

export interface Refused {
  time: string;
  code: string;
  reason: string;
  fix?: string;
  sent?: string;
}

export interface Peer {
  name: string;
  role?: string; // once it is known
  state: string;
  scope: string[];
  not_after: string;
  next?: string;
  trouble?: string;
}

export interface Grant {
  id: string;
  avatar: string;
  to: { application?: string; avatar?: string; platform?: string; did?: string };
  actions: string[];
  view: View;
  purpose: string;
  expires: string;
  by: string;
  given: string;
  revoked?: string;
  revoked_by?: string;
}

/** An application, or who acts as an avatar. */
export interface Principal {
  id: string;
  kind: string;
  name: string;
}

export interface Share {
  id: string;
  direction: string; // giving or taking
  state: string;
  world: string;
  ours: string; // the avatar here
  purpose: string;
  theirs: string; // the one there
  begun: string;
  view?: View;
  withdrawn?: string[]; // of the view, what doesn't come now
  until?: string;
  onward?: boolean;
  mandate?: string; // by which it is given
  held?: string; // why nothing comes across at the moment
  waits?: boolean;
  ended?: { time: string; by: string; why: string };
}

export interface CrossingProgress {
  stretches: number;
  of: number;
  bytes: number;
  of_bytes: number;
  since?: string;
  fetched: number;
  waits?: string;
}

/** A move of an avatar, as one of its worlds sees it. */
export interface Crossing {
  id: string;
  direction: string; // arriving or departing
  state: string;
  world: string; // the other one
  ours: string; // the avatar here
  theirs?: string;
  begun: string;
  ended?: string;
  why?: string;
  request?: unknown; // what its owner is asked to approve
  progress?: CrossingProgress;
  steps: { state: string; time: string }[] | null;
  amount?: { streams: number; stretches: number; batches: number; measurements: number; bytes: number; keys: number; properties: number; left_batches?: number; left_measurements?: number };
  manifest?: string;
  decision?: string;
  departure?: string;
  surveyed?: boolean;
  unfit?: number;
  items?: MovingItem[];
  alone?: boolean; // the item moves, and not the avatar
}

/** An item of a move; without as it ends with it. */
export interface MovingItem {
  id: string;
  kind: string;
  title: string;
  as?: string;
}

/** An item that a world has or had. */
export interface Item {
  id: string;
  state: string; // here, gone or retired
  issuer: string; // did:key
  world: string; // the issuer, as it calls itself
  kind: string; // of the issuer's
  title: string;
  serial: number;
  attributes: Record<string, number | string | boolean> | null;
  issued: string;
  avatar: string; // who has it, or had it last
  since: string;
  slot?: string; // where it is put on
  as?: { kind: string; attributes: Record<string, number | string | boolean> | null }; // what it counts as here
  moving?: boolean;
  to?: string; // where it has gone
  entries: number;
  last: string; // SHA-256 of the newest entry of its chain
}

/** All that proves an item. */
export interface ItemProof {
  credential: string;
  entries: string[]; // JWS
}

/** A view that was in force. */
export interface ViewRecord {
  policy_version: number;
  time: string;
  by: string;
  view: View;
  stopped?: boolean;
}

/** A request of an avatar's owner for a mandate at another world. */
export interface MandateRequest {
  id: string;
  avatar: string;
  request: { aud?: string; avatar?: string; purpose?: string; text?: string };
  by: string;
  made: string;
  expires?: string; // of the mandate last given
}

export interface Label {
  sensitivity: string;
  purposes?: string[];
  residency?: string[];
}

/** A job that a world ordered. */
export interface Job {
  id: string;
  at?: string; // the DPM; absent: in the world itself
  state: string;
  outcome?: string;
  code?: string;
  why?: string;
  made: string;
  until: string;
  ended?: string;
  purpose: string;
  module?: string; // NAME@VERSION, of a signed one
  task: {
    engine: string;
    program: { fingerprint: string; size: number };
    parameters?: unknown;
    from: number; // measured time, ns
    to: number;
    properties?: string[];
    inputs: { avatar: string; batches: number }[] | null;
  };
  label: Label;
  avatars: string[];
  policies?: { avatar: string; version: number }[]; // by a1, a2 and so on
  progress?: { state: string; attempt: number; permille: number; measurements: number; parts: number; trouble?: string };
  output?: { measurements: number; fingerprint: string; size: number };
  repeats?: string; // the job that it repeats
  comparison?: string;
}

/** A version of a module that a world knows. */
export interface Module {
  id: string; // NAME@VERSION
  program: { fingerprint: string; size: number };
  reads?: string[];
  by: string; // the did:key of who signed it
  added: string;
  revoked?: { by: string; why: string; made: string };
}

/** What is to be computed. */
export interface NewJob {
  at?: string;
  module?: string; // NAME@VERSION; else:
  engine?: "sql" | "wasm";
  program?: string; // base64
  parameters?: unknown;
  avatars: string[];
  from?: string;
  to?: string;
  properties?: string[];
  within: number; // seconds
}

/** Where a job could run, and what would leave for that. */
export interface JobPlan {
  batches: number;
  bytes: number;
  keys: number;
  measurements: number;
  along: number; // others, in the same batches
  properties: Record<string, number> | null;
  label: Label;
  places: { at: string; here: boolean; can: boolean; why: string }[];
  choice?: string;
  why: string;
}

/** Asks for what a party may not have, or not for this role: then there is nothing to show. */
export async function askIfThere<T>(party: string, path: string, signal?: AbortSignal): Promise<T | undefined> {
  try {
    return await ask<T>(party, path, signal);
  } catch (e) {
    if (e instanceof Refusal && (e.status === 403 || e.status === 404)) return undefined;
    throw e;
  }
}

export interface Avatar {
  id: string;
  title?: string;
  created: string;
  streams: number;
  shared_streams?: number;
  measurements: number;
  batches: number;
  properties: string[];
  withdrawn?: string[]; // of these, what nothing gives any more
  latest?: string;
}

/** What a JWS says; the console checks no signature, whoever keeps it does. */
export function claims(jws: string): Record<string, unknown> {
  try {
    const raw = atob((jws.split(".")[1] ?? "").replaceAll("-", "+").replaceAll("_", "/"));
    const v: unknown = JSON.parse(new TextDecoder().decode(Uint8Array.from(raw, (c) => c.charCodeAt(0))), plain);
    return typeof v === "object" && v !== null ? (v as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}
