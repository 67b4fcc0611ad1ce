// The console as people use it, against a real demo in a real browser.
import assert from "node:assert/strict";
import crypto from "node:crypto";
import fs from "node:fs";
import http from "node:http";
import { createRequire } from "node:module";
import path from "node:path";
import { after, before, test } from "node:test";

import { moduleThatSays } from "./module.mjs";
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
  // Somebody reads an avatar live, for R4.
  const reading = await town.signedIn();
  await go(reading, "Avatars");
  await reading.getByRole("link", { name: /patient\s*in clinic/ }).click();
  for (const id of ["devices>hub", "hub>arena", "hub>clinic", "hub>citadel", "hub>vault", "arena>vault", "clinic>vault", "citadel>vault", "arena>citadel"]) {
    await until(`a rate from ${id}`, async () => /^(?!0 )[\d.]+ \w+\/s/.test(await page.locator(`[data-flow="${id}"]`).textContent()));
  }
  await until("the subscription", async () => /^[1-9]\d* live subscriptions?$/.test(await page.locator('[data-flow="clinic>people and programs"]').textContent()));
  await page.getByText("Answers and events are what avatars of one world are given of each other under grants (R3)").waitFor();
  await until("a rate of what readers are given", async () => /^(?!0 )[\d.]+ answers and events\/s$/.test(await page.locator('[data-flow="clinic>people and programs/given"]').textContent()));
  // Nobody has jobs at a DPM here, and no avatar reads another: that is said, too.
  await until("what avatars read of each other", async () => /^0 answers and events\/s$/.test(await page.locator('[data-flow="clinic>its own avatars, of each other"]').textContent()));
  await reading.context().close();
  for (const name of ["hub", "arena", "citadel", "clinic", "vault"]) await page.getByRole("heading", { name: new RegExp(`^${name} `) }).waitFor();
  // What citadel has by its share didn't come from the hub.
  const sent = async () => {
    const mappings = (await town.ask("hub", "GET", "/v1/things")).things.flatMap((t) => t.mappings);
    return mappings.filter((m) => m.world === "citadel").flatMap((m) => m.got).reduce((n, g) => n + g.sent, 0);
  };
  await until("much by the share", async () => (await town.ask("citadel", "GET", "/v1/status")).world.measurements > 30 + (await sent()));
  const row = page.getByRole("row").filter({ has: page.locator('[data-flow="hub>citadel"]') });
  const before = await sent();
  let all = 0;
  await until("a newer count", async () => (all = Number((await row.locator("td").last().textContent()).replaceAll(",", ""))) >= before);
  assert.ok(all <= (await sent()), `${all} in all, where the hub sent ${await sent()}`);
  await town.collect(page);
  await page.context().close();
});

test("of one there is one", limit, async () => {
  const page = await town.signedIn();
  const figure = (party, label) => page.locator(".card").filter({ has: page.getByRole("heading", { name: new RegExp(`^${party} `) }) }).locator(".figure").filter({ has: page.getByText(label, { exact: true }) });
  for (const [label, n] of [["thing", 1], ["things", 2]]) {
    const status = await town.ask("hub", "GET", "/v1/status");
    await page.route("**/api/hub/v1/status", (route) => route.fulfill({ status: 200, contentType: "application/json", body: JSON.stringify({ ...status, things: { ...status.things, things: n } }) }));
    await figure("hub", label).getByText(String(n), { exact: true }).waitFor();
  }
  await go(page, "Avatars");
  await page.getByRole("link", { name: /patient\s*in clinic/ }).click();
  await page.getByRole("heading", { name: "patient in clinic" }).waitFor();
  const [{ streams }] = (await town.ask("clinic", "GET", "/v1/avatars")).avatars;
  assert.equal(streams, 1);
  await page.locator(".figure").getByText("stream", { exact: true }).waitFor();
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
  assert.equal(await shared.locator(".how-exactly").textContent(), "as arena has it", "it is rounded there");
  await until("a heart rate by the share", async () => /^\d+ bpm$/.test(await now("citadel")));
  assert.ok(!/Heart_rate/.test(await shared.textContent()), "names are written as people write them");
  await page.getByText("No world gets").waitFor();
  await page.getByRole("img", { name: /heart rate, last two minutes.*arena: \d+ values.*clinic: \d+ values/ }).waitFor();
  await page.getByText("Heart rate as a table").click().catch(() => page.getByText("heart rate as a table").click());
  assert.ok((await page.locator(".values[open] tbody tr").count()) > 1);
  await town.collect(page);
  await page.context().close();
});

