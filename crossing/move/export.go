package move

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"maps"
	"slices"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/identity"
	"carnet/item"
	"carnet/seal"
)

// OwnerReader is how an owner is called in key bags.
const OwnerReader carnet.PartyID = "owner"

// Wish is what somebody wants a passport of.
type Wish struct {
	Avatar   carnet.AvatarID
	Signer   ed25519.PublicKey // that will sign its head
	For      [][]byte          // announcements of reception keys: the owner's, or peers'
	Farewell bool              // the avatar keeps still from now on, for good
}

// Exported is what a passport is made of, beside stretches and proofs.
type Exported struct {
	Word     string
	Manifest []byte
	Bags     [][]byte
	Readers  []SealedTo
	Farewell string
	Policy   string // the avatar's, as its owner signed it; empty: it has none
	// Backup is to be noted (NoteBackup) once the passport is given out; nil: it is none.
	Backup *Backup
}

// SealedTo is to whom key bags are sealed.
type SealedTo struct {
	Reader    carnet.PartyID
	Reception carnet.Fingerprint // id of the reception key
}

// kindFarewell are the documents of farewells, by avatar.
const kindFarewell = "move-farewell"

// farewell is one that this world has signed: it claims that home no more.
type farewell struct {
	Avatar   carnet.AvatarID   `json:"avatar"`
	Passport carnet.CrossingID `json:"passport"` // for which the avatar keeps still
	Farewell string            `json:"farewell"`
}

// Export makes what a passport of an avatar has that lives here, as it is at this
// moment. The avatar goes on living, unless this is a farewell. One that was said is
// given again, with another passport: the first may never have come to anybody. Which of
// them counts the owner says, who orders the recovery.
func (a *Agent) Export(ctx context.Context, w Wish) (e Exported, err error) {
	h, err := a.enrol(ctx, w.Avatar)
	if err != nil {
		return e, err
	}
	if a.keepsStill(w.Avatar) { // a claim would void what was released
		return e, carnet.Errorf(carnet.Conflict, "the avatar keeps still: it moves to another world").
			WithFix("see 'carnet avatar status'; when the move is over, or cancelled, try again")
	}
	incarnation, err := a.actsAs(ctx, h, w.Farewell)
	if err != nil {
		return e, err
	}
	registrar, err := a.registrarOf(h.Registrar)
	if err != nil {
		return e, err
	}
	is, _, err := registrar.Home(ctx, h.Home)
	if err != nil {
		return e, err
	}
	if is.World != a.did || is.Owner != h.Owner {
		return e, carnet.Errorf(carnet.Conflict, "the register says that the avatar's home is elsewhere by now, or another owner's")
	}
	info, err := a.World.Avatar(w.Avatar)
	if err != nil {
		return e, err
	}
	id := carnet.NewCrossingID()
	var still stillFor
	if w.Farewell {
		defer a.saysFarewell(id)()
		if still, err = a.keepStill(ctx, w.Avatar, id); err != nil {
			return e, err
		}
		if !still.said {
			defer func() {
				if err != nil { // nothing was signed
					a.goOnLiving(context.WithoutCancel(ctx), w.Avatar, id)
				}
			}()
			if incarnation, err = a.settled(ctx, h.Registrar, h.Home); err != nil { // nobody claims it from now on
				return e, err
			}
		}
	}
	proofs, err := a.Items.Passported(ctx, w.Avatar, h.Registrar, h.Owner, still.passport)
	if err != nil {
		return e, err
	}
	items, err := a.claimItems(ctx, h.Registrar, proofs, still)
	if err != nil {
		return e, err
	}
	m, err := a.World.PassportManifest(ctx, w.Avatar, id, a.Vouch)
	if err != nil {
		return e, err
	}
	m.Items = proofs
	if e.Manifest, err = m.Marshal(); err != nil {
		return e, err
	}
	for _, announcement := range w.For {
		if err := a.exportKeys(ctx, &e, m, info.OwnerKey, announcement); err != nil {
			return e, err
		}
	}
	now, hash := a.Now().UTC().Truncate(time.Second), carnet.FingerprintOf(e.Manifest)
	bound, err := a.World.Policy(w.Avatar)
	if err != nil {
		return e, err
	}
	e.Policy = bound.Signed
	e.Word, err = identity.SignPassport(a.Key, identity.Passport{
		Passport: id, Source: a.did, World: a.Party, Signer: identity.DID(w.Signer), Registrar: h.Registrar, Home: h.Home, Version: is.Version, Owner: h.Owner, Pinned: identity.DID(info.OwnerKey),
		Avatar: w.Avatar, Key: identity.DID(info.Key), Manifest: hash, Made: now,
	})
	if err == nil && !w.Farewell && slices.ContainsFunc(e.Readers, func(r SealedTo) bool { return r.Reader == OwnerReader }) {
		e.Backup = &Backup{id, now, amountOf(m).Measurements}
	}
	if err != nil || !w.Farewell {
		return e, err
	}
	e.Farewell, err = identity.SignFarewell(a.Key, identity.Farewell{
		Registrar: h.Registrar, Source: a.did, Home: h.Home, Incarnation: incarnation, Items: items, Manifest: hash, Made: now,
	})
	if err != nil {
		return e, err
	}
	return e, a.keepFarewell(ctx, farewell{w.Avatar, still.passport, e.Farewell})
}

