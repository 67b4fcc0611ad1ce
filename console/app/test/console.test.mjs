// The console as people use it, against a real demo in a real browser.
import assert from "node:assert/strict";
import fs from "node:fs";
import http from "node:http";
import { createRequire } from "node:module";
import path from "node:path";
import { after, before, test } from "node:test";

import { signIn, Town, until } from "./town.mjs";

const axe = fs.readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const town = new Town();
before(() => town.start(), { timeout: 90_000 });
after(() => town.stop(), { timeout: 60_000 });

const limit = { timeout: 120_000 };
const go = (page, name) => page.getByRole("navigation", { name: "Pages" }).getByRole("link", { name }).click();

test("a wrong password is refused, with what to do; many make one wait", limit, async () => {
  const page = await town.visitor();
  await page.goto(town.base);
  await signIn(page, "operator", "not the password");
  await page.getByText("There is no user with this name and password.").waitFor();
  assert.equal(await page.getByRole("alert").textContent().then((t) => /after 5 failures/i.test(t)), true);
  for (let i = 0; i < 5; i++) {
    const answered = page.waitForResponse((r) => r.url().endsWith("/session"));
    await signIn(page, "somebody", "not the password " + i);
    await answered;
  }
  const answered = page.waitForResponse((r) => r.url().endsWith("/session"));
  await signIn(page, "somebody", "not the password");
  assert.equal((await answered).status(), 429);
  await page.getByText("Too many attempts to sign in have failed.").waitFor();
  await page.getByText(/try again in \d+s/i).waitFor();
  await town.collect(page);
  await page.context().close();
});

test("the overview shows the parties, and what goes between them now", limit, async () => {
  const page = await town.signedIn();
  const picture = page.getByRole("img", { name: /Picture of the parties: .*hub, things agent; arena, world; citadel, world; clinic, world; vault, depot.*arena to citadel/ });
  await picture.waitFor();
  for (const id of ["devices>hub", "hub>arena", "hub>clinic", "hub>citadel", "hub>vault", "arena>citadel"]) {
    await until(`a rate from ${id}`, async () => /^(?!0 )[\d.]+ \w+\/s/.test(await page.locator(`[data-flow="${id}"]`).textContent()));
  }
  for (const name of ["hub", "arena", "citadel", "clinic", "vault"]) await page.getByRole("heading", { name: new RegExp(`^${name} `) }).waitFor();
  await town.collect(page);
  await page.context().close();
});

test("a thing's values arrive live in each world, as its view shows them", limit, async () => {
  const page = await town.signedIn();
  await go(page, "Things");
  const now = (world) => page.locator(`[data-world="${world}"][data-property="heart_rate"] .now`).textContent();
  await until("a heart rate in both worlds", async () => /^\d+ bpm$/.test(await now("arena")) && /^\d+ bpm$/.test(await now("clinic")));
  assert.equal(parseInt(await now("arena")) % 5, 0, "arena gets it to the nearest 5");
  const values = new Set();
  await until("another heart rate in clinic", async () => values.add(await now("clinic")).size > 1, 30_000);
  assert.equal((await page.locator('[data-world="arena"][data-property="stress"] .now').textContent()).trim(), "withheld");
  await page.locator('[data-world="arena"][data-property="stress"]').getByText(/withheld: not in view/).waitFor();
  // What comes by a share isn't called withheld.
  const shared = page.locator('[data-world="citadel"][data-property="heart_rate"]');
  await shared.getByText("From arena, by a share.").waitFor();
  await until("a heart rate by the share", async () => /^\d+ bpm$/.test(await now("citadel")));
  assert.ok(!/Heart_rate/.test(await shared.textContent()), "names are written as people write them");
  await page.getByText("No world gets").waitFor();
  await page.getByRole("img", { name: /heart rate, last two minutes.*arena: \d+ values.*clinic: \d+ values/ }).waitFor();
  await page.getByText("Heart rate as a table").click().catch(() => page.getByText("heart rate as a table").click());
  assert.ok((await page.locator(".values[open] tbody tr").count()) > 1);
  await town.collect(page);
  await page.context().close();
});

