package move

import (
	"context"
	"crypto/ed25519"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/identity"
	"carnet/item"
	"carnet/register"
)

// Registered is what a world knows of the home of one of its avatars.
type Registered struct {
	Avatar    carnet.AvatarID `json:"avatar"`
	Home      carnet.HomeID   `json:"home"`
	Registrar string          `json:"registrar"`
	Owner     string          `json:"owner"` // the key that is registered for it
}

type knownHome struct {
	Registered
	version uint64
}

// Described is an avatar as its world describes it to one that it is to move to.
type Described struct {
	Registered
	Title      string
	Ceiling    carnet.Label // of all that would move
	Properties []string
	Items      []item.Info
	Policy     string // its owner's, as it is signed for its world; empty: none
	Backup     *Backup

	// For a world that it is to move to: what may be given to that one, and what of the
	// avatar is labelled above it, as far as it was looked into.
	Clearance *carnet.Clearance
	Leaves    []avatar.LeftBehind
}

// Enrol has an avatar's home registered, if it isn't, with the owner's key that is
// pinned with it, and describes the avatar: for a world, if one is named, with what would
// have to be left behind.
func (a *Agent) Enrol(ctx context.Context, id carnet.AvatarID, to carnet.PartyID) (Described, error) {
	v, err := a.World.Avatar(id)
	if err != nil {
		return Described{}, err
	}
	d := Described{Title: v.Title, Properties: v.Properties, Items: a.Items.Of(id)}
	if d.Ceiling, err = a.World.MovedCeiling(ctx, id); err != nil {
		return Described{}, err
	}
	bound, err := a.World.Policy(id)
	if err != nil {
		return Described{}, err
	}
	d.Policy = bound.Signed
	if d.Backup, err = a.backup(ctx, id); err != nil {
		return Described{}, err
	}
	if to != "" {
		if err := a.describeFor(ctx, &d, id, to); err != nil {
			return Described{}, err
		}
	}
	d.Registered, err = a.enrol(ctx, id)
	return d, err
}

func (a *Agent) enrol(ctx context.Context, id carnet.AvatarID) (Registered, error) {
	v, err := a.World.Avatar(id)
	if err != nil {
		return Registered{}, err
	}
	_, did, err := a.Registrar()
	if err != nil {
		return Registered{}, err
	}
	if len(v.OwnerKey) != ed25519.PublicKeySize {
		return Registered{}, carnet.Errorf(carnet.Forbidden, "no owner's key is pinned with the avatar, so nobody can order it to move").
			WithFix("its owner pins one: carnet owner claim THING/WORLD --keystore FILE")
	}
	defer a.changing.of(id)()
	h, had := a.homeOf(id)
	if !had {
		// Stored first: asked again after a crash, the register knows the same home.
		h = Registered{Avatar: id, Home: a.homeFor(id), Registrar: did, Owner: identity.DID(v.OwnerKey)}
		if err := a.keepHome(ctx, knownHome{Registered: h}); err != nil {
			return Registered{}, err
		}
	}
	registrar, err := a.registrarOf(h.Registrar)
	if err != nil {
		return Registered{}, err
	}
	if _, _, err := registrar.Enrol(ctx, h.Home, h.Owner); err != nil && !(had && carnet.CodeOf(err) == carnet.Conflict) {
		return Registered{}, err
	}
	return h, nil
}

func (a *Agent) homeOf(id carnet.AvatarID) (Registered, bool) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if h := a.homes[id]; h != nil {
		return h.Registered, true
	}
	return Registered{}, false
}

// keepHome stores what is known of a home. The caller has
// the avatar's turn.
func (a *Agent) keepHome(ctx context.Context, h knownHome) error {
	h.version++
	kept := avatar.Kept{Kind: kindHome, ID: h.Avatar.String(), Version: h.version, Body: h.Registered}
	if err := a.World.Keep(ctx, []avatar.Kept{kept}, nil); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.homes[h.Avatar] = &h
	return nil
}

// claimAll claims the homes of avatars that are here, once since the start: what was
// released before is worth nothing then, and neither is a recovery. Those that are
// frozen aren't claimed; those whose home is elsewhere leave.
func (a *Agent) claimAll(ctx context.Context) {
	found := false
	for n := 0; ; n++ {
		left := 0
		if !found {
			if err := a.findHomes(ctx); err != nil {
				left++
				a.Log.Debug("whether avatars here are registered can't be asked yet", "err", err)
			} else {
				found = true
			}
		}
		for _, h := range a.unnoted() {
			if err := a.gone(ctx, h); err != nil {
				left++
				a.Log.Warn("by what an avatar left isn't known yet; the register is asked again", "avatar", h.Avatar, "err", err)
			}
		}
		left += a.claimRest(ctx)
		if left == 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause(n, longPause)):
		}
	}
}