// saysFarewell notes that a farewell is being said with a passport, until done: what keeps
// still for it does so for something.
func (a *Agent) saysFarewell(passport carnet.CrossingID) (done func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.saying[passport] = true
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.saying, passport)
	}
}

// goOnLiving has an avatar and its items go on that kept still for a passport whose
// farewell isn't said. What the store doesn't take goes on with the next look at homes.
func (a *Agent) goOnLiving(ctx context.Context, id carnet.AvatarID, passport carnet.CrossingID) {
	err := errors.Join(a.World.Thaw(ctx, id, passport), a.Items.Thaw(ctx, passport))
	if err != nil {
		a.Log.Error("a farewell wasn't said, and what keeps still for it doesn't go on yet; that is tried again", "avatar", id, "passport", passport, "err", err)
	}
}

// actsAs is the incarnation of a home under which this world acts: one that it claims,
// or, of a farewell that is given again, the one under which it was said.
func (a *Agent) actsAs(ctx context.Context, h Registered, forGood bool) (uint64, error) {
	said, again := a.saidFarewell(h.Avatar)
	if !again || !forGood {
		return a.claim(ctx, h.Registrar, h.Home)
	}
	f, err := identity.OpenFarewell(said.Farewell)
	return f.Incarnation, err
}

// stillFor is the passport for which an avatar and its items keep still.
type stillFor struct {
	passport carnet.CrossingID // zero: they don't
	said     bool              // a farewell was said with it before
	items    []identity.Incarnate
}

// keepStill has an avatar keep still for a farewell, from before anything is said of it:
// nothing that it gets, gives or loses comes between. An item that is on its way to it
// comes first.
func (a *Agent) keepStill(ctx context.Context, id carnet.AvatarID, passport carnet.CrossingID) (stillFor, error) {
	defer a.changing.of(id)()
	if said, again := a.saidFarewell(id); again {
		f, err := identity.OpenFarewell(said.Farewell)
		if err != nil {
			return stillFor{}, err
		}
		return stillFor{said.Passport, true, f.Items}, a.World.Freeze(ctx, id, said.Passport)
	}
	if err := a.expects(id); err != nil {
		return stillFor{}, err
	}
	return stillFor{passport: passport}, a.World.Freeze(ctx, id, passport)
}

// claimItems has the register know how many entries the chains of a passport's items
// have, by which alone they come along. Of a farewell it returns their homes in the
// incarnations under which it is said: those of one that was said before stay.
func (a *Agent) claimItems(ctx context.Context, registrar string, proofs []identity.ItemProof, still stillFor) (items []identity.Incarnate, err error) {
	for _, p := range proofs {
		i, err := identity.OpenItem(p.Credential)
		if err != nil {
			return nil, err
		}
		at := slices.IndexFunc(still.items, func(had identity.Incarnate) bool { return had.Home == i.Home })
		if at >= 0 {
			items = append(items, still.items[at])
			continue
		}
		is, here := a.Items.At(i.Home)
		if !here || is.Frozen != still.passport {
			continue // it keeps still for a crossing, which a claim would end
		}
		n, err := a.claimAs(ctx, registrar, i.Home, len(p.Entries))
		if err != nil {
			return nil, err
		}
		items = append(items, identity.Incarnate{Home: i.Home, Incarnation: n})
	}
	slices.SortFunc(items, func(p, q identity.Incarnate) int { return bytes.Compare(p.Home[:], q.Home[:]) })
	if still.passport == (carnet.CrossingID{}) {
		return nil, nil
	}
	return items, nil
}