test("changing arena's view shows its effect", limit, async () => {
  const page = await town.signedIn("owner");
  await go(page, "Things");
  await page.getByRole("button", { name: "Change what arena gets" }).click();
  const dialog = page.getByRole("dialog", { name: "What arena gets" });
  await dialog.waitFor();
  const heart = dialog.getByRole("group", { name: "heart rate" });
  // What a party refuses is shown, and nothing is lost of what was typed.
  await heart.getByLabel("At most one each").fill("99999h");
  await heart.getByLabel("Nearest").fill("20");
  await dialog.getByRole("button", { name: "Save" }).click();
  await dialog.getByText("Not changed.").waitFor();
  await heart.getByLabel("At most one each").fill("1s");
  await dialog.getByRole("group", { name: "speed" }).getByRole("checkbox").uncheck();
  await dialog.getByRole("button", { name: "Save" }).click();
  await dialog.waitFor({ state: "detached" });
  await page.getByText(/Changed: arena gets by policy version \d+/).waitFor();
  const arena = page.locator('[data-world="arena"][data-property="heart_rate"]');
  await arena.getByText("to the nearest 20 bpm").waitFor();
  await until("a heart rate to the nearest 20", async () => parseInt(await arena.locator(".now").textContent()) % 20 === 0);
  await page.locator('[data-world="arena"][data-property="speed"]').getByText(/withheld: the view does not name it/).waitFor();
  // It had some: what it keeps is said not to be given any more, here and with the avatar.
  await page.locator('[data-world="arena"][data-property="speed"] .no-longer').waitFor();
  const thing = await town.ask("hub", "GET", `/v1/things/${town.access.things[0].id}`);
  const view = thing.mappings.find((m) => m.world === "arena").owner_view;
  assert.deepEqual(view, { properties: { heart_rate: { round: 20, rate: "1s" } }, purposes: ["fitness"] });
  await town.collect(page);
  await page.context().close();
});

test("an avatar's state is live, its history can be looked into", limit, async () => {
  const page = await town.signedIn();
  await go(page, "Avatars");
  await page.getByRole("link", { name: /patient\s*in clinic/ }).click();
  await page.getByRole("heading", { name: "patient in clinic" }).waitFor();
  await page.getByText("Live", { exact: true }).waitFor();
  const state = page.locator('[data-state="heart_rate"] .value');
  const values = new Set();
  await until("another heart rate", async () => values.add(await state.textContent()).size > 1, 30_000);
  await page.getByLabel("Property").selectOption("heart_rate");
  const range = page.locator("[data-range]");
  await until("values in the last 5 minutes", async () => parseInt(/, ([\d,]+) values/.exec(await range.textContent())?.[1]) > 3);
  const plot = page.getByRole("img", { name: /^heart rate from/ });
  await plot.waitFor();
  assert.match(await range.textContent(), /to now/);
  // By mouse: a stretch is drawn over the right half.
  const box = await plot.boundingBox();
  await page.mouse.move(box.x + box.width * 0.6, box.y + 80);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * 0.9, box.y + 90, { steps: 6 });
  await page.mouse.up();
  await until("the drawn stretch", async () => !/to now/.test(await range.textContent()));
  assert.equal(await page.getByLabel("Follow").isChecked(), false);
  // By button and key.
  const before = await range.textContent();
  await page.getByRole("button", { name: "Zoom out" }).press("Enter");
  await until("another stretch", async () => (await range.textContent()) !== before);
  await page.getByRole("button", { name: "5 min" }).press("Space");
  await until("following again", async () => /to now/.test(await range.textContent()));
  await page.locator(".values summary").click();
  assert.ok((await page.locator(".values[open] tbody tr").count()) > 3);
  await town.collect(page);
  await page.context().close();
});

