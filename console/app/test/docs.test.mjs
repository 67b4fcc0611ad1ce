// The parties' own page of documents, as people use it, against a real demo in a real
// browser; and docs/read-an-avatar.md in TypeScript.
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

import { Town, until } from "./town.mjs";

const require = createRequire(import.meta.url);
const axe = fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const root = fileURLToPath(new URL("../../..", import.meta.url));
const limit = { timeout: 120_000 };

const town = new Town();
before(() => town.start(), { timeout: 90_000 });
after(() => town.stop(), { timeout: 60_000 });

const at = (party) => town.access.parties.find((p) => p.name === party).http;
const tokenOf = (party, role) => town.access.tokens.find((t) => t.party === party && t.role === role).token;

/** A visitor at a party's page, whose certificate is taken as it is. */
async function reader(party, options = {}) {
  const page = await town.visitor({ ignoreHTTPSErrors: true, reducedMotion: "reduce", ...options });
  await page.goto(`${at(party)}/docs`);
  if (options.javaScriptEnabled !== false) await page.locator("[data-ready]").waitFor({ state: "attached" });
  return page;
}

const tokenInput = (page) => page.getByRole("textbox", { name: "Token" });

/** Opens an operation by its link, and returns it. */
async function opened(page, id) {
  const group = page.locator("#operations details", { has: page.locator(`a[href="#${id}"]`) });
  if (!(await group.evaluate((e) => e.open))) await group.locator("summary").click();
  await page.locator(`#operations a[href="#${id}"]`).click();
  const op = page.locator(`#${id}`);
  await op.locator(".inside").waitFor();
  return op;
}

async function sent(op) {
  await op.getByRole("button", { name: "Send" }).click();
  await op.locator(".status").filter({ hasText: /^\d{3}/ }).waitFor();
  return op.locator(".status").textContent();
}

/** The answer's body, once it is there: it comes after the status. */
const bodyOf = (op) => until("a body", () => op.getByRole("region", { name: /^Body of the answer/ }).textContent());
const done = async (page) => {
  await town.collect(page);
  await page.context().close();
};

test("the page reads without its script", limit, async () => {
  const page = await reader("arena", { javaScriptEnabled: false });
  await page.getByRole("heading", { name: "What arena answers" }).waitFor();
  for (const tag of ["R1", "R2", "R3", "R4", "R5", "R6", "management: party", "management: peers", "management: activity"]) {
    await page.getByRole("heading", { level: 2, name: tag }).waitFor();
  }
  const op = page.locator("#get-state");
  await op.locator("summary").click();
  await op.getByText("The avatar's id.").waitFor();
  await op.getByRole("heading", { name: "A refusal" }).waitFor();
  assert.match(await op.locator("pre").allTextContents().then((t) => t.join()), /heart_rate[^]*not_found/);
  await page.getByRole("heading", { name: "Read an avatar in ten lines" }).waitFor();
  assert.equal(await page.locator("input, button, form").count(), 0, "there is nothing to press that does nothing");
  await page.context().close();
});

test("an operation is tried, with a token that stays where it was pasted", limit, async () => {
  const page = await reader("clinic");
  const token = tokenOf("clinic", "service");
  await tokenInput(page).fill(token);
  const list = await opened(page, "list-avatars");
  assert.match(await sent(list), /^200/);
  const id = town.access.avatars.find((a) => a.world === "clinic").id;
  assert.ok(JSON.parse(await bodyOf(list)).avatars.some((a) => a.id === id));
  const state = await opened(page, "get-state");
  assert.ok((await state.locator("datalist option").evaluateAll((o) => o.map((e) => e.value))).includes(id), "an id that was answered is suggested");
  await state.getByLabel("id", { exact: true }).fill(id);
  await until("a heart rate", async () => /^200/.test(await sent(state)) && (await bodyOf(state)).includes('"heart_rate"'));
  // Digits are shown as they were sent, though no number of the page could hold them.
  await page.route("**/state", (route) => route.fulfill({ status: 200, contentType: "application/senml+json", body: '[{"bt":1795905617.863859189,"n":"heart_rate","v":72},{}]' }));
  await sent(state);
  assert.equal(await bodyOf(state), '[\n  {\n    "bt": 1795905617.863859189,\n    "n": "heart_rate",\n    "v": 72\n  },\n  {}\n]');
  await page.unroute("**/state");
  await until("the party's own answer", async () => /^200/.test(await sent(state)) && !(await bodyOf(state)).includes("863859189"));
  await state.getByText(/\d+ headers/).click();
  assert.match(await state.getByRole("region", { name: /^Headers/ }).textContent(), /content-security-policy: default-src 'none'[^]*content-type: application\/senml\+json/);
  // The line does the same in a shell, and the token isn't in it.
  const line = await state.getByRole("region", { name: /^curl/ }).textContent();
  assert.ok(!line.includes(token) && line.includes('"Authorization: Bearer $TOKEN"'), line);
  await page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
  await state.getByRole("button", { name: "Copy" }).click();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), line);
  const ca = path.dirname(town.access.parties.find((p) => p.name === "clinic").ca_file);
  const shell = spawnSync("sh", ["-c", line], { cwd: ca, env: { ...process.env, TOKEN: token }, encoding: "utf8" });
  assert.ok(JSON.parse(shell.stdout).some((m) => m.n === "heart_rate"), shell.stderr);
  // Another form, which is no text.
  await state.getByLabel("Answer as").selectOption("application/senml+cbor");
  assert.match(await sent(state), /^200/);
  assert.match(await bodyOf(state), /^\d+ bytes of application\/senml\+cbor$/);
  // The token: in no address, no storage, no attribute, nowhere in the page.
  assert.ok(!page.url().includes(token));
  assert.ok(town.requests.every((r) => !r.includes(token)));
  const kept = await page.evaluate(async () => ({
    local: JSON.stringify({ ...localStorage }), session: JSON.stringify({ ...sessionStorage }), cookie: document.cookie, databases: (await indexedDB.databases()).length,
    caches: (await caches.keys()).length, history: JSON.stringify(history.state), html: document.documentElement.outerHTML,
  }));
  assert.deepEqual({ ...kept, html: "" }, { local: "{}", session: "{}", cookie: "", databases: 0, caches: 0, history: "null", html: "" });
  assert.ok(!kept.html.includes(token));
  await page.reload();
  await page.locator("[data-ready]").waitFor({ state: "attached" });
  assert.equal(await tokenInput(page).inputValue(), "");
  await done(page);
});