// claimRest claims the homes that weren't claimed since the start, or since something
// about them went wrong, and tells the register which items have ended. It returns how
// many are left to try again.
func (a *Agent) claimRest(ctx context.Context) (left int) {
	failed := func(h homeHere, err error) {
		left++
		a.Log.Warn("a home isn't claimed yet; it is tried again", "avatar", h.Avatar, "item", h.item, "err", err)
	}
	row := 0
	all := a.unclaimed()
	for n, h := range all {
		err := a.claimOne(ctx, h)
		if a.silent(ctx, h, err, &row) {
			a.Log.Warn("the registrar doesn't answer; homes are claimed once it does", "homes", len(all)-n, "err", err)
			return left + len(all) - n + len(a.Items.Ending())
		}
		switch {
		case err != nil && away(err):
			failed(h, err)
		case final(err):
			a.Log.Error("what is here is said to live elsewhere", "avatar", h.Avatar, "item", h.item, "err", err)
		case err != nil:
			failed(h, err)
		}
	}
	return left + a.tellEnds(ctx)
}

// ItemsEnd implements item.Homes: the register is told at once.
func (a *Agent) ItemsEnd() {
	select {
	case a.ends <- struct{}{}:
	default: // it is to be told already
	}
}

// tellEnds tells the register which items have ended, and returns of how many it couldn't
// be told.
func (a *Agent) tellEnds(ctx context.Context) (left int) {
	row := 0
	all := a.Items.Ending()
	for n, h := range all {
		err := a.tellEnded(ctx, h)
		if err != nil {
			left++
			a.Log.Warn("the register isn't told yet that an item has ended; it is tried again", "item", h.Item, "err", err)
		}
		if a.silent(ctx, homeOfItem(h), err, &row) {
			return left + len(all) - n - 1
		}
	}
	return left
}

// claimOne claims a home, if it wasn't since the start, or has what is here leave if the
// register says that it is elsewhere.
func (a *Agent) claimOne(ctx context.Context, h homeHere) error {
	_, err := a.settled(ctx, h.Registrar, h.Home) // a change that is under way has named its number
	switch {
	case carnet.CodeOf(err) == carnet.Conflict && h.item != (carnet.ItemID{}):
		err = a.itemGone(ctx, h.Registered)
	case carnet.CodeOf(err) == carnet.Conflict:
		err = a.gone(ctx, h.Registered)
	default:
		return err
	}
	if final(err) { // it is elsewhere, and that is to be known
		return carnet.Errorf(carnet.Unavailable, "%v", err)
	}
	return err
}

// tellEnded tells the register how long the chain of an item is that has ended: what was
// made of it before brings it nowhere any more. One that is elsewhere isn't this world's
// to end.
func (a *Agent) tellEnded(ctx context.Context, h item.Home) error {
	done := a.claiming.of(h.Home)
	_, err := a.claimNow(ctx, h.Registrar, h.Home, h.Entries)
	done()
	if carnet.CodeOf(err) == carnet.Conflict {
		err = a.endKnown(ctx, h) // a registrar that doesn't let this world ask says no, too
	}
	if err != nil {
		return err
	}
	return a.Items.Ended(ctx, h.Item)
}

// endKnown reports no error if the register knows that an item has ended, or lives
// elsewhere.
func (a *Agent) endKnown(ctx context.Context, h item.Home) error {
	registrar, err := a.registrarOf(h.Registrar)
	if err != nil {
		return err
	}
	is, _, err := registrar.Home(ctx, h.Home)
	if err == nil && is.World == a.did && is.Erased == "" && is.Chain < uint64(h.Entries) {
		err = carnet.Errorf(carnet.Unavailable, "the registrar doesn't take that the item has ended, and says that it is here").WithFix("see whether its operator lets this world claim homes")
	}
	return err
}

// findHomes asks the register of the avatars that an owner's key is pinned with and of
// whose home nothing is known: this store may be from before they were registered, and
// have moved away since.
func (a *Agent) findHomes(ctx context.Context) error {
	for _, v := range a.World.Avatars() {
		if _, known := a.homeOf(v.ID); known || len(v.OwnerKey) != ed25519.PublicKeySize {
			continue
		}
		h, err := a.HomeOf(v.ID)
		if carnet.CodeOf(err) == carnet.NotFound {
			continue // it has gone meanwhile
		} else if err != nil {
			return err
		}
		registrar, err := a.registrarOf(h.Registrar)
		if err != nil {
			return err
		}
		switch _, _, err := registrar.Home(ctx, h.Home); {
		case carnet.CodeOf(err) == carnet.NotFound:
			continue // nobody has had it registered
		case err != nil:
			return err
		}
		if err := a.NoteHome(ctx, h); err != nil {
			return err
		}
	}
	return nil
}