test("peers are told by the parties; grants and shares are shown where a world has them", limit, async () => {
  const page = await town.signedIn();
  await page.getByRole("list", { name: "Peers of hub" }).getByText("vault").waitFor();
  const { id } = town.access.avatars.find((a) => a.world === "arena");
  // The demo's own: arena gives, citadel takes.
  await page.goto(`${town.base}/#/avatars/arena/${id}`);
  await page.getByRole("region", { name: "Grants", exact: true }).getByText(/in citadel$/).waitFor();
  await page.getByRole("row", { name: /gives to citadel heart rate, speed fitness .* in force to end it: carnet owner withdraw [0-9a-f-]{36}/ }).waitFor();
  await page.goto(`${town.base}/#/avatars/citadel/${town.access.avatars.find((a) => a.world === "citadel").id}`);
  await page.getByRole("row", { name: /takes from arena heart rate, speed fitness .* in force/ }).waitFor();
  await page.locator('[data-state="speed"] .value').waitFor();
  const says = (what) => (route) => route.fulfill({ status: 200, contentType: "application/json", body: JSON.stringify(what) });
  const view = { properties: { heart_rate: { round: 5 } } };
  await page.route(`**/api/arena/v1/avatars/${id}/grants`, says({ grants: [
    { id: "1", version: 1, avatar: id, to: { application: "coach" }, actions: ["read", "subscribe"], view, purpose: "coaching", expires: "2027-06-01T00:00:00Z", by: "operator", given: "2026-11-28T00:00:00Z" },
  ] }));
  await page.route(`**/api/arena/v1/avatars/${id}/shares`, says({ shares: [{ id: "3", direction: "giving", state: "giving", world: "citadel", ours: id, theirs: id, purpose: "fitness", view, onward: false, begun: "2026-11-28T00:00:00Z", waits: false, held: "the peering with citadel is suspended here" }] }));
  await page.goto(`${town.base}/#/avatars/arena/${id}`);
  const grants = page.getByRole("region", { name: "Grants", exact: true }).last();
  await grants.getByText("application coach").waitFor();
  await page.getByRole("cell", { name: "gives to citadel" }).waitFor();
  await page.getByText("held: the peering with citadel is suspended here").waitFor();
  await page.context().close();
});

test("a move is shown step by step: called off, ordered, over, with its proof", limit, async () => {
  const view = path.join(town.dir, "view.json");
  fs.writeFileSync(view, '{"properties":{"heart_rate":{},"speed":{}},"purposes":["fitness"]}');
  const { avatar } = JSON.parse(town.carnet("thing", "map", town.access.things[0].id, "--world", "arena", "--view", view, "--title", "Second runner", "--json", ...town.owner));
  await until("measurements of the second avatar", async () => (await town.ask("arena", "GET", `/v1/avatars/${avatar}`)).measurements > 0);
  const begin = (file) => JSON.parse(town.carnet("avatar", "move", avatar, "--from", "arena", "--to", "citadel", "--request", file, "--json"));
  const page = await town.signedIn();
  await go(page, "Crossings");
  await page.getByText("Nothing has moved yet.").waitFor();

  const first = begin("first.json");
  await page.goto(`${town.base}/#/crossings/${first.id}`);
  await page.getByRole("heading", { name: "Second runner from arena to citadel" }).waitFor();
  await page.getByText("Its owner hasn’t ordered it yet.").waitFor();
  const wanted = page.waitForEvent("download");
  await page.getByRole("button", { name: "Get the request" }).click();
  assert.deepEqual(JSON.parse(fs.readFileSync(await (await wanted).path(), "utf8")), JSON.parse(fs.readFileSync(path.join(town.dir, "first.json"), "utf8")));
  await page.getByRole("button", { name: "Call it off" }).click();
  await page.getByRole("button", { name: "Let it go on" }).click();
  assert.equal((await town.ask("citadel", "GET", `/v1/crossings/${first.id}`)).state, "asked", "nobody was sure");
  await page.getByRole("button", { name: "Call it off" }).click();
  await page.getByRole("button", { name: "Yes, it stays in arena" }).click();
  await page.getByText("It stays in arena.", { exact: true }).waitFor();
  await page.getByText("Called off by operator.").waitFor();
  assert.equal((await town.ask("citadel", "GET", `/v1/crossings/${first.id}`)).state, "dropped");

  // While it is copied: progress, and what it waits for, as a world tells them.
  const second = begin("second.json");
  const copying = {
    ...second, state: "copying", steps: [{ state: "asked", time: second.begun }, { state: "copying", time: second.begun }],
    progress: { stretches: 1, of: 4, bytes: 1_000_000, of_bytes: 4_000_000, since: second.begun, fetched: 1_000_000, waits: "arena doesn't answer" },
  };
  await page.route("**/api/citadel/v1/crossings", (r) => r.fulfill({ status: 200, contentType: "application/json", body: JSON.stringify({ crossings: [copying] }) }));
  await page.goto(`${town.base}/#/crossings/${second.id}`);
  await page.getByRole("progressbar", { name: "Copied: 1.0 MB of 4.0 MB" }).waitFor();
  await page.getByText("It waits, and is tried again: Arena doesn't answer.").waitFor();
  await page.unroute("**/api/citadel/v1/crossings");

  town.carnet("owner", "approve", "second.json", "--party", "citadel", "--yes", ...town.owner);
  for (const step of ["ordered", "copied", "fixed", "checked", "decided", "home", "cleared"]) await page.locator(`[data-step="${step}"].done`).waitFor();
  await page.getByText("It lives in citadel now.", { exact: true }).waitFor();
  await page.getByText(/^it kept still for [\d.]+ s$/).waitFor();
  const told = await town.ask("citadel", "GET", `/v1/crossings/${second.id}`);
  assert.ok(told.amount.measurements > 0);
  await page.getByRole("region", { name: "What moved" }).getByText(String(told.amount.measurements), { exact: true }).first().waitFor();
  await page.getByText("Every batch has been opened at its new home, and fits.").waitFor();
  for (const name of ["decision", "departure"]) {
    const got = page.waitForEvent("download");
    await page.getByRole("row", { name: new RegExp(`^${name}`) }).getByRole("button", { name: "Get it" }).click();
    assert.equal(fs.readFileSync(await (await got).path(), "utf8"), told[name], `the ${name} as citadel has it`);
  }
  assert.equal(await page.getByRole("button", { name: "Call it off" }).count(), 0, "it is over");
  await town.collect(page);
  await page.context().close();
});