// claimAs claims an item's home, unless it was since the start and the register knows
// that its chain has so many entries.
func (a *Agent) claimAs(ctx context.Context, did string, home carnet.HomeID, entries int) (uint64, error) {
	defer a.chaining.of(home)()
	n, err := a.claim(ctx, did, home)
	if err != nil {
		return 0, err
	}
	registrar, err := a.registrarOf(did)
	if err != nil {
		return 0, err
	}
	is, _, err := registrar.Home(ctx, home)
	if err != nil || is.Incarnation == n && is.Chain == uint64(entries) {
		return n, err
	}
	if at, here := a.Items.At(home); !here || at.Entries != entries {
		return 0, carnet.Errorf(carnet.Unavailable, "an item of the avatar was changed meanwhile").WithFix("try again")
	}
	defer a.claiming.of(home)()
	return a.claimNow(ctx, did, home, entries)
}

// exportKeys seals the keys of a manifest to an announced reception key: of the
// avatar's owner, or of a world that is a peer.
func (a *Agent) exportKeys(ctx context.Context, e *Exported, m *avatar.Manifest, owner ed25519.PublicKey, announcement []byte) error {
	t := avatar.KeyTerms{Granter: a.Party, Signer: a.Key}
	var err error
	if t.Reception, err = seal.ParseReception(announcement, owner, a.Now()); err == nil && t.Reception.Reader == OwnerReader {
		t.Owner = true
	} else if t, err = a.peersTerms(t, announcement); err != nil {
		return err
	}
	bags, err := a.World.KeyBags(ctx, m, t)
	if err != nil {
		return err
	}
	e.Bags = append(e.Bags, bags...)
	e.Readers = append(e.Readers, SealedTo{t.Reception.Reader, t.Reception.ID})
	return nil
}

// peersTerms finds the peer that announces a reception key.
func (a *Agent) peersTerms(t avatar.KeyTerms, announcement []byte) (avatar.KeyTerms, error) {
	for _, p := range a.Peers.All() {
		reception, err := seal.ParseReception(announcement, p.Key, a.Now())
		if err != nil || reception.Reader != p.OwnName {
			continue
		}
		if p.Clearance.Purposes == "" {
			return t, carnet.Errorf(carnet.Forbidden, "nothing may be given to %s: its peering names no purpose", p.Party).WithFix("agree on new terms: carnet peer invite")
		}
		t.Reception, t.Clearance, t.Purpose = reception, p.Clearance, p.Clearance.Purposes.Words()[0]
		return t, nil
	}
	return t, carnet.Errorf(carnet.Forbidden, "a reception key is neither announced by the avatar's owner, with the key that is pinned here, nor by a world that is a peer; or its time is over").
		WithFix("owner: carnet owner keystore reception; world: carnet avatar announcement")
}

// document names a farewell's document.
func (f farewell) document() string { return f.Avatar.String() + "/" + f.Passport.String() }

// keepFarewell stores a farewell, in the place of the one that was given before.
func (a *Agent) keepFarewell(ctx context.Context, f farewell) error {
	defer a.changing.of(f.Avatar)()
	version, err := a.World.OneKept(ctx, kindFarewell, f.document(), new(farewell))
	if err != nil && carnet.CodeOf(err) != carnet.NotFound {
		return err
	}
	kept := avatar.Kept{Kind: kindFarewell, ID: f.document(), Version: version + 1, Body: f}
	if err := a.World.Keep(ctx, []avatar.Kept{kept}, nil); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.farewells[f.Avatar] = f
	return nil
}

// saidFarewellTo reports whether this world has said farewell to the avatar of a home.
func (a *Agent) saidFarewellTo(home carnet.HomeID) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for id := range a.farewells {
		if h := a.homes[id]; h != nil && h.Home == home {
			return true
		}
	}
	return false
}

// saidFarewell returns the farewell that this world has said to an avatar.
func (a *Agent) saidFarewell(id carnet.AvatarID) (f farewell, said bool) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	f, said = a.farewells[id]
	return f, said
}

// LetGo has an avatar that keeps still for a farewell go on, so that it can be erased;
// or leave, if it has been recovered elsewhere since.
func (a *Agent) LetGo(ctx context.Context, id carnet.AvatarID) error {
	h, known := a.homeOf(id)
	if _, said := a.saidFarewell(id); !said || !known {
		return nil
	}
	if err := a.gone(ctx, h); err != nil {
		return err
	}
	defer a.changing.of(id)()
	return a.letGo(ctx, id)
}