test("a refusal is shown as the party says it", limit, async () => {
  const page = await reader("clinic");
  const state = await opened(page, "get-state");
  await state.getByLabel("id", { exact: true }).fill(town.access.avatars.find((a) => a.world === "clinic").id);
  assert.match(await sent(state), /^401/);
  assert.equal(JSON.parse(await bodyOf(state)).code, "unauthenticated");
  await tokenInput(page).fill(tokenOf("clinic", "auditor"));
  assert.match(await sent(state), /^403/);
  assert.match(JSON.parse(await bodyOf(state)).detail, /get-state/);
  await page.getByRole("button", { name: "Forget" }).click();
  assert.match(await sent(state), /^401/);
  await tokenInput(page).fill(tokenOf("clinic", "administrator"));
  await state.getByRole("button", { name: "Fill in what is refused" }).click();
  await state.getByText("There is no such avatar, or it is hidden from the caller.").last().waitFor();
  assert.match(await sent(state), /^404/);
  const shown = JSON.parse(await bodyOf(state));
  const example = JSON.parse(await state.getByRole("region", { name: "Example of a refusal of get-state" }).textContent());
  assert.deepEqual(shown, example);
  await state.getByLabel("id", { exact: true }).fill("");
  await state.getByRole("button", { name: "Send" }).click();
  assert.equal(await state.getByLabel("id", { exact: true }).evaluate((e) => e.validity.valueMissing), true, "what is needed is asked for");
  await done(page);
});