test("what devices and descriptions say is text, whatever it says", limit, async () => {
  const evil = `<img src=x onerror="globalThis.owned=1"><script>globalThis.owned=1</script>`;
  const description = {
    "@context": "https://www.w3.org/2022/wot/td/v1.1", title: evil, securityDefinitions: { none: { scheme: "nosec" } }, security: "none",
    properties: { heart_rate: { type: "number", unit: evil.slice(0, 40), forms: [{ href: "x" }] } },
  };
  const added = await town.ask("hub", "POST", "/v1/things", { owner: "owner", description }).catch(async () => {
    // A unit that isn't one may be refused: then the title alone.
    description.properties.heart_rate.unit = "beat/min";
    return town.ask("hub", "POST", "/v1/things", { owner: "owner", description });
  });
  const sent = [JSON.stringify([{ n: evil, v: 1 }]), JSON.stringify([{ n: "heart_rate", vs: evil }]), evil];
  for (const payload of sent) town.publish(payload);
  const page = await town.signedIn();
  await go(page, "Things");
  await page.getByRole("navigation", { name: "Things" }).getByRole("link").filter({ hasText: "Watch" }).click();
  await page.getByRole("region", { name: "Refused messages, newest first" }).waitFor();
  await until("the refused messages", async () => (await page.locator(".sent").allTextContents()).filter((t) => t.includes("onerror")).length >= 2);
  await page.getByRole("link", { name: evil }).click();
  await page.getByRole("heading", { name: evil }).waitFor();
  assert.equal(await page.evaluate(() => globalThis.owned), undefined);
  assert.equal(await page.locator("#app img, #app script").count(), 0);
  await page.goto(`${town.base}/#/things/hub/${encodeURIComponent(evil)}`);
  await page.getByText("There is no such thing.").waitFor();
  await page.goto(`${town.base}/#/${encodeURIComponent(evil)}/%E0%A4%A`);
  await page.getByText("There is no such page.").waitFor();
  assert.equal(await page.evaluate(() => globalThis.owned), undefined);
  assert.ok(added.id);
  await town.collect(page);
  await page.context().close();
});