// unnoted lists the homes of avatars that have left by a crossing of which nothing is
// stored: a crash came between.
func (a *Agent) unnoted() (all []Registered) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for id, h := range a.homes {
		if d, err := a.World.Departed(id); err == nil && a.sources[d.Crossing] == nil {
			all = append(all, h.Registered)
		}
	}
	return all
}

// homeHere is the home of an avatar or item that is here.
type homeHere struct {
	Registered
	item carnet.ItemID // zero: it is the avatar's
}

func homeOfItem(h item.Home) homeHere {
	return homeHere{Registered{Home: h.Home, Registrar: h.Registrar, Owner: h.Owner}, h.Item}
}

// unclaimed lists the homes that weren't claimed since the start, of avatars and items
// that are here and aren't frozen.
func (a *Agent) unclaimed() (all []homeHere) {
	items := a.Items.Homes()
	a.mu.RLock()
	defer a.mu.RUnlock()
	frozen := make(map[carnet.AvatarID]bool)
	for _, l := range a.sources {
		frozen[l.Avatar] = frozen[l.Avatar] || !l.alone() && (l.State == Frozen || l.State == Gone)
	}
	for id := range a.farewells {
		frozen[id] = true
	}
	for id, h := range a.homes {
		if _, err := a.World.Avatar(id); err == nil && a.claimed[h.Home] == 0 && !frozen[id] {
			all = append(all, homeHere{Registered: h.Registered})
		}
	}
	for _, h := range items {
		if a.claimed[h.Home] == 0 && h.Frozen == (carnet.CrossingID{}) {
			all = append(all, homeOfItem(h))
		}
	}
	return all
}

// claim raises a home's incarnation at the register, once since the start, and
// returns it: what was released before this process began is worth nothing then,
// unless the avatar or item was frozen, and isn't claimed. Of an item's home it says how
// many entries the item's chain has.
func (a *Agent) claim(ctx context.Context, did string, home carnet.HomeID) (uint64, error) {
	defer a.claiming.of(home)() // twice at once would void what is released between
	a.mu.RLock()
	incarnation := a.claimed[home]
	a.mu.RUnlock()
	if incarnation != 0 {
		return incarnation, nil
	}
	if a.saidFarewellTo(home) {
		return 0, carnet.Errorf(carnet.Conflict, "this world has said farewell to the avatar, which keeps still").
			WithFix("its owner brings its passport to another world (carnet avatar import); one that didn't arrive is given again: carnet avatar export --farewell")
	}
	at, _ := a.Items.At(home)
	return a.claimNow(ctx, did, home, at.Entries)
}

// settled is claim of what keeps still, once a change of the item's chain that was under
// way is over: no other change is begun, so what is claimed holds.
func (a *Agent) settled(ctx context.Context, did string, home carnet.HomeID) (uint64, error) {
	defer a.chaining.of(home)()
	return a.claim(ctx, did, home)
}

// claimNow is claim, however often, with the number of entries that an item's chain has,
// or is to have; 0: it is no item's. While the answer isn't there, the home counts as not
// claimed: the register may have raised the incarnation all the same. The caller has the
// home's turn.
func (a *Agent) claimNow(ctx context.Context, did string, home carnet.HomeID, entries int) (uint64, error) {
	a.mu.Lock()
	delete(a.claimed, home)
	a.mu.Unlock()
	registrar, err := a.registrarOf(did)
	if err != nil {
		return 0, err
	}
	var answer identity.HomeAnswer
	if entries > 0 {
		answer, _, err = registrar.ClaimItem(ctx, home, uint64(entries))
	} else {
		answer, _, err = registrar.Claim(ctx, home)
	}
	if carnet.CodeOf(err) == carnet.Forbidden {
		return 0, carnet.Errorf(carnet.Conflict, "the register says that the home %s is elsewhere by now", home).
			WithFix("this world's store may have been restored from an older copy; the world where it is has it")
	}
	if err != nil {
		return 0, err
	}
	if answer.Erased != "" {
		return 0, carnet.Errorf(carnet.Conflict, "the register says that the avatar is erased, by its owner's order").
			WithFix("this world's store may have been restored from an older copy; what it still has is erased at its next start")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.claimed[home] = answer.Incarnation
	return answer.Incarnation, nil
}

// unclaim forgets what was claimed of homes that come here: when they were here before,
// they had other incarnations.
func (a *Agent) unclaim(homes []identity.HomeAt) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, h := range homes {
		delete(a.claimed, h.Home)
	}
}