test("plots begin with what was before; what is silent says so; the thing that sends is shown first", limit, async () => {
  const description = {
    "@context": ["https://www.w3.org/2022/wot/td/v1.1", { carnet: "urn:carnet:td#" }], title: "A band", securityDefinitions: { none: { scheme: "nosec" } }, security: "none",
    properties: { heart_rate: { type: "number", unit: "beat/min", "carnet:sensitivity": ["personal", "health"], "carnet:linger": "PT0S", forms: [{ href: "x" }] } },
  };
  const band = await town.ask("hub", "POST", "/v1/things", { owner: "owner", description });
  const { avatar } = await town.ask("hub", "POST", `/v1/things/${band.id}/mappings`, { world: "clinic", view: { properties: { heart_rate: {} }, purposes: ["care"] } });
  const sent = town.publish(JSON.stringify([{ n: "heart_rate", u: "beat/min", v: 61, t: Date.now() / 1000 - 300 }]), { id: band.id, password: band.password });
  assert.equal(sent.status, 0, String(sent.stderr));
  await until("the band's heart rate", async () => (await town.ask("clinic", "GET", `/v1/avatars/${avatar}`)).measurements === 1);
  const clinic = town.access.avatars.find((a) => a.world === "clinic").id;
  await until("a minute of history", async () => Date.now() - Date.parse((await town.ask("clinic", "GET", `/v1/avatars/${clinic}`)).created) > 45_000, 60_000);
  const page = await town.signedIn("owner");
  const byName = async (route) => {
    const answer = await route.fetch();
    const all = await answer.json();
    await route.fulfill({ response: answer, json: { ...all, things: all.things.sort((a, b) => a.title.localeCompare(b.title)) } });
  };
  await page.route("**/api/hub/v1/things", (route) => byName(route).catch(() => {})); // the page may be gone
  await go(page, "Things");
  await page.getByRole("heading", { name: "Watch", exact: true }).waitFor();
  const names = await page.getByRole("navigation", { name: "Things" }).locator(".title").allTextContents();
  assert.equal(names[0], "A band", "others are before it in the list");
  const plot = page.getByRole("img", { name: /heart rate, last two minutes.*clinic: \d+ values/ });
  await plot.waitFor();
  const count = parseInt(/clinic: (\d+) values/.exec(await plot.getAttribute("aria-label"))[1]);
  assert.ok(count > 30, `${count} values of 45 s are drawn at first`);
  await page.getByRole("link", { name: "A band" }).click();
  await page.getByText(/^Nothing came in the last two minutes; the last was measured [56] min ago\. See the history$/).waitFor();
  assert.equal(await page.locator(".property .plot").count(), 0);
  // The avatar has no title: it is called by its thing, for whom the agent shows that.
  await page.getByRole("link", { name: "Its avatar" }).click();
  await page.getByRole("heading", { name: "A band in clinic" }).waitFor();
  await page.getByRole("link", { name: /^A band\s*in clinic/ }).waitFor();
  await go(page, "Story");
  const told = page.getByRole("region", { name: "What happened" });
  await told.getByText("A band became an avatar in clinic.").waitFor();
  await told.getByText(/let clinic have heart rate of A band\.$/).waitFor();
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
  await heart.getByText("a time, such as 10s, 5m or 1h").waitFor();
  // What a party refuses is shown, and nothing is lost of what was typed.
  await heart.getByLabel("At most one per").fill("99999h");
  await heart.getByLabel("Nearest").fill("20");
  await dialog.getByRole("button", { name: "Save" }).click();
  await dialog.getByText("Not changed.").waitFor();
  await heart.getByLabel("At most one per").fill("1s");
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
  // And what arena shared of it on: citadel isn't told anything of arena's view but this.
  await page.locator('[data-world="citadel"][data-property="speed"]').getByText(/^No longer given, since arena isn’t given it any more; the last it got, /).waitFor();
  await page.getByText(/Shared on to citadel: heart rate, for fitness, .* No longer speed, since arena isn’t given that\./).waitFor();
  const citadel = town.access.avatars.find((a) => a.world === "citadel").id;
  assert.deepEqual((await town.ask("citadel", "GET", `/v1/avatars/${citadel}`)).withdrawn, ["speed"]);
  const operator = await town.signedIn();
  await operator.goto(`${town.base}/#/avatars/citadel/${citadel}`);
  await operator.locator('[data-state="speed"]').getByText(/, no longer given$/).waitFor();
  assert.equal(await operator.locator('[data-state="heart_rate"]').getByText("no longer given").count(), 0);
  await operator.getByRole("row", { name: /takes from arena heart rate not now speed: arena isn’t given that, or it may not come here/ }).waitFor();
  await operator.context().close();
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
  await page.getByRole("row", { name: /gives to citadel heart rate not now speed: it isn’t given that, or citadel may not have it fitness .* in force to end it: carnet owner withdraw [0-9a-f-]{36} --keystore FILE$/ }).waitFor();
  await page.goto(`${town.base}/#/avatars/citadel/${town.access.avatars.find((a) => a.world === "citadel").id}`);
  await page.getByRole("row", { name: /takes from arena heart rate not now speed: arena isn’t given that, or it may not come here fitness .* in force/ }).waitFor();
  await page.locator('[data-state="speed"] .value').waitFor();
  const says = (what) => (route) => route.fulfill({ status: 200, contentType: "application/json", body: JSON.stringify(what) });
  const view = { properties: { heart_rate: { round: 5 } } };
  await page.route(`**/api/arena/v1/avatars/${id}/grants`, says({ grants: [
    { id: "1", version: 1, avatar: id, to: { application: "c".repeat(32) }, actions: ["read", "subscribe"], view, purpose: "coaching", expires: "2027-06-01T00:00:00Z", by: "operator", given: "2026-11-28T00:00:00Z" },
  ] }));
  await page.route("**/api/arena/v1/principals", says({ principals: [{ id: "c".repeat(32), kind: "application", name: "coach", purpose: "coaching" }] }));
  await page.route(`**/api/arena/v1/avatars/${id}/shares`, says({ shares: [{ id: "3", direction: "giving", state: "giving", world: "citadel", ours: id, theirs: id, purpose: "fitness", view, onward: false, begun: "2026-11-28T00:00:00Z", waits: false, held: "the peering with citadel is suspended here" }] }));
  await page.goto(`${town.base}/#/avatars/arena/${id}`);
  const grants = page.getByRole("region", { name: "Grants", exact: true }).last();
  await grants.getByText("application coach", { exact: true }).waitFor();
  await page.getByRole("cell", { name: "gives to citadel" }).waitFor();
  await page.getByText("held: the peering with citadel is suspended here").waitFor();
  await page.context().close();
});