test("an owner sees what an owner may", limit, async () => {
  const page = await town.signedIn("owner");
  // Nothing is asked for that is surely refused.
  const refused = [];
  page.on("response", (r) => r.status() >= 400 && refused.push(`${r.status()} ${r.url()}`));
  await page.reload();
  await page.getByText("owner has no token for vault").waitFor();
  await page.getByText("As user, owner may not see how hub is.").waitFor();
  await until("a rate of the owner's own things", async () => /^(?!0 )[\d.]+ \w+\/s/.test(await page.locator('[data-flow="hub>clinic"]').textContent()));
  assert.match(await page.locator('[data-flow="arena>citadel"]').textContent(), /1 share/);
  await go(page, "Things");
  await page.goto(`${town.base}/#/things/hub/${town.access.things[0].id}`);
  await page.getByText(/Shared on to citadel: heart rate, speed, for fitness, since /).waitFor();
  await go(page, "Crossings");
  await page.getByText("Nothing to show you here.").waitFor();
  await go(page, "Avatars");
  await page.getByRole("heading", { name: "State" }).waitFor();
  const { id } = town.access.avatars.find((a) => a.world === "arena");
  await page.goto(`${town.base}/#/avatars/arena/${id}`);
  await page.getByRole("row", { name: /gives to citadel/ }).waitFor();
  await page.getByRole("region", { name: "Grants", exact: true }).getByText(/in citadel$/).waitFor();
  await page.locator('[data-state="speed"]').getByText("no longer given").waitFor();
  assert.equal(await page.locator('[data-state="heart_rate"]').getByText("no longer given").count(), 0);
  await page.waitForTimeout(6000); // what is asked again and again, too
  assert.deepEqual(refused, []);
  await page.locator("summary").filter({ hasText: "owner" }).click();
  await page.getByText("Signed in as owner, user").waitFor();
  await town.collect(page);
  await page.context().close();
});

test("an auditor sees how things are, and reads and changes nothing", limit, async () => {
  const page = await town.signedIn("auditor");
  await page.locator('[data-flow="hub>arena"]').waitFor();
  await go(page, "Things");
  await page.getByRole("navigation", { name: "Things" }).getByRole("link").filter({ hasText: "Watch" }).click();
  await page.getByText("auditor may not read in arena, so its values aren’t shown").waitFor();
  await page.locator('[data-world="clinic"][data-property="heart_rate"]').getByText("not shown to you").waitFor();
  assert.equal(await page.getByRole("button", { name: /Change what/ }).count(), 0);
  await go(page, "Avatars");
  await page.getByText("Not for this role.").waitFor();
  await page.context().close();
});

test("what fails is said, with what to do, and passes", limit, async () => {
  const page = await town.signedIn();
  const gone = (route) => route.fulfill({ status: 502, contentType: "application/problem+json", body: JSON.stringify({ title: "Bad Gateway", status: 502, detail: "arena does not answer", fix: "see whether it runs", code: "unavailable", from: "console" }) });
  await page.route("**/api/arena/**", gone);
  await page.getByText("arena does not answer").waitFor();
  await page.getByText("See whether it runs.").waitFor();
  await page.getByRole("img", { name: /arena, world, does not answer/ }).waitFor();
  await page.unroute("**/api/arena/**", gone);
  await until("arena again", async () => (await page.getByText("arena does not answer").count()) === 0);
  await page.route("**/api/**", (route) => route.abort());
  await page.getByText("The console does not answer.").first().waitFor();
  await page.context().close();
});