test("a body is sent; what changes something says so", limit, async () => {
  const page = await reader("hub");
  await tokenInput(page).fill(tokenOf("hub", "administrator"));
  const add = await opened(page, "add-thing");
  await add.getByText("This is done for real.").waitFor();
  const body = add.getByRole("textbox", { name: /^Body/ });
  const evil = `<img src=x onerror="globalThis.owned=1">`;
  const example = JSON.parse(await body.inputValue());
  example.id = "tried";
  example.description.title = evil;
  await body.fill(JSON.stringify(example));
  assert.match(await add.getByRole("region", { name: /^curl/ }).textContent(), /-X POST .*--data-binary '\{"description".*onerror=.*"id":"tried"/);
  assert.match(await sent(add), /^201/);
  assert.ok(JSON.parse(await bodyOf(add)).password);
  const things = await opened(page, "list-things");
  assert.match(await sent(things), /^200/);
  assert.ok((await bodyOf(things)).includes("onerror"));
  assert.equal(await page.evaluate(() => globalThis.owned), undefined);
  assert.equal(await page.locator("main img").count(), 0);
  const check = await opened(page, "check");
  assert.equal(await check.getByText("This is done for real.").count(), 0);
  assert.match(await sent(check), /^200/);
  assert.equal(JSON.parse(await bodyOf(check)).permitted, true);
  await done(page);
});

test("what comes live is followed until it is stopped", limit, async () => {
  const page = await reader("clinic");
  await tokenInput(page).fill(tokenOf("clinic", "service"));
  const live = await opened(page, "watch-avatar");
  await live.getByLabel("id", { exact: true }).fill(town.access.avatars.find((a) => a.world === "clinic").id);
  assert.match(await sent(live), /^200/);
  await live.getByText(/^[2-9] events so far$/).waitFor();
  assert.match(await bodyOf(live), /^id: \S+\ndata: \[\{"/);
  await live.getByRole("button", { name: "Stop" }).click();
  await live.getByText("Stopped.").waitFor();
  await live.getByRole("button", { name: "Stop" }).waitFor({ state: "hidden" });
  await done(page);
});

test("what is on another listener is described, and not tried", limit, async () => {
  const page = await reader("vault");
  const put = await opened(page, "put-object");
  await put.getByText("a page can't try it").waitFor();
  await put.getByText(town.access.parties.find((p) => p.name === "vault").r2).waitFor();
  assert.equal(await put.getByRole("button").count(), 0);
  await done(page);
});

test("everything goes by keyboard, with a visible focus", limit, async () => {
  const page = await reader("clinic");
  const tabTo = async (what, most = 80) => {
    for (let i = 0; i < most; i++) {
      await page.keyboard.press("Tab");
      const f = await page.evaluate(() => {
        const e = document.activeElement;
        return { text: (e.labels?.[0] ?? e).textContent.trim(), tag: e.tagName, outline: getComputedStyle(e).outlineStyle };
      });
      if (f.tag !== "BODY") assert.notEqual(f.outline, "none", `the focus on ${f.tag} ${f.text} is seen`);
      if (what.test(f.text)) return f;
    }
    throw new Error(`no ${what} by Tab`);
  };
  await tabTo(/^Skip to the content$/);
  await tabTo(/^Token$/);
  await page.keyboard.type(tokenOf("clinic", "service"));
  await tabTo(/^Find an operation$/);
  await page.keyboard.type("newest measurement of each");
  await until("what was found", async () => (await page.locator("#operations li:visible").count()) < 4);
  await tabTo(/^GET \/v1\/avatars\/\{id\}\/state$/);
  await page.keyboard.press("Enter");
  const state = page.locator("#get-state");
  await state.getByRole("button", { name: "Send" }).waitFor();
  await tabTo(/^id$/);
  await page.keyboard.type(town.access.avatars.find((a) => a.world === "clinic").id);
  await page.keyboard.press("Enter");
  await state.locator(".status.good").waitFor();
  await done(page);
});

test("axe finds nothing, in light and dark, wide and on a phone", { timeout: 300_000 }, async () => {
  for (const colorScheme of ["light", "dark"]) {
    for (const width of [1280, 360]) {
      const page = await reader("arena", { colorScheme, viewport: { width, height: 800 } });
      await tokenInput(page).fill(tokenOf("arena", "service"));
      for (const id of ["list-avatars", "get-history", "take-share"]) {
        const op = await opened(page, id);
        if (id === "get-history") await op.getByLabel("id", { exact: true }).fill("0".repeat(32));
        await sent(op);
      }
      await page.locator("#schemas ~ article details").evaluateAll((all) => all.forEach((e) => (e.open = true)));
      await page.evaluate(axe);
      const found = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
      assert.deepEqual(found.violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.html).join(" ")}`), [], `${colorScheme} ${width}`);
      const wide = await page.evaluate(() => document.documentElement.scrollWidth);
      assert.ok(wide <= width, `at ${width} px it is ${wide} px wide`);
      await page.context().close(); // axe itself offends the policy
    }
  }
});

test("nothing is asked of anybody else, and no policy is offended", limit, () => {
  const own = new Set(town.access.parties.map((p) => new URL(p.http).host));
  assert.ok(town.requests.length > 20);
  const foreign = town.requests.filter((r) => !own.has(new URL(r).host));
  assert.deepEqual(foreign, []);
  assert.deepEqual(town.violations, []);
  assert.deepEqual(town.errors, []);
});

test("an avatar is read in TypeScript as docs/read-an-avatar.md has it", limit, async () => {
  const text = fs.readFileSync(path.join(root, "docs/read-an-avatar.md"), "utf8");
  const block = (language) => new RegExp("```" + language + "\n([^]*?)```").exec(text)[1];
  const code = block("ts");
  assert.ok(code.trimEnd().split("\n").length <= 10);
  // Its types are checked and taken out; the page's Node does the latter by itself.
  fs.writeFileSync(path.join(town.dir, "read.mts"), code);
  fs.writeFileSync(path.join(town.dir, "node.d.ts"), "declare const process: { env: Record<string, string | undefined> };\n");
  const tsc = path.join(root, "console/app/node_modules/typescript/bin/tsc");
  const built = spawnSync(process.execPath, [tsc, "--strict", "--target", "es2023", "--module", "esnext", "--lib", "es2023,dom,dom.iterable,dom.asynciterable", "read.mts", "node.d.ts"], { cwd: town.dir, encoding: "utf8" });
  assert.equal(built.status, 0, built.stdout + built.stderr);
  const run = spawn("sh", ["-c", `${block("sh")}exec "${process.execPath}" read.mjs`], { cwd: town.dir, stdio: ["ignore", "pipe", "inherit"] });
  try {
    let shown = "";
    for await (const piece of run.stdout) {
      shown += piece;
      if (/^data: \[/m.test(shown)) break;
    }
    assert.match(shown, /^heart_rate [\d.]+ \d+ beat\/min$/m);
    assert.match(shown, /^data: \[\{"b?n":"/m);
  } finally {
    run.kill("SIGKILL");
  }
});