test("a move is shown step by step: called off, ordered, over, with its proof", limit, async () => {
  const view = path.join(town.dir, "view.json");
  fs.writeFileSync(view, '{"properties":{"heart_rate":{},"speed":{}},"purposes":["fitness"]}');
  const { avatar } = JSON.parse(town.carnet("thing", "map", town.access.things[0].id, "--world", "arena", "--view", view, "--title", "Second runner", "--json", ...town.owner));
  await until("measurements of the second avatar", async () => (await town.ask("arena", "GET", `/v1/avatars/${avatar}`)).measurements > 0);
  // It has a sword, which comes along as a blade, and a ticket, which ends.
  const { issuer } = await town.ask("arena", "GET", "/v1/accepted-items");
  await town.ask("citadel", "PUT", "/v1/accepted-items", { issuer, kind: "sword", as: "blade", attributes: { damage: { as: "power", max: 50 } } });
  const sword = await town.ask("arena", "POST", "/v1/items", { avatar, kind: "sword", title: "Oathkeeper", attributes: { damage: 12, cursed: false } });
  const ticket = await town.ask("arena", "POST", "/v1/items", { avatar, kind: "ticket", title: "Ticket" });
  const begin = (file) => JSON.parse(town.carnet("avatar", "move", avatar, "--from", "arena", "--to", "citadel", "--items", sword.id, "--leave", "--request", file, "--json"));
  const page = await town.signedIn();
  await go(page, "Crossings");
  await page.getByText("Nothing has moved yet.").waitFor();
  await page.goto(`${town.base}/#/avatars/arena/${avatar}`);
  const item = page.locator(`[data-item="${sword.id}"]`);
  await item.getByRole("heading", { name: "Oathkeeper" }).waitFor();
  await item.getByText("sword no. 1 of arena").waitFor();
  await item.getByText("cursed false, damage 12").waitFor();
  await item.locator("summary").click();
  await item.getByText(/: issued avatar [0-9a-f]{8}, signed by arena$/).waitFor();

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
  const carried = page.getByRole("region", { name: "Items" });
  await carried.locator(`[data-item="${sword.id}"]`).getByText("Counts in citadel as blade").waitFor();
  await carried.locator(`[data-item="${ticket.id}"]`).getByText("It ended with the move.").waitFor();
  for (const name of ["decision", "departure"]) {
    const got = page.waitForEvent("download");
    await page.getByRole("row", { name: new RegExp(`^${name}`) }).getByRole("button", { name: "Get it" }).click();
    assert.equal(fs.readFileSync(await (await got).path(), "utf8"), told[name], `the ${name} as citadel has it`);
  }
  assert.equal(await page.getByRole("button", { name: "Call it off" }).count(), 0, "it is over");
  // There it is what citadel takes it for, and what proves it has come along.
  await page.goto(`${town.base}/#/avatars/citadel/${told.ours}`);
  await item.getByText("Counts in citadel as").waitFor();
  await item.getByText("power 12", { exact: true }).waitFor();
  await item.locator("summary").click();
  await item.getByText(/: came from another world /).waitFor();
  const proved = page.waitForEvent("download");
  await item.getByRole("button", { name: "Get what proves it" }).click();
  const proof = path.join(town.dir, "proof.json");
  fs.copyFileSync(await (await proved).path(), proof);
  assert.equal(JSON.parse(fs.readFileSync(proof, "utf8")).entries.length, 2);
  await town.collect(page);
  await page.context().close();
});

/** Fills in a job of the clinic, and has it planned. */
async function plansJob(page, fill) {
  await page.goto(`${town.base}/#/jobs`); // so that a form that is there already is left
  await page.goto(`${town.base}/#/jobs/new`);
  const form = page.getByRole("region", { name: "New job" });
  await form.getByLabel("World").selectOption("clinic");
  await form.getByRole("group", { name: "Whose measurements" }).getByLabel("patient").waitFor();
  await fill(form);
  await form.getByRole("button", { name: "See where it can run" }).click();
  return form;
}