test("everything goes by keyboard, with a visible focus", limit, async () => {
  const page = await town.visitor();
  await page.goto(town.base);
  const focus = () => page.evaluate(() => {
    const e = document.activeElement;
    return { text: (e.getAttribute("aria-label") ?? e.textContent).trim(), tag: e.tagName, outline: getComputedStyle(e).outlineStyle, name: e.getAttribute("name") };
  });
  const tabTo = async (what, most = 40) => {
    for (let i = 0; i < most; i++) {
      await page.keyboard.press("Tab");
      const f = await focus();
      if (f.tag !== "BODY") assert.notEqual(f.outline, "none", `the focus on ${f.tag} ${f.text} is seen`);
      if (what.test(f.text) || what.test(f.name ?? "")) return f;
    }
    throw new Error(`no ${what} by Tab`);
  };
  assert.equal((await focus()).name, "name", "the sign-in begins at the name");
  await page.keyboard.type("operator");
  await tabTo(/^password$/);
  await page.keyboard.type(town.password);
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "Overview" }).waitFor();
  await tabTo(/^Skip to the content$/);
  await page.keyboard.press("Enter");
  assert.equal((await focus()).tag, "MAIN");
  await page.keyboard.press("Shift+Tab");
  await page.evaluate(() => document.activeElement.blur());
  await tabTo(/^Things$/);
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "Things", level: 1 }).waitFor();
  // Another page begins at its beginning, as soon as it has been drawn.
  await page.waitForFunction(() => document.activeElement.tagName === "MAIN");
  await page.getByRole("navigation", { name: "Things" }).waitFor();
  await tabTo(/Watch/);
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "Watch" }).waitFor();
  await tabTo(/^Change what clinic gets$/);
  await page.keyboard.press("Enter");
  const dialog = page.getByRole("dialog", { name: "What clinic gets" });
  await dialog.waitFor();
  assert.ok(await page.evaluate(() => document.querySelector("dialog").contains(document.activeElement)), "the focus is in the dialog");
  await page.keyboard.press("Escape");
  await dialog.waitFor({ state: "detached" });
  assert.match((await focus()).text, /^Change what clinic gets$/, "the focus is back");
  await page.evaluate(() => document.activeElement.blur());
  await tabTo(/account$/);
  await page.keyboard.press("Enter");
  await tabTo(/^SystemLightDark$/);
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("ArrowDown");
  await until("the dark theme", () => page.evaluate(() => document.documentElement.dataset.theme === "dark"));
  await page.reload();
  await page.getByRole("heading", { name: "Things", level: 1 }).waitFor();
  assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), "dark", "the theme stays");
  await tabTo(/account$/);
  await page.keyboard.press("Enter");
  await tabTo(/^Sign out$/);
  await page.keyboard.press("Enter");
  await page.getByRole("button", { name: "Sign in" }).waitFor();
  await town.collect(page);
  await page.context().close();
});

test("axe finds no violation on any page, in both themes", { timeout: 240_000 }, async () => {
  const check = async (page, what) => {
    const found = await page.evaluate(
      async ([source]) => {
        if (!globalThis.axe) (0, eval)(globalThis.trustedTypes ? trustedTypes.createPolicy("axe", { createScript: (s) => s }).createScript(source) : source);
        const r = await globalThis.axe.run(document, { resultTypes: ["violations"] });
        return r.violations.map((v) => `${v.id}: ${v.help}\n${v.nodes.map((n) => n.html.slice(0, 200) + "\n  " + n.failureSummary).join("\n")}`);
      },
      [axe],
    );
    assert.deepEqual(found, [], `axe on ${what}`);
  };
  for (const colorScheme of ["light", "dark"]) {
    const page = await town.visitor({ colorScheme, bypassCSP: true });
    await page.goto(town.base);
    await page.getByRole("button", { name: "Sign in" }).waitFor();
    await check(page, `the sign-in, ${colorScheme}`);
    await signIn(page, "operator", "not the password");
    await page.getByText("There is no user").waitFor();
    await check(page, `a failed sign-in, ${colorScheme}`);
    await signIn(page, "operator", town.password);
    await page.locator('[data-flow="hub>arena"]').waitFor();
    await check(page, `the overview, ${colorScheme}`);
    await page.locator("summary").filter({ hasText: "operator" }).click();
    await page.getByRole("button", { name: "Sign out everywhere" }).waitFor();
    await check(page, `the account, ${colorScheme}`);
    await go(page, "Things");
    await page.getByRole("navigation", { name: "Things" }).getByRole("link").filter({ hasText: "Watch" }).click();
    await page.getByRole("img", { name: /heart rate, last two minutes/ }).waitFor();
    await page.locator(".values summary").first().click();
    await check(page, `a thing, ${colorScheme}`);
    await page.getByRole("button", { name: "Change what arena gets" }).click();
    await page.getByRole("dialog").waitFor();
    await page.locator("dialog details summary").click();
    await check(page, `changing a view, ${colorScheme}`);
    await page.keyboard.press("Escape");
    await go(page, "Avatars");
    await page.getByRole("img", { name: /from/ }).waitFor();
    await page.locator(".values summary").click();
    await check(page, `an avatar, ${colorScheme}`);
    await go(page, "Crossings");
    await page.locator('[data-step="cleared"].done').waitFor();
    await check(page, `a crossing, ${colorScheme}`);
    await page.goto(`${town.base}/#/nowhere`);
    await page.getByText("There is no such page.").waitFor();
    await check(page, `no page, ${colorScheme}`);
    await page.context().close();
  }
});

