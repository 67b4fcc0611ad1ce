// Asking for what people did: views, grants, mandates, items, and what was refused. Each
// answer that can't have changed is kept.
import { ask, askIfThere, type Avatar, type Grant, type Identity, type Item, type ItemProof, type MandateRequest, mayRead, maySurvey, type Principal, type Refused, type Share, type Thing, type ViewRecord } from "./api.ts";
import { entriesOf, longest } from "./items.ts";
import type { Acts } from "./telling.ts";

/** What was answered, and as of what. */
export type Known = Map<string, { of: string; answer: unknown }>;

/** Asks again only if what it is of has changed. */
async function once<T>(known: Known, party: string, path: string, of: string, signal: AbortSignal): Promise<T | undefined> {
  const had = known.get(party + path);
  if (had?.of === of) return had.answer as T | undefined;
  const answer = await askIfThere<T>(party, path, signal);
  known.set(party + path, { of, answer });
  return answer;
}

/** Of how many avatars, things and items of one party it is asked. */
const most = 50;

export async function asActs(who: Identity, known: Known, signal: AbortSignal): Promise<Acts> {
  const may = who.parties.filter((p) => p.as !== undefined);
  const agents = may.filter((p) => p.role === "things");
  const worlds = may.filter((p) => p.role === "world");
  const acts: Acts = { views: [], refused: [], grants: [], principals: [], requests: [], shares: [], chains: [] };
  const ofAgent = async (agent: (typeof agents)[number]): Promise<void> => {
    const things = (await ask<{ things: Thing[] | null }>(agent.name, "/v1/things", signal)).things ?? [];
    await Promise.all(
      things.slice(0, most).map(async (thing) => {
        for (const m of thing.mappings) {
          const a = await once<{ views: ViewRecord[] | null }>(known, agent.name, `/v1/mappings/${m.id}/views`, `${m.policy_version} ${m.stopped}`, signal);
          acts.views.push({ agent: agent.name, thing, mapping: m, views: a?.views ?? [] });
        }
        const counts = Object.entries(thing.refused ?? {});
        if (counts.length === 0 || !mayRead(agent)) return;
        const a = await once<{ refusals: Refused[] | null }>(known, agent.name, `/v1/things/${encodeURIComponent(thing.id)}/refusals?limit=100`, JSON.stringify(counts), signal);
        for (const [code, n] of counts) {
          const last = a?.refusals?.find((r) => r.code === code);
          if (last) acts.refused.push({ agent: agent.name, thing, code, n, last });
        }
      }),
    );
  };
  const ofWorld = async (world: (typeof worlds)[number]): Promise<void> => {
    const name = world.name;
    const avatars = ((await ask<{ avatars: Avatar[] | null }>(name, "/v1/avatars", signal)).avatars ?? []).slice(0, most);
    const items: Item[] = [];
    if (maySurvey(world)) {
      const [grants, principals, all] = await Promise.all([
        askIfThere<{ grants: Grant[] | null }>(name, "/v1/grants", signal),
        askIfThere<{ principals: Principal[] | null }>(name, "/v1/principals", signal),
        askIfThere<{ items: Item[] | null }>(name, "/v1/items", signal),
      ]);
      acts.grants.push(...(grants?.grants ?? []).map((grant) => ({ world: name, grant })));
      acts.principals.push(...(principals?.principals ?? []));
      items.push(...(all?.items ?? []));
    }
    await Promise.all(
      avatars.map(async ({ id }) => {
        const requests = await askIfThere<{ requests: MandateRequest[] | null }>(name, `/v1/avatars/${id}/mandates`, signal);
        acts.requests.push(...(requests?.requests ?? []).map((request) => ({ world: name, request })));
        if (maySurvey(world)) return;
        const [grants, shares, has] = await Promise.all([
          askIfThere<{ grants: Grant[] | null }>(name, `/v1/avatars/${id}/grants`, signal),
          askIfThere<{ shares: Share[] | null }>(name, `/v1/avatars/${id}/shares`, signal),
          askIfThere<{ items: Item[] | null }>(name, `/v1/avatars/${id}/items`, signal),
        ]);
        acts.grants.push(...(grants?.grants ?? []).map((grant) => ({ world: name, grant })));
        acts.shares.push(...(shares?.shares ?? []).map((share) => ({ world: name, share })));
        items.push(...(has?.items ?? []));
      }),
    );
    await Promise.all(
      items.slice(-most).map(async (item) => {
        if (item.state === "gone") return void acts.chains.push({ world: name, item, entries: [] }); // where it went it is told
        const proof = await once<ItemProof>(known, name, `/v1/items/${item.id}/proof`, item.last, signal);
        if (proof) acts.chains.push({ world: name, item, entries: entriesOf(proof) });
      }),
    );
  };
  await Promise.all([...agents.map(ofAgent), ...worlds.map(ofWorld)]);
  acts.chains = longest(acts.chains);
  return acts;
}