// EnrolItem implements item.Homes: with the owner's key that is registered for the
// avatar's home, so that one order can name both.
func (a *Agent) EnrolItem(ctx context.Context, avatar carnet.AvatarID) (item.Enrolled, error) {
	h, err := a.enrol(ctx, avatar)
	if err != nil {
		return item.Enrolled{}, err
	}
	registrar, err := a.registrarOf(h.Registrar)
	if err != nil {
		return item.Enrolled{}, err
	}
	home := carnet.NewHomeID()
	_, reply, err := registrar.Enrol(ctx, home, h.Owner)
	return item.Enrolled{Home: home, Registrar: h.Registrar, Owner: h.Owner, Answer: reply.Record, Proof: identity.OnLedger(reply.Proof)}, err
}

// OwnerOf implements item.Homes.
func (a *Agent) OwnerOf(ctx context.Context, avatar carnet.AvatarID) (string, error) {
	h, err := a.enrol(ctx, avatar)
	return h.Owner, err
}

// ChangeItem implements item.Homes. It claims each time: what a passport has of an item is
// worth nothing once that is changed. What keeps still isn't claimed: a release, or a
// farewell, may be of it.
func (a *Agent) ChangeItem(ctx context.Context, registrar string, home carnet.HomeID, change func() error) error {
	defer a.chaining.of(home)()
	was, here := a.Items.At(home)
	switch {
	case !here:
		return carnet.Errorf(carnet.Conflict, "the item whose home is %s isn't here any more", home)
	case was.Frozen != (carnet.CrossingID{}):
		return carnet.Errorf(carnet.Conflict, "the item %s keeps still for the crossing %s", was.Item, was.Frozen).WithFix("wait until that is decided: carnet avatar status %s", was.Frozen)
	}
	done := a.claiming.of(home)
	_, err := a.claimNow(ctx, registrar, home, was.Entries+1)
	done()
	if err == nil {
		err = change()
	} else if carnet.CodeOf(err) == carnet.Conflict {
		return err
	}
	if is, still := a.Items.At(home); still && is.Entries != was.Entries+1 {
		a.unchanged(ctx, is)
	}
	return err
}

// unchanged has the register told how many entries an item's chain has, which was to have
// another number: now, or else soon. The caller has the chain's turn.
func (a *Agent) unchanged(ctx context.Context, is item.Home) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tellTime)
	defer cancel()
	done := a.claiming.of(is.Home)
	_, err := a.claimNow(ctx, is.Registrar, is.Home, is.Entries)
	done()
	if err != nil {
		a.again(homeOfItem(is))
	}
}

// tellTime is how long somebody who changes an item waits for the register to hear that
// it wasn't changed.
const tellTime = 5 * time.Second

// checkHome refuses what the register doesn't say of a home: that it is at a world, and
// whose it is.
func (a *Agent) checkHome(ctx context.Context, h Registered, world string) error {
	registrar, err := a.registrarOf(h.Registrar)
	if err != nil {
		return err
	}
	is, _, err := registrar.Home(ctx, h.Home)
	if err != nil {
		return err
	}
	if is.World != world || is.Owner != h.Owner {
		return carnet.Errorf(carnet.Forbidden, "the register doesn't say that the avatar's home is there, and of that owner").WithFix("have it described anew by the world where it lives")
	}
	return nil
}

// registrarOf returns a register that an order or a home names.
func (a *Agent) registrarOf(did string) (Registrar, error) {
	registrar, asked, err := a.Registrar()
	if err == nil && asked != did {
		err = carnet.Errorf(carnet.Unavailable, "the home is registered at %s, which is not the register that this world asks", did).
			WithFix("peer this world with the depot that keeps it")
	}
	return registrar, err
}

// ask puts a petition to the registrar that an order names.
func (a *Agent) ask(ctx context.Context, x carnet.CrossingID, p register.Petition) (*register.Decided, error) {
	order, err := identity.OpenWish(p.Order)
	if err != nil {
		return nil, err
	}
	registrar, err := a.registrarOf(order.Registrar)
	if err != nil {
		return nil, err
	}
	return registrar.Decide(ctx, x, p)
}