/** Which of the picture's words and lights lie on one another; asked in the page. */
function coveredInPicture() {
  const all = [...document.querySelectorAll(".picture svg :is(.label rect, .node text, .node circle)")].map((e) => ({ e, box: e.getBoundingClientRect() }));
  const meet = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
  const lines = (a, b) => a.parentNode === b.parentNode && a.tagName === b.tagName; // of one text
  return all.flatMap((a, i) => all.slice(i + 1).filter((b) => meet(a.box, b.box) && !lines(a.e, b.e)).map((b) => `${a.e.parentNode.textContent} | ${b.e.parentNode.textContent}`));
}

test("nothing is wider than a phone", limit, async () => {
  const page = await town.visitor({ viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true });
  await page.goto(town.base);
  const fits = async (what) => {
    const width = await page.evaluate(() => document.documentElement.scrollWidth);
    assert.ok(width <= 360, `${what} is ${width} wide`);
  };
  await page.getByRole("button", { name: "Sign in" }).waitFor();
  await fits("the sign-in");
  await signIn(page, "operator", town.password);
  await page.locator('[data-flow="hub>arena"]').waitFor();
  await fits("the overview");
  await page.locator('[data-flow="arena>citadel"]').waitFor();
  const flows = await page.locator("[data-flow]").evaluateAll((all) => all.filter((f) => !f.dataset.flow.endsWith("people and programs")).length);
  assert.equal(await page.locator(".picture .way").count(), flows, "every flow between parties is drawn on a phone, too");
  for (const width of [390, 360]) {
    const drawn = async () => (await page.locator(".picture svg").boundingBox()).width;
    const before = await drawn();
    await page.setViewportSize({ width, height: 740 });
    await until("the picture in another width", async () => (await drawn()) !== before);
    assert.deepEqual(await page.evaluate(coveredInPicture), [], `at ${width} nothing in the picture covers something else`);
  }
  await page.locator("summary").filter({ hasText: "operator" }).tap();
  await page.getByRole("button", { name: "Sign out everywhere" }).waitFor();
  await fits("the account");
  await page.keyboard.press("Escape");
  await go(page, "Things");
  await page.getByRole("navigation", { name: "Things" }).getByRole("link").filter({ hasText: "Watch" }).tap();
  await page.getByRole("img", { name: /heart rate, last two minutes/ }).waitFor();
  await fits("a thing");
  await page.getByRole("button", { name: "Change what arena gets" }).tap();
  await page.getByRole("dialog").waitFor();
  await fits("changing a view");
  assert.ok((await page.getByRole("dialog").boundingBox()).width <= 360);
  await page.getByRole("dialog").getByRole("button", { name: "Cancel" }).tap();
  await go(page, "Avatars");
  await page.getByRole("img", { name: /from/ }).waitFor();
  await fits("an avatar");
  await go(page, "Crossings");
  await page.locator('[data-step="cleared"].done').waitFor();
  await fits("a crossing");
  await town.collect(page);
  await page.context().close();
});

