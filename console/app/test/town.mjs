// A real demo and a real browser for the tests: carnet demo on free ports, with its
// console, and Debian's Chromium with a profile of its own. Nothing but loopback is
// reached, and what is started here ends here.
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import fs from "node:fs";
import https from "node:https";
import os from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

import { chromium } from "playwright-core";

const carnet = process.env.CARNET;
const browserPath = process.env.CHROMIUM ?? "/usr/bin/chromium";
assert.ok(carnet, "CARNET names the binary that is tested");

export class Town {
  /** Requests, WebSockets and violations of all pages: checked at the end. */
  requests = [];
  violations = [];
  errors = [];
  /** What a browser keeps of one session of each user. */
  sessions = new Map();

  async start() {
    this.dir = fs.mkdtempSync(path.join(os.tmpdir(), "carnet-console-"));
    this.log = fs.openSync(path.join(this.dir, "log"), "w");
    this.demo = spawn(carnet, ["demo", "--data", path.join(this.dir, "demo"), "--for", "30m"], { stdio: ["ignore", this.log, this.log] });
    const ended = new Promise((_, no) => this.demo.on("exit", (code) => no(new Error(`the demo ended with ${code}: ${fs.readFileSync(path.join(this.dir, "log"), "utf8")}`))));
    ended.catch(() => {});
    const file = path.join(this.dir, "demo", "demo.json");
    await Promise.race([ended, until("the demo's access file", () => fs.existsSync(file), 60_000)]);
    this.access = JSON.parse(fs.readFileSync(file, "utf8"));
    this.base = this.access.console;
    this.password = this.access.users[0].password;
    this.browser = await chromium.launch({
      executablePath: browserPath,
      args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions"],
    });
  }

  async stop() {
    await this.browser?.close();
    if (this.demo && this.demo.exitCode === null) {
      const gone = new Promise((done) => this.demo.on("exit", done));
      this.demo.kill("SIGTERM");
      const timer = setTimeout(() => this.demo.kill("SIGKILL"), 20_000);
      await gone;
      clearTimeout(timer);
    }
    fs.closeSync(this.log);
    fs.rmSync(this.dir, { recursive: true, force: true });
  }

  /** A new browser context: nobody is signed in. */
  async visitor(options = {}) {
    const context = await this.browser.newContext({ viewport: { width: 1280, height: 900 }, colorScheme: "light", locale: "en-GB", ...options });
    context.setDefaultTimeout(30_000);
    context.on("request", (r) => this.requests.push(r.url()));
    const page = await context.newPage();
    await page.addInitScript(() => {
      globalThis.violated = [];
      addEventListener("securitypolicyviolation", (e) => globalThis.violated.push(`${e.violatedDirective} ${e.blockedURI} ${e.sample}`));
    });
    page.on("websocket", (w) => this.requests.push(w.url()));
    page.on("pageerror", (e) => this.errors.push(String(e)));
    page.on("console", (m) => {
      if (/Content Security Policy|TrustedHTML|TrustedScript|Refused to/.test(m.text())) this.violations.push(m.text());
    });
    return page;
  }

  /** A visitor who is signed in: by a session that somebody of the name has, or anew. */
  async signedIn(name = "operator", options = {}, anew = false) {
    const had = anew ? undefined : this.sessions.get(name);
    const page = await this.visitor(had ? { ...options, storageState: had } : options);
    await page.goto(this.base);
    if (!had) {
      await signIn(page, name, this.password);
      await page.getByRole("heading", { name: "Overview" }).waitFor();
      if (!anew) this.sessions.set(name, await page.context().storageState());
    }
    await page.getByRole("heading", { name: "Overview" }).waitFor();
    return page;
  }

  /** What the page's policy complained about. */
  async collect(page) {
    this.violations.push(...(await page.evaluate(() => globalThis.violated ?? [])));
  }

  /** Asks a party itself, as the operator. */
  ask(party, method, at, body) {
    const p = this.access.parties.find((p) => p.name === party);
    const t = this.access.tokens.find((t) => t.party === party && t.role === "administrator");
    return new Promise((done, no) => {
      const r = https.request(
        p.http + at,
        { method, ca: fs.readFileSync(p.ca_file), headers: { Authorization: "Bearer " + t.token, "Content-Type": "application/json" } },
        (answer) => {
          let text = "";
          answer.on("data", (d) => (text += d));
          answer.on("end", () => (answer.statusCode < 300 ? done(JSON.parse(text)) : no(new Error(`${answer.statusCode} ${text}`))));
        },
      );
      r.on("error", no);
      r.end(body === undefined ? undefined : JSON.stringify(body));
    });
  }

  /** Runs a command of the program as the demo's operator or owner, and returns what it printed. */
  carnet(...args) {
    const r = spawnSync(carnet, args, { cwd: this.dir, env: { ...process.env, CARNET_ACCESS: path.join(this.dir, "demo", "demo.json") }, encoding: "utf8", timeout: 60_000 });
    assert.equal(r.status, 0, `carnet ${args.join(" ")}: ${r.stderr}`);
    return r.stdout;
  }

  /** What opens the keystore of the demo's owner. */
  get owner() {
    return ["--keystore", path.join(this.dir, "demo", "owner", "keystore"), "--passphrase-file", path.join(this.dir, "demo", "owner", "passphrase")];
  }

  /** Publishes as the demo's watch, with Mosquitto's client. */
  publish(payload, as = {}) {
    const watch = this.access.things[0];
    const t = { ...watch, ...as };
    const topic = watch.topic_measurements.replaceAll(watch.id, t.id);
    const [host, port] = this.access.parties.find((p) => p.name === t.party).mqtt.split(":");
    const ca = this.access.parties.find((p) => p.name === t.party).ca_file;
    return spawnSync("mosquitto_pub", ["-h", host, "-p", port, "--cafile", ca, "-u", t.id, "-P", t.password, "-q", "1", "-V", "5", "-i", "test", "-t", topic, "-m", payload], { timeout: 20_000 });
  }
}

export async function signIn(page, name, password) {
  await page.getByLabel("Name").fill(name);
  await page.getByLabel("Password").fill(password);
  await page.getByRole("button", { name: "Sign in" }).click();
}

/** Waits until something holds. */
export async function until(what, holds, patience = 30_000) {
  const end = Date.now() + patience;
  for (;;) {
    const got = await holds();
    if (got) return got;
    if (Date.now() > end) throw new Error(`${what}: not within ${patience / 1000} s`);
    await sleep(100);
  }
}