// letGo ends that an avatar keeps still for a passport with a farewell.
func (a *Agent) letGo(ctx context.Context, id carnet.AvatarID) error {
	f, said := a.saidFarewell(id)
	if !said {
		return nil
	}
	if err := a.World.Thaw(ctx, id, f.Passport); err != nil && carnet.CodeOf(err) != carnet.NotFound {
		return err
	}
	return a.Items.Thaw(ctx, f.Passport)
}

// forgetFarewell forgets what was said to an avatar that isn't here any more: what comes
// back under its home is this world's again, to claim and to move.
func (a *Agent) forgetFarewell(ctx context.Context, id carnet.AvatarID) error {
	f, said := a.saidFarewell(id)
	if !said {
		return nil
	}
	version, err := a.World.OneKept(ctx, kindFarewell, f.document(), new(farewell))
	if err == nil {
		err = a.World.Keep(ctx, []avatar.Kept{{Kind: kindFarewell, ID: f.document(), Version: version + 1}}, nil)
	}
	if err != nil && carnet.CodeOf(err) != carnet.NotFound {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.farewells, id)
	return nil
}

// forgetFarewells forgets those to avatars that have gone: a crash came between.
func (a *Agent) forgetFarewells(ctx context.Context) error {
	for _, id := range slices.Collect(maps.Keys(a.farewells)) {
		if _, err := a.World.Departed(id); err != nil {
			continue
		}
		if err := a.forgetFarewell(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

// thawStrays has avatars and items go on that keep still for nothing that was signed: a
// crash came between, or the store took nothing more; and whoever asked asks again.
func (a *Agent) thawStrays(ctx context.Context) error {
	var failed []error
	for _, v := range a.World.Avatars() {
		if x, frozen, err := a.World.Frozen(v.ID); err != nil || frozen && !a.keepsStillFor(x) { // looked at again in its turn
			failed = append(failed, a.thawStray(ctx, v.ID))
		}
	}
	for _, h := range a.Items.Homes() {
		if h.Frozen != (carnet.CrossingID{}) && !a.keepsStillFor(h.Frozen) {
			failed = append(failed, a.thawStrayItems(ctx, h))
		}
	}
	return errors.Join(failed...)
}

func (a *Agent) thawStray(ctx context.Context, id carnet.AvatarID) error {
	defer a.changing.of(id)() // what is being frozen isn't a stray
	x, frozen, err := a.World.Frozen(id)
	if carnet.CodeOf(err) == carnet.NotFound {
		return nil
	} else if err != nil {
		return err
	}
	if !frozen || a.keepsStillFor(x) {
		return nil
	}
	a.Log.Warn("an avatar keeps still for nothing that was signed; it goes on", "avatar", id, "crossing", x)
	if err := a.World.Thaw(ctx, id, x); err != nil {
		return err
	}
	if h, enrolled := a.homeOf(id); enrolled {
		a.claimAnew([]homeHere{{Registered: h}})
	}
	return nil
}

// thawStrayItems is thawStray of all items that keep still for what one does.
func (a *Agent) thawStrayItems(ctx context.Context, h item.Home) error {
	defer a.changing.of(h.Avatar)()
	if is, here := a.Items.At(h.Home); !here || is.Frozen != h.Frozen || a.keepsStillFor(h.Frozen) {
		return nil
	}
	var still []homeHere
	for _, other := range a.Items.Homes() {
		if other.Frozen == h.Frozen {
			still = append(still, homeOfItem(other))
		}
	}
	a.Log.Warn("items keep still for nothing that was signed; they go on", "items", len(still), "crossing", h.Frozen)
	if err := a.Items.Thaw(ctx, h.Frozen); err != nil {
		return err
	}
	a.claimAnew(still)
	return nil
}

// keepsStillFor reports whether there is a reason to keep still for a crossing, or for a
// passport. Who has the turn of the avatar that would is told for as long.
func (a *Agent) keepsStillFor(x carnet.CrossingID) bool {
	s := a.left(x).State
	return s == Frozen || s == Gone || a.saidFor(x) || a.isSaying(x)
}

func (a *Agent) isSaying(passport carnet.CrossingID) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.saying[passport]
}

// saidFor reports whether a farewell was said with a passport.
func (a *Agent) saidFor(passport carnet.CrossingID) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, f := range a.farewells {
		if f.Passport == passport {
			return true
		}
	}
	return false
}