test("a page of another origin can neither ask nor change anything", limit, async () => {
  const page = await town.signedIn();
  // Another port of the same host: the browser sends it the cookie, and calls it same-site.
  let stolen = "";
  const attack = http.createServer((r, w) => {
    stolen = r.headers.cookie ?? stolen;
    w.setHeader("Content-Type", "text/html");
    w.end("<!doctype html><title>x</title>");
  });
  await new Promise((done) => attack.listen(0, "127.0.0.1", done));
  const from = `http://127.0.0.1:${attack.address().port}/`;
  try {
    const other = await page.context().newPage();
    await other.goto(from);
    assert.match(stolen, /carnet-\d+=/, "the browser gives a host's cookies to each of its ports");
    const done = await other.evaluate(async (base) => {
      const tried = {};
      const attempt = async (name, f) => { try { tried[name] = await f(); } catch (e) { tried[name] = "failed"; } };
      await attempt("ask", async () => (await fetch(base + "/api/hub/v1/things", { credentials: "include" })).text());
      await attempt("opaque", async () => (await fetch(base + "/session", { mode: "no-cors", credentials: "include" })).type);
      await attempt("sign out", async () => (await fetch(base + "/sessions", { method: "DELETE", credentials: "include" })).status);
      await attempt("post", async () => (await fetch(base + "/session", { method: "POST", mode: "no-cors", credentials: "include", body: "{}" })).type);
      await attempt("socket", () => new Promise((done, no) => {
        const s = new WebSocket(base.replace("http", "ws") + "/api/arena/v1/avatars/x/live");
        s.onopen = () => done("open");
        s.onerror = () => no(new Error());
      }));
      await attempt("frame", () => new Promise((done) => {
        const f = document.createElement("iframe");
        f.src = base;
        f.onload = () => done(f.contentDocument === null ? "blocked" : "read");
        document.body.append(f);
      }));
      await attempt("image", () => new Promise((done, no) => {
        const i = new Image();
        i.onload = () => done("shown");
        i.onerror = () => no(new Error());
        i.src = base + "/icon.svg";
      }));
      return tried;
    }, town.base);
    assert.equal(done.ask, "failed");
    assert.equal(done["sign out"], "failed");
    assert.equal(done.socket, "failed");
    assert.notEqual(done.frame, "read");
    assert.equal(done.image, "failed");
    // The stolen cookie, outside of any browser.
    const answer = await fetch(town.base + "/session", { headers: { Cookie: stolen } });
    assert.equal(answer.status, 401);
    await other.close();
    await go(page, "Things");
    await page.getByRole("heading", { name: "What each world gets" }).waitFor();
  } finally {
    attack.close();
  }
  town.requests = town.requests.filter((u) => !u.startsWith(from));
  await page.context().close();
});

test("no token, and no secret of the session that scripts needn't have, is in the page", limit, async () => {
  const page = await town.visitor();
  const bodies = [];
  page.on("response", async (r) => bodies.push(JSON.stringify(r.headers()) + (await r.text().catch(() => ""))));
  await page.goto(town.base);
  await signIn(page, "operator", town.password);
  await page.locator('[data-flow="hub>arena"]').waitFor();
  await go(page, "Things");
  await page.getByRole("heading", { name: "What each world gets" }).waitFor();
  assert.equal(await page.evaluate(() => document.cookie), "");
  const kept = await page.evaluate(() => JSON.stringify({ ...localStorage, ...sessionStorage }));
  for (const t of town.access.tokens) {
    assert.ok(!kept.includes(t.token) && bodies.every((b) => !b.includes(t.token)), `the token of ${t.name} at ${t.party}`);
  }
  assert.ok(bodies.length > 5);
  await page.context().close();
});

test("signing out everywhere reaches every browser", limit, async () => {
  const here = await town.signedIn("operator", {}, true);
  const there = await town.signedIn("operator", {}, true);
  await go(there, "Avatars");
  await there.getByText("Live", { exact: true }).waitFor();
  await here.locator("summary").filter({ hasText: "operator" }).click();
  await here.getByRole("button", { name: "Sign out everywhere" }).click();
  await here.getByRole("button", { name: "Sign in" }).waitFor();
  await there.getByRole("button", { name: "Sign in" }).waitFor();
  await there.getByRole("alert").getByText(/sign in/i).waitFor();
  await here.goBack().catch(() => {});
  await here.goto(town.base + "/#/things");
  await here.getByRole("button", { name: "Sign in" }).waitFor();
  await here.context().close();
  await there.context().close();
});

test("no request left for elsewhere, and nothing broke the policy", () => {
  const host = new URL(town.base).host;
  assert.ok(town.requests.length > 100);
  assert.deepEqual(town.requests.filter((u) => new URL(u).host !== host), []);
  assert.deepEqual(town.violations, []);
  assert.deepEqual(town.errors, []);
});
