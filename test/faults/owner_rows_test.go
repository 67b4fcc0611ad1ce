package faults_test

import (
	"time"

	"carnet"
	"carnet/api"
	"carnet/crossing"
	"carnet/identity"
	"carnet/item"
	"carnet/test/wait"
)

// owning is the town of TestShareRows, with the keystore of the avatar's owner.
type owning struct {
	*sharing
	v *neighbours
}

const (
	itemRows   = `SELECT count(*) FROM world_document WHERE kind = 'item'`
	policyRows = `SELECT count(*) FROM world_document WHERE kind = 'avatar-policy'`
	homes      = `SELECT count(*) FROM register_home`
)

// diesChanging has arena asked to change something, and kills it at a hold.
func diesChanging[T any](n *owning, h *hold, ask func() (T, error)) {
	n.t.Helper()
	answer, stop := make(chan error, 1), make(chan struct{})
	go func() {
		for {
			_, err := ask()
			select {
			case <-stop:
			default:
				if err != nil { // it may not have asked the register yet
					n.t.Log(err)
					time.Sleep(100 * time.Millisecond)
					continue
				}
			}
			answer <- err
			return
		}
	}()
	h.await(n.t)
	close(stop)
	n.killAt(n.arena, h)
	n.unanswered(answer)
}

// items kills arena at rows T1 to T4 of items.md.
func (n *owning) items() {
	n.quiet()
	ctx, arena, gate := n.t.Context(), n.arena, n.arena.database.gate
	other := n.v.addPromptFor(map[carnet.PartyID]string{"arena": travels})
	n.v.own(other)
	issue := func() (api.Item, error) {
		return arena.client.IssueItem(ctx, api.NewItem{Avatar: n.there, Kind: "sword", Title: "Oathkeeper", Attributes: identity.Attributes{"damage": 12.0}})
	}
	enrolled := n.vault.number(n.t, homes)
	diesChanging(n, gate.before(document, "item"), issue)
	n.want(arena, itemRows, 0)
	if n.vault.number(n.t, homes) == enrolled {
		n.t.Error("the register has no home of it")
	}
	n.restart(arena)
	diesChanging(n, gate.after(document, "item"), issue)
	n.restart(arena)
	list, err := arena.client.Items(ctx)
	if err != nil || len(list) != 1 || list[0].Serial != 1 || list[0].State != item.Here {
		n.t.Fatalf("arena has %+v, %v", list, err)
	}
	id := list[0].ID
	is := func() api.Item {
		n.t.Helper()
		var i api.Item
		wait.Until(n.t, "arena shows the item", func() bool {
			i, err = arena.client.Item(ctx, id)
			return err == nil
		})
		return i
	}
	diesChanging(n, gate.after(document, "item"), func() (api.Item, error) { return arena.client.EquipItem(ctx, id, "hand") })
	n.restart(arena)
	if i := is(); i.Slot != "hand" {
		n.t.Errorf("killed after it was put on, the item is %+v", i)
	}

	i := is()
	gift, err := n.v.store.Give(identity.Gift{Item: id, Owner: i.Owner, World: i.Issuer, From: n.there, To: other.mappings["arena"].Avatar, After: n.v.read(arena, id).Last}, time.Now(), time.Hour)
	if err != nil {
		n.t.Fatal(err)
	}
	give := func() (api.Item, error) { return arena.client.GiveItem(ctx, id, gift) }
	diesChanging(n, gate.before(document, "item"), give)
	n.restart(arena)
	if i := is(); i.Avatar != n.there {
		n.t.Errorf("a gift that isn't stored is made: %+v", i)
	}
	diesChanging(n, gate.after(document, "item"), give)
	n.restart(arena)
	given := is()
	if given.Avatar != other.mappings["arena"].Avatar || given.Entries != i.Entries+1 {
		n.t.Errorf("killed after it was given, the item is %+v", given)
	}
	if _, err := give(); err == nil && is().Entries != given.Entries {
		n.t.Error("a gift is made twice")
	}
	diesChanging(n, gate.after(document, "item"), func() (api.Item, error) { return arena.client.RetireItem(ctx, id) })
	n.restart(arena)
	if i := is(); i.State != item.Retired || i.Entries != given.Entries+1 {
		n.t.Errorf("killed after it was retired, the item is %+v", i)
	}
	n.quiet()
}

// policy kills arena at rows P3 and P4 of avatar-policy.md: the policy forbids the
// share that is given.
func (n *owning) policy() {
	n.quiet()
	ctx, arena, gate := n.t.Context(), n.arena, n.arena.database.gate
	signed, err := n.v.store.SignPolicy(n.there, []byte(`{"use":{"purposes":["fitness"]}}`), 0, time.Now())
	if err != nil {
		n.t.Fatal(err)
	}
	set := func() (api.AvatarPolicy, error) { return arena.client.SetAvatarPolicy(ctx, n.there, signed.Signed) }
	diesChanging(n, gate.before(document, "avatar-policy"), set)
	n.want(arena, policyRows, 0)
	n.restart(arena)
	n.flows()
	diesChanging(n, gate.after(document, "avatar-policy"), set)
	n.over()
	n.want(arena, policyRows, 1)
	if c, err := n.clinic.client.Share(ctx, n.share); err != nil || c.State != crossing.Taking {
		n.t.Errorf("the clinic has the share %+v, %v", c, err)
	}
	n.restart(arena)
	n.w.send(4)
	n.overAtBoth()
	if is, err := set(); err != nil || is.Version != 1 {
		n.t.Errorf("handed in again it is %+v, %v", is, err)
	}
}