/** Orders a job of the clinic, to be computed there, and returns its id. */
async function runsJob(page, fill) {
  const form = await plansJob(page, fill);
  await form.getByText("Nothing leaves clinic.").waitFor();
  await form.getByRole("button", { name: "Run it at clinic" }).click();
  await page.waitForURL(/#\/jobs\/clinic\/[0-9a-f]{32}$/);
  return page.url().split("/").at(-1);
}

const query = (sql) => (form) => form.getByRole("textbox", { name: "Query" }).fill(sql);

const moduleOf = (buffer) => async (form) => {
  await form.getByLabel("Program").selectOption("file");
  await form.getByLabel("Module file").setInputFiles({ name: "zones.wasm", mimeType: "application/wasm", buffer });
};

test("a query is planned and ordered; its result is a table, a plot and a file; it is repeated and compared", limit, async () => {
  const page = await town.signedIn();
  await until("heart rates in the clinic", async () => {
    const [a] = (await town.ask("clinic", "GET", "/v1/avatars")).avatars;
    return a.properties.includes("heart_rate") && a.measurements > 20;
  });
  await go(page, "Jobs");
  await page.getByText("Nothing has been computed yet.").waitFor();
  await page.getByRole("link", { name: "New job" }).click();
  const evil = `<img src=x onerror="globalThis.owned=1">`;
  const id = await runsJob(page, async (form) => {
    await form.getByLabel("heart rate", { exact: true }).check();
    await query(`SELECT time, value AS bpm, '${evil}' AS note FROM measurements ORDER BY time`)(form);
  });
  await page.getByText(/^Done: .* came out\.$/).waitFor();
  const told = await town.ask("clinic", "GET", `/v1/jobs/${id}`);
  assert.deepEqual(told.task.properties, ["heart_rate"]);
  const result = page.getByRole("region", { name: "Result", exact: true });
  await result.getByText(told.output.fingerprint).waitFor();
  await page.getByRole("img", { name: /^Result from .*bpm: \d+ values from \d+/ }).waitFor();
  assert.equal(await page.getByRole("region", { name: "Rows of the result" }).locator("tbody tr").count(), Math.min(told.output.measurements, 500), "a row for each measurement");
  assert.equal(await page.evaluate(() => globalThis.owned), undefined);
  assert.equal(await page.locator("#app img").count(), 0, "what a program puts out is text");
  const got = page.waitForEvent("download");
  await page.getByRole("button", { name: "Get it as it is" }).click();
  const sum = crypto.createHash("sha256").update(fs.readFileSync(await (await got).path())).digest("hex");
  assert.equal(sum, told.output.fingerprint, "the file is what was signed");

  await page.getByRole("button", { name: "Repeat it" }).click();
  await page.waitForURL((u) => !u.href.endsWith(id));
  await page.getByRole("cell", { name: "the same output" }).waitFor();
  assert.equal(await page.getByRole("region", { name: "The job and its repetitions" }).locator("tbody tr").count(), 2);
  const again = page.url().split("/").at(-1);
  assert.equal((await town.ask("clinic", "GET", `/v1/jobs/${again}`)).repeats, id);
  await town.collect(page);
  await page.context().close();
});

test("a module is ordered from a file; what fails says why; what runs is withdrawn", limit, async () => {
  const page = await town.signedIn();
  await runsJob(page, moduleOf(moduleThatSays('{"avatar":"a1","seconds":[1,30,12.5],"cells":[[0,1],[2,7]]}\n')));
  await page.getByText(/^Done: /).waitFor();
  const bars = page.locator("figure.bars").filter({ hasText: "seconds" });
  await bars.waitFor();
  assert.deepEqual(await bars.locator(".number").allTextContents(), ["1", "30", "12.5"]);
  const widths = await bars.locator(".track i").evaluateAll((all) => all.map((i) => i.getBoundingClientRect().width));
  assert.ok(widths[1] > widths[2] && widths[2] > widths[0], `bars are as long as their numbers: ${widths}`);
  await page.getByRole("img", { name: "cells: a map of 2 by 2 cells. The most, 7, is in column 2 of row 2." }).waitFor();

  // What is no program isn't even planned; what can't go on says so, and can't be repeated.
  let form = await plansJob(page, moduleOf(Buffer.from("no module at all")));
  await form.getByRole("alert").getByText("It can’t be planned.").waitFor();
  assert.equal(await form.getByRole("button", { name: /^Run it/ }).count(), 0);
  await runsJob(page, query("SELECT abs(-9223372036854775807 - 1) AS n"));
  await page.getByText("It failed.").waitFor();
  await page.locator(".standing .trouble").getByText(/overflow/i).waitFor();
  assert.equal(await page.getByRole("button", { name: "Repeat it" }).count(), 0, "there is nothing to compare with");

  form = await plansJob(page, (form) => form.getByLabel("Parameters").fill("{max: 190}"));
  await form.getByRole("alert").getByText("The parameters aren’t JSON.").waitFor();

  const id = await runsJob(page, query("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"));
  await page.getByRole("button", { name: "Withdraw it" }).click();
  await page.getByRole("button", { name: "Let it run" }).click();
  assert.notEqual((await town.ask("clinic", "GET", `/v1/jobs/${id}`)).state, "ended", "nobody was sure");
  await page.getByRole("button", { name: "Withdraw it" }).click();
  await page.getByRole("button", { name: "Yes, nothing of it is taken" }).click();
  await page.getByText("It was withdrawn.").waitFor();
  assert.equal((await town.ask("clinic", "GET", `/v1/jobs/${id}`)).outcome, "withdrawn");
  await town.collect(page);
  await page.context().close();
});

test("what a job has put out so far is shown while it runs, as unproved", limit, async () => {
  const page = await town.signedIn();
  await runsJob(
    page,
    query("WITH RECURSIVE row(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM row WHERE i < 60000), n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS place, 7 AS seven FROM row UNION ALL SELECT max(i), 0 FROM n"),
  );
  const so = page.getByRole("region", { name: "So far" });
  await so.getByText(/Nothing proves it:/).waitFor();
  await so.getByText(/^[1-9]\d* parts? of attempt 1, /).waitFor();
  const rows = so.getByRole("table", { name: "Rows of what came out so far" });
  assert.deepEqual(await rows.locator("tbody tr").nth(2).locator("td").allTextContents(), ["3", "7"]);
  await page.getByRole("button", { name: "Withdraw it" }).click();
  await page.getByRole("button", { name: "Yes, nothing of it is taken" }).click();
  await page.getByText("It was withdrawn.").waitFor();
  assert.equal(await so.count(), 0, "nothing of it is kept");
  await town.collect(page);
  await page.context().close();
});

test("a signed module is offered by its name, and no more once it is revoked", limit, async () => {
  const file = path.join(town.dir, "says.wasm");
  fs.writeFileSync(file, moduleThatSays("as it is\n"));
  town.carnet("module", "add", file, "--name", "says", "--version", "1.0.0", "--reads", "heart_rate", "--party", "clinic");
  const page = await town.signedIn();
  const id = await runsJob(page, async (form) => {
    await form.getByLabel("Program").selectOption("says@1.0.0");
    await form.getByText("It reads heart rate.").waitFor();
    await form.getByRole("group", { name: "Only these properties; none ticked: what the module reads" }).waitFor();
  });
  await page.getByRole("heading", { name: "says@1.0.0 over heart rate of clinic, computed there" }).waitFor();
  await page.getByText(/^Done: /).waitFor();
  assert.equal(await page.getByRole("region", { name: "Result, as it is" }).textContent(), "as it is\n");
  assert.equal((await town.ask("clinic", "GET", `/v1/jobs/${id}`)).module, "says@1.0.0");
  town.carnet("module", "revoke", "says@1.0.0", "--why", "it says too much", "--party", "clinic");
  await page.getByRole("button", { name: "Repeat it" }).click();
  const refused = page.getByRole("alert").filter({ hasText: "It wasn’t repeated." });
  await refused.getByText("the module says@1.0.0 is revoked: it says too much").waitFor();
  await refused.getByText(/^Take another version/).waitFor();
  const form = await plansJob(page, () => {});
  await form.getByText("Nothing leaves clinic.").waitFor();
  assert.equal(await form.getByRole("option", { name: "says@1.0.0" }).count(), 0);
  await town.collect(page);
  await page.context().close();
});

test("a job at a DPM: what would leave, progress, and a DPM that lied", limit, async () => {
  const page = await town.signedIn();
  const says = (what) => (route) => route.fulfill({ status: 200, contentType: "application/json", body: JSON.stringify(what) });
  const [mine] = (await town.ask("clinic", "GET", "/v1/jobs")).jobs;
  const label = { sensitivity: "personal+health" };
  const peer = { state: "active", scope: ["r6"], not_after: "2027-01-01T00:00:00Z" };
  await page.route("**/api/clinic/v1/peers", says({ peers: [{ ...peer, name: "forge", role: "dpm" }, { ...peer, name: "lab", role: "dpm", state: "suspended" }, { ...peer, name: "vault", role: "depot" }] }));
  await page.route("**/api/clinic/v1/jobs/plans", says({
    batches: 3, bytes: 4096, keys: 2, measurements: 2_000_000, along: 7, properties: { heart_rate: 2_000_000 }, label, choice: "forge", here: false, why: "there the fewest jobs wait",
    places: [
      { at: "clinic", here: true, can: true, why: "nothing leaves" },
      { at: "forge", here: false, can: true, why: "it may have the data; workers: 1, jobs that wait: 0" },
      { at: "lab", here: false, can: false, why: "it may not have the data: location" },
    ],
  }));
  const form = await plansJob(page, () => {});
  await form.getByText("To forge would go 3 sealed batches, 4.1 kB, and 2 keys. It could read 7 measurements more, from the same batches.").waitFor();
  assert.ok(await form.getByRole("radio", { name: /^lab/ }).isDisabled());
  await form.getByText("It may not have the data: location.").waitFor();
  const job = { ...mine, id: "f".repeat(32), at: "forge", made: new Date().toISOString(), state: "accepted", outcome: undefined, output: undefined, ended: undefined, progress: { state: "leased", attempt: 1, permille: 420, measurements: 840_000, parts: 0, trouble: "forge doesn't answer" } };
  let asked;
  let list = [mine, job];
  await page.route("**/api/clinic/v1/jobs", (route) => {
    if (route.request().method() === "POST") asked = route.request().postDataJSON();
    return says(route.request().method() === "POST" ? job : { jobs: list })(route);
  });
  await form.getByRole("button", { name: "Run it at forge" }).click();
  await page.getByText("It runs at forge.", { exact: true }).waitFor();
  assert.equal(asked.at, "forge");
  await page.getByRole("progressbar", { name: "Read: 42 % of the measurements" }).waitFor();
  await page.getByText("Forge doesn't answer.").waitFor();
  // It has ended, and the world has repeated it.
  const output = { measurements: 2_000_000, fingerprint: "a".repeat(64), size: 9 };
  const ended = { ...job, state: "ended", outcome: "done", output, progress: undefined, ended: new Date().toISOString() };
  list = [mine, ended, { ...ended, id: "e".repeat(32), at: undefined, repeats: ended.id, output: { ...output, fingerprint: "b".repeat(64) }, comparison: `another output: forge lied in the job ${ended.id}` }];
  await until("who could repeat it", async () => (await page.getByLabel("Where").locator("option").allTextContents()).join() === "clinic itself,forge");
  await page.locator("td .trouble", { hasText: `another output: forge lied in the job ${ended.id}` }).waitFor();
  await page.context().close();
});

test("what a world asks for and is refused is no share", limit, async () => {
  const of = (world) => town.access.avatars.find((a) => a.world === world).id;
  await assert.rejects(town.ask("citadel", "POST", "/v1/shares", { world: "arena", avatar: of("arena"), for: of("citadel"), purpose: "coaching" }));
  town.publish(JSON.stringify([{ n: "no_such_property", v: 1 }]));
  const page = await town.signedIn();
  await page.goto(`${town.base}/#/avatars/citadel/${of("citadel")}`);
  await page.getByRole("row", { name: /takes from arena nothing coaching .* refused: / }).waitFor();
  await town.collect(page);
  await page.context().close();
});

test("what comes in bursts is shown by its mean, and what doesn't come says so", limit, async () => {
  const page = await town.signedIn();
  const things = await town.ask("hub", "GET", "/v1/things");
  const status = await town.ask("hub", "GET", "/v1/status");
  const began = Date.now();
  let asked = 0;
  let comes = true;
  await page.route("**/api/hub/v1/status", (r) => r.fulfill({ status: 200, contentType: "application/json", body: JSON.stringify({ ...status, time: new Date(began + 2000 * ++asked).toISOString() }) }));
  await page.route("**/api/hub/v1/things", (r) => {
    const all = structuredClone(things);
    // Twenty measurements in one of four answers: 2 or 2.5 a second.
    const mappings = all.things.flatMap((t) => t.mappings);
    for (const m of mappings) for (const g of m.got) g.sent = 0;
    mappings.find((m) => m.world === "citadel").got[0].sent = comes ? 20 * Math.floor(asked / 4) : 0;
    return r.fulfill({ status: 200, contentType: "application/json", body: JSON.stringify(all) });
  });
  await page.reload();
  const flow = page.locator('[data-flow="hub>citadel"]');
  await until("a whole span", async () => asked > 10);
  const seen = new Set();
  await until("three bursts", async () => {
    seen.add(await flow.textContent());
    return asked > 20;
  }, 60_000);
  for (const text of seen) assert.match(text, /^[1-4]\.\d measurements\/s$/);
  comes = false;
  await go(page, "Story");
  const now = page.getByRole("region", { name: "Now" });
  await now.getByText(/^Nothing came from hub to citadel in the last 10 s\.$/).waitFor();
  await now.getByText(/^Its owner lets it have .*$/).first().waitFor();
  assert.equal(await page.getByText("gets nothing of hub").count(), 0);
  await town.collect(page);
  await page.context().close();
});

test("the story tells what happens now, and what happened, along the picture", limit, async () => {
  const page = await town.signedIn();
  await go(page, "Story");
  await page.getByRole("img", { name: /Picture of the parties: .*hub to clinic.*What happens is said below/ }).waitFor();
  const now = page.getByRole("region", { name: "Now" });
  await now.waitFor();
  assert.equal(await now.getByText(/No device tells|gets nothing/).count(), 0, "of what isn’t known yet nothing is said");
  await now.getByText(/^Hub passes on to clinic [\d.]+ measurements a second\.$/).waitFor();
  await now.getByText(/^Its owner lets it have .*heart rate/).first().waitFor();
  await now.getByText(/Watch.* tells? hub [\d.]+ messages a second\./).waitFor();
  const past = page.getByRole("region", { name: "What happened" });
  const whole = past.getByRole("button", { name: /^Show all/ });
  await whole.click();
  await past.getByText(/^Clinic ended a query over heart rate: done: .* came out\.$/).first().waitFor();
  await past.getByText("Compared: the same output.").waitFor();
  const times = await past.locator("time").evaluateAll((all) => all.map((t) => t.dateTime));
  assert.ok(times.length > 15);
  assert.deepEqual(times, [...times].sort().reverse(), "the newest is first");
  await past.getByText("Clinic added the module says@1.0.0.").waitFor();
  await past.getByText("Clinic runs the module says@1.0.0 no more.").waitFor();
  await past.getByText("Clinic began says@1.0.0 over heart rate itself.").waitFor();
  await past.getByText("Second runner stays in arena.").waitFor();
  await past.getByText("Arena fixed what moves of Second runner, and released it.").waitFor();
  await past.getByText("Arena began to share heart rate and speed of", { exact: false }).waitFor();
  await past.getByText(/^Oathkeeper, sword no\. 1 came to citadel, with Second runner\.$/i).waitFor();
  await past.getByText(/^Arena issued Oathkeeper, sword no\. 1, to /).waitFor();
  await past.getByText(/^Ticket, ticket no\. 1 is retired\.$/).waitFor();
  await past.getByText("With Oathkeeper.").waitFor();
  // What people did.
  await past.getByText("Heart rate, and no longer speed.").waitFor();
  await past.getByText(/^Citadel asked arena for what .* is given, for coaching, and was refused\.$/).waitFor();
  assert.equal(await past.getByText(/began to share something|for coaching ended/).count(), 0);
  await past.getByText(/^Hub refused \d+ messages? of Watch, this the last: not in description\.$|^Hub refused \d+ messages? of Watch, this the last: .*$/).first().waitFor();
  await past.getByRole("link", { name: "Second runner came to live in citadel." }).click();
  await page.getByRole("heading", { name: "Second runner from arena to citadel" }).waitFor();
  // A job that runs elsewhere, a move under way, and a party that is away, as they are told.
  const says = (what) => (route) => route.fulfill({ status: 200, contentType: "application/json", body: JSON.stringify(what) });
  const [mine] = (await town.ask("clinic", "GET", "/v1/jobs")).jobs;
  const job = { ...mine, at: "forge", state: "accepted", outcome: undefined, output: undefined, ended: undefined, progress: { state: "leased", attempt: 1, permille: 420, measurements: 840, parts: 0 } };
  await page.route("**/api/clinic/v1/jobs", says({ jobs: [job] }));
  await page.route("**/api/vault/**", (route) => route.fulfill({ status: 502, contentType: "application/problem+json", body: JSON.stringify({ title: "Bad Gateway", status: 502, detail: "vault does not answer", code: "unavailable", from: "console" }) }));
  await go(page, "Story");
  await now.getByRole("link", { name: "Clinic has forge compute a query over heart rate." }).waitFor();
  await now.getByText("It runs at forge, 42 % read.").waitFor();
  await now.locator(".trouble", { hasText: "Vault doesn’t answer." }).waitFor();
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
  const sent = [JSON.stringify([{ n: evil, v: 1 }]), JSON.stringify([{ n: "heart_rate", vs: evil }]), evil, JSON.stringify([{ n: "heart_rate", u: "beat/min", v: 60, t: Date.now() / 1000 + 1e7 }])];
  for (const payload of sent) town.publish(payload);
  const page = await town.signedIn();
  await go(page, "Things");
  await page.getByRole("navigation", { name: "Things" }).getByRole("link").filter({ hasText: "Watch" }).click();
  await page.getByRole("region", { name: "Refused messages, newest first" }).waitFor();
  await until("the refused messages", async () => (await page.locator(".sent").allTextContents()).filter((t) => t.includes("onerror")).length >= 2);
  await page.getByText(/^heart_rate was measured .* ahead of the agent's clock/).waitFor();
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

test("what every object has of itself is no property, and what lies close is plotted", limit, async () => {
  const number = (more) => ({ type: "number", "carnet:sensitivity": ["personal"], "carnet:linger": "PT0S", forms: [{ href: "x" }], ...more });
  const description = {
    "@context": ["https://www.w3.org/2022/wot/td/v1.1", { carnet: "urn:carnet:td#" }], title: "A \u202etnuoc\u202c of nanoseconds", securityDefinitions: { none: { scheme: "nosec" } }, security: "none",
    properties: { constructor: number({ unit: "constructor" }), toString: number(), nanoseconds: number() },
  };
  const clock = await town.ask("hub", "POST", "/v1/things", { owner: "owner", description });
  const { id, avatar } = await town.ask("hub", "POST", `/v1/things/${clock.id}/mappings`, { world: "clinic", view: { properties: { nanoseconds: {} }, purposes: ["care"] } });
  // Between these two there is no number: an axis with marks each 5 has no end.
  const now = Date.now() / 1000;
  for (const [i, v] of [1e17, 1e17 + 16].entries()) town.publish(JSON.stringify([{ n: "nanoseconds", v, t: now - 2 + i }]), { id: clock.id, password: clock.password });
  await until("both in clinic", async () => (await town.ask("clinic", "GET", `/v1/avatars/${avatar}`)).measurements === 2);
  const page = await town.signedIn();
  await page.goto(`${town.base}/#/things/hub/${clock.id}`);
  await page.getByRole("heading", { name: "A \ufffdtnuoc\ufffd of nanoseconds" }).waitFor();
  await page.getByRole("img", { name: /nanoseconds, last two minutes.*clinic: 2 values/ }).waitFor();
  await page.locator('[data-world="clinic"][data-property="nanoseconds"] .now').getByText(/^100,000,000,000,000,0/).waitFor();
  // Nothing is ticked that the view hasn't, and so nothing is given with what is changed.
  await page.getByRole("button", { name: "Change what clinic gets" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByLabel("At most one per").fill("10s");
  assert.deepEqual(await dialog.locator("fieldset.given legend").allTextContents(), ["nanoseconds"]);
  await dialog.getByRole("button", { name: "Save" }).click();
  await page.getByText(/^Changed: clinic gets/).waitFor();
  assert.deepEqual((await town.ask("hub", "GET", `/v1/mappings/${id}`)).owner_view.properties, { nanoseconds: { rate: "10s" } });
  await town.ask("hub", "DELETE", `/v1/mappings/${id}`);
  await town.collect(page);
  await page.context().close();
});

test("what a program puts out is drawn as far as a page has room, and else shown as it is", limit, async () => {
  const page = await town.signedIn();
  const deep = `{"a":${'[{"b":'.repeat(3000)}1${"}]".repeat(3000)}}\n`;
  for (const out of [deep, Array.from({ length: 3000 }, (_, i) => `{"k${i}":1}`).join("\n"), `{${Array.from({ length: 3000 }, (_, i) => `"k${i}":1`).join()}}`]) {
    await runsJob(page, moduleOf(moduleThatSays(out)));
    await page.getByText(/^Done: /).waitFor();
    await page.getByRole("region", { name: "Result, as it is" }).waitFor();
    assert.equal(await page.getByRole("region", { name: /^Rows of the result/ }).count(), 0);
  }
  await town.collect(page);
  await page.context().close();
});

test("an owner sees what an owner may", limit, async () => {
  const page = await town.signedIn("owner");
  // Nothing is asked for that is surely refused.
  const refused = [];
  page.on("response", (r) => r.status() >= 400 && refused.push(`${r.status()} ${r.url()}`));
  await page.reload();
  const untold = page.locator(".untold");
  await untold.waitFor();
  assert.match(await untold.textContent(), /^How things stand at arena, citadel, clinic and hub is shown to their administrators and auditors; what concerns you is under Things and Avatars\. For vault owner has no token: /);
  assert.equal(await page.getByText(/may not see|administrators and auditors; what/).count(), 1, "it is said once, of all of them");
  await until("a rate of the owner's own things", async () => /^(?!0 )[\d.]+ \w+\/s/.test(await page.locator('[data-flow="hub>clinic"]').textContent()));
  assert.match(await page.locator('[data-flow="arena>citadel"]').textContent(), /1 share/);
  await go(page, "Things");
  await page.goto(`${town.base}/#/things/hub/${town.access.things[0].id}`);
  await page.getByText(/Shared on to citadel: heart rate, for fitness, since .* No longer speed, since arena isn’t given that\./).waitFor();
  await go(page, "Crossings");
  await page.getByText("Nothing to show you here.").waitFor();
  await go(page, "Jobs");
  await page.getByText("Jobs are for a world’s administrator and auditors, and owner has no such token of one.").waitFor();
  // Nor does the party tell, whoever asks it.
  assert.ok((await town.ask("clinic", "GET", "/v1/jobs")).jobs.length > 0);
  const told = await page.evaluate(async () => (await fetch("/api/clinic/v1/jobs", { headers: { "Carnet-Key": localStorage.getItem("carnet-key") } })).json());
  assert.deepEqual([told.status, told.jobs], [403, undefined]);
  await until("the refusal", () => refused.length > 0);
  assert.deepEqual(refused.splice(0), [`403 ${town.base}/api/clinic/v1/jobs`]);
  await go(page, "Story");
  await page.getByText("As far as those may know who you are to the parties.").waitFor();
  const happened = page.getByRole("region", { name: "What happened" });
  const whole = happened.getByRole("button", { name: /^Show all/ });
  await happened.getByText("Watch became a thing of hub.").waitFor();
  await happened.getByText(/^Arena began to share heart rate and speed of .* with citadel, for fitness\.$/).waitFor();
  await whole.click();
  await happened.getByText(/^Owner changed what arena gets of Watch\.$/).first().waitFor();
  await happened.getByText("Heart rate, and no longer speed.").waitFor();
  await happened.getByText(/ granted an avatar of citadel heart rate and speed of .* in arena, for fitness\.$/).waitFor();
  await happened.getByText(/^Citadel asked the owner of runner in arena for a mandate, for fitness\.$/i).waitFor();
  assert.equal(await page.getByText(/query|came to live/).count(), 0);
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
  const jobs = (await town.ask("clinic", "GET", "/v1/jobs")).jobs;
  const refused = [];
  page.on("response", (r) => r.status() >= 400 && refused.push(`${r.status()} ${r.url()}`));
  await page.goto(`${town.base}/#/jobs/clinic/${jobs.find((j) => j.output).id}`);
  await page.getByText("An auditor sees that something came out, and reads none of it.").waitFor();
  await page.getByRole("region", { name: "What was ordered" }).getByRole("link", { name: "patient" }).waitFor();
  assert.equal(await page.getByRole("button", { name: /Repeat|Withdraw|Get it/ }).count() + (await page.getByRole("link", { name: "New job" }).count()), 0);
  await page.goto(`${town.base}/#/jobs/new`);
  await page.getByText("A world’s administrator orders jobs.").waitFor();
  await page.locator("summary").filter({ hasText: "auditor" }).click();
  assert.equal((await page.locator(".person .sheet p").first().textContent()).trim(), "Signed in as auditor");
  assert.equal(await page.locator(".person summary").textContent(), "auditor, signed in: account");
  assert.deepEqual(refused, []);
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
  // A job, from the first key to the last.
  await tabTo(/^Jobs$/);
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.activeElement.tagName === "MAIN");
  await tabTo(/^New job$/);
  await page.keyboard.press("Enter");
  await page.getByRole("group", { name: "Whose measurements" }).waitFor();
  await tabTo(/^See where it can run$/, 80); // a time has seven fields
  await page.keyboard.press("Enter");
  await page.getByRole("group", { name: "Where it can run" }).waitFor();
  await tabTo(/^Run it at /);
  await page.keyboard.press("Enter");
  await page.getByText(/^Done: /).waitFor();
  await page.goto(town.base + "/#/things");
  await page.getByRole("heading", { name: "Things", level: 1 }).waitFor();
  await page.waitForFunction(() => document.activeElement.tagName === "MAIN");
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
  const look = async (colorScheme) => {
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
    await go(page, "Jobs");
    for (const { id } of (await town.ask("clinic", "GET", "/v1/jobs")).jobs) {
      await page.goto(`${town.base}/#/jobs/clinic/${id}`);
      await page.locator("p.id").getByText(id).waitFor();
      await page.getByRole("region", { name: "What was ordered" }).waitFor();
      await until("the result", async () => (await page.getByText("Loading the result").count()) === 0);
      await check(page, `the job ${id}, ${colorScheme}`);
    }
    await go(page, "Story");
    await page.getByRole("region", { name: "What happened" }).getByRole("listitem").first().waitFor();
    await page.getByRole("region", { name: "Now" }).getByRole("listitem").first().waitFor();
    await check(page, `the story, ${colorScheme}`);
    await plansJob(page, () => {});
    await page.getByRole("group", { name: "Where it can run" }).waitFor();
    await check(page, `a new job, ${colorScheme}`);
    await page.goto(`${town.base}/#/nowhere`);
    await page.getByText("There is no such page.").waitFor();
    await check(page, `no page, ${colorScheme}`);
    await page.context().close();
  };
  await Promise.all(["light", "dark"].map(look));
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
  const flows = await page.locator("[data-flow]").evaluateAll((all) => all.filter((f) => !/people and programs|its own avatars/.test(f.dataset.flow)).length);
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
  await page.goto(`${town.base}/#/avatars/arena/${town.access.avatars.find((a) => a.world === "arena").id}`);
  await page.getByText(/^carnet owner withdraw [0-9a-f-]{36} --keystore FILE$/).waitFor();
  for (const rows of await page.locator(".rows").all()) {
    assert.deepEqual(await rows.evaluate((e) => [e.scrollWidth - e.clientWidth, ...[...e.querySelectorAll("td *")].filter((c) => c.getBoundingClientRect().right > 360).map((c) => c.textContent)]), [0], "nothing of a row is cut");
  }
  assert.equal(await page.locator(".rows td").first().evaluate((e) => getComputedStyle(e, "::before").content), '"To"');
  await go(page, "Crossings");
  await page.locator('[data-step="cleared"].done').waitFor();
  await fits("a crossing");
  for (const { id, output } of (await town.ask("clinic", "GET", "/v1/jobs")).jobs) {
    await page.goto(`${town.base}/#/jobs/clinic/${id}`);
    await page.locator("p.id").getByText(id).waitFor();
    if (output) await page.getByRole("button", { name: "Get it as it is" }).waitFor();
    await fits(`the job ${id}`);
  }
  await plansJob(page, () => {});
  await page.getByRole("group", { name: "Where it can run" }).waitFor();
  await fits("a new job");
  await go(page, "Story");
  await page.getByRole("region", { name: "What happened" }).getByRole("listitem").first().waitFor();
  await fits("the story");
  await town.collect(page);
  await page.context().close();
});

test("in the picture nothing is written over anything else", { timeout: 240_000 }, async () => {
  const says = (what) => (route) => route.fulfill({ status: 200, contentType: "application/json", body: JSON.stringify(what) });
  const [mine] = (await town.ask("clinic", "GET", "/v1/jobs")).jobs;
  const running = (at) => ({ ...mine, id: crypto.randomUUID().replaceAll("-", ""), at, state: "accepted", outcome: undefined, output: undefined, ended: undefined, progress: { state: "leased", attempt: 1, permille: 420, measurements: 840, parts: 0 } });
  for (const width of [360, 390, 1280]) {
    const page = await town.signedIn("operator", { viewport: { width, height: 844 } });
    await until("the rates", async () => (await page.locator(".picture .label").count()) > 8 && !/…/.test(await page.locator(".picture").textContent()));
    assert.deepEqual(await page.evaluate(coveredInPicture), [], `the overview at ${width} px`);
    // Two DPMs, at which every world has a job.
    const who = await page.evaluate(async () => (await fetch("/session", { headers: { "Carnet-Key": localStorage.getItem("carnet-key") } })).json());
    const dpms = ["forge", "lab"];
    await page.route("**/session", says({ ...who, parties: [...who.parties, ...dpms.map((name) => ({ name, role: "dpm", as: "administrator" }))] }));
    for (const party of dpms) {
      await page.route(`**/api/${party}/**`, (route) => route.fulfill({ status: 403, contentType: "application/problem+json", body: '{"status":403}' }));
      await page.route(`**/api/${party}/v1/status`, says({ party, time: new Date().toISOString(), dpm: { workers: 1, waiting: 0, ready: 0, leased: 1, ended: 0, parked: 0 } }));
    }
    for (const world of ["arena", "clinic", "citadel"]) await page.route(`**/api/${world}/v1/jobs`, says({ jobs: dpms.map(running) }));
    await page.goto(`${town.base}/#/story`);
    await page.reload();
    await until("six jobs", async () => (await page.locator(".picture .label").filter({ hasText: "R6 1 job" }).count()) === 6);
    await until("the rates", async () => !/…/.test(await page.locator(".picture").textContent()));
    assert.deepEqual(await page.evaluate(coveredInPicture), [], `the story at ${width} px`);
    await page.context().close();
  }
});

test("a page of another origin can neither ask nor change anything", limit, async () => {
  const page = await town.signedIn();
  const avatar = town.access.avatars.find((a) => a.world === "arena").id;
  const key = await page.evaluate(() => localStorage.getItem("carnet-key"));
  const follows = ([base, id, key]) => new Promise((done) => {
    const s = new WebSocket(base.replace("http", "ws") + "/api/arena/v1/avatars/" + id + "/live", ["carnet.senml+json", "key." + key]);
    s.onopen = () => { s.close(); done("open"); };
    s.onerror = () => done("failed");
  });
  assert.equal(await page.evaluate(follows, [town.base, avatar, key]), "open", "the console's own page follows an avatar");
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
      await attempt("sign out", async () => (await fetch(base + "/sessions", { method: "DELETE", credentials: "include" })).status);
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
    assert.equal(await other.evaluate(follows, [town.base, avatar, key]), "failed", "even one that knows the key"); // by its origin
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
  const answers = [];
  page.on("response", (r) => answers.push(r.text().catch(() => "").then((text) => ({ text, headers: JSON.stringify(r.headers()) }))));
  await page.goto(town.base);
  await signIn(page, "operator", town.password);
  await page.locator('[data-flow="hub>arena"]').waitFor();
  await go(page, "Things");
  await page.getByRole("heading", { name: "What each world gets" }).waitFor();
  assert.equal(await page.evaluate(() => document.cookie), "");
  const kept = await page.evaluate(() => JSON.stringify({ ...localStorage, ...sessionStorage }));
  const all = await Promise.all(answers.slice()); // those that came while they were awaited say nothing else
  assert.ok(all.filter((a) => a.text).length > 5);
  for (const t of town.access.tokens) {
    assert.ok(!kept.includes(t.token) && all.every((a) => !a.text.includes(t.token) && !a.headers.includes(t.token)), `the token of ${t.name} at ${t.party}`);
  }
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
