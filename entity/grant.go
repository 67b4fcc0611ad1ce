package entity

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"carnet"
	"carnet/activity"
	"carnet/identity"
	"carnet/ledger"
	"carnet/policy"
)

// To is to whom a grant is given: exactly one of the three. It compares with ==.
type To struct {
	Application string         `json:"application,omitempty" doc:"An application's id." maxLength:"64"`
	Avatar      string         `json:"avatar,omitempty" doc:"An avatar of this world, by its id." maxLength:"64"`
	Platform    carnet.PartyID `json:"platform,omitempty" doc:"Another world, with did." maxLength:"32"`
	DID         string         `json:"did,omitempty" doc:"An avatar of that world, by its did:key." maxLength:"128"`
}

func (t To) String() string {
	switch {
	case t.Application != "":
		return "application " + t.Application
	case t.Avatar != "":
		return "avatar " + t.Avatar
	}
	return t.DID + " of " + string(t.Platform)
}

func (t To) check() error {
	given := 0
	for _, is := range []bool{t.Application != "", t.Avatar != "", t.Platform != "" || t.DID != ""} {
		if is {
			given++
		}
	}
	if given != 1 {
		return carnet.Errorf(carnet.Malformed, "a grant is to an application, to an avatar of this world, or to an avatar of another world (platform and did): name one").
			WithFix("with carnet grant give: --application ID, --to-avatar ID, or --platform WORLD with --did DID")
	}
	if t.Avatar != "" {
		if id, err := carnet.ParseAvatarID(t.Avatar); err != nil || id.String() != t.Avatar {
			return carnet.Errorf(carnet.Malformed, "the avatar %.64q is no avatar's id", t.Avatar)
		}
	}
	if t.Platform != "" || t.DID != "" {
		if _, err := carnet.ParsePartyID(string(t.Platform)); err != nil {
			return err
		}
		if _, err := identity.ParseDID(t.DID); err != nil {
			return err
		}
	}
	return nil
}

// toOf is how grants name the guard's principal.
func toOf(p policy.Principal) To {
	switch p.Kind {
	case policy.Application:
		return To{Application: p.Name}
	case policy.AvatarSelf:
		return To{Avatar: p.Name}
	case policy.Foreign:
		platform, did, _ := strings.Cut(p.Name, " ")
		return To{Platform: carnet.PartyID(platform), DID: did}
	}
	return To{}
}

// ForeignPrincipal is an avatar of another world, as the guard knows it.
func ForeignPrincipal(platform carnet.PartyID, did string) policy.Principal {
	return policy.Principal{Kind: policy.Foreign, Name: string(platform) + " " + did}
}

// Terms is what a grant says: who may do what about which avatar, and how exactly
// they see it.
type Terms struct {
	Avatar  carnet.AvatarID   `json:"avatar" doc:"Which avatar may be read." example:"00112233445566778899aabbccddeeff"`
	To      To                `json:"to"`
	Actions []identity.Action `json:"actions" doc:"read (state, history), subscribe (live), move (only to another world)." example:"[\"read\",\"subscribe\"]" minItems:"1" maxItems:"3"`
	View    policy.View       `json:"view"`
	Purpose string            `json:"purpose" doc:"What it may be used for, in one word." example:"coaching" minLength:"1" maxLength:"64"`
	Ceiling *Clearance        `json:"ceiling,omitempty" doc:"The most that may flow; left out, the receiver's clearance is."`
	Onward  bool              `json:"onward,omitempty" doc:"Whether the receiver may pass on what it reads."`
	Expires time.Time         `json:"expires" doc:"When it ends: at most 366 days away." example:"2027-06-01T00:00:00Z"`
	// Units are what the receiver would rather have; the assessment says how to get
	// there.
	Units map[string]string `json:"units,omitempty" doc:"Units that the receiver wants, by property: the assessment says how it gets there."`
}

// Grant is terms that are in force, or were.
type Grant struct {
	ID      string `json:"id"`
	Version uint64 `json:"version"`
	Terms
	Assessment string     `json:"assessment" doc:"Fingerprint of the report that was read before."`
	By         string     `json:"by"`
	Given      time.Time  `json:"given"`
	Revoked    *time.Time `json:"revoked,omitempty"`
	RevokedBy  string     `json:"revoked_by,omitempty"`
}

func (g *Grant) documentVersion() uint64   { return g.Version }
func (g *Grant) setVersion(version uint64) { g.Version = version }

// holds reports whether a grant is in force.
func (g *Grant) holds(now time.Time) bool { return g.Revoked == nil && now.Before(g.Expires) }

// receiverIs reports whether who a grant is to is there. Another world's avatar
// is not this agent's to know.
func (g *Grant) receiverIs(principals map[string]*Principal) bool {
	return g.To.Application == "" || principals[g.To.Application] != nil
}

// gives reports whether the grant gives an action of the guard's.
func (g *Grant) gives(action identity.Action) bool { return slices.Contains(g.Actions, action) }

func sortByGiven(of []*Grant) {
	slices.SortFunc(of, func(g, h *Grant) int { return cmp.Or(g.Given.Compare(h.Given), cmp.Compare(g.ID, h.ID)) })
}

// maxShown is how many properties a grant's view names at most.
const maxShown = 64

// maxLife is how long a grant lasts at most.
const maxLife = 366 * 24 * time.Hour

// check refuses terms that can't be.
func (t Terms) check(now time.Time) error {
	if err := t.To.check(); err != nil {
		return err
	}
	seen := make(map[identity.Action]bool)
	for _, a := range t.Actions {
		if a != identity.ActionRead && a != identity.ActionSubscribe && a != identity.ActionMove || seen[a] {
			return carnet.Errorf(carnet.Malformed, "the action %.40q of a grant is unknown, or stands twice: want read, subscribe or move", a)
		}
		seen[a] = true
	}
	switch {
	case len(t.Actions) == 0:
		return carnet.Errorf(carnet.Malformed, "a grant names at least one action: read, subscribe or move")
	case seen[identity.ActionMove] && t.To.Platform == "":
		return carnet.Errorf(carnet.Malformed, "only another world may take an avatar over").WithFix("leave out move")
	case !word(t.Purpose):
		return carnet.Errorf(carnet.Malformed, "the purpose %.80q is not a word of a-z, 0-9, '_', '.' and '-'", t.Purpose)
	case len(t.View.Properties) == 0 && (len(t.Actions) > 1 || !seen[identity.ActionMove]): // an item may move without what was measured
		return carnet.Errorf(carnet.Malformed, "the grant's view shows nothing").WithFix("name at least one property")
	case len(t.View.Properties) > maxShown:
		return carnet.Errorf(carnet.TooLarge, "the grant's view names %d properties: at most %d, since a cursor carries what their rates remember", len(t.View.Properties), maxShown).
			WithFix("name objects as a whole, or give two grants")
	case t.View.Store != "" || !t.View.Send.Always():
		return carnet.Errorf(carnet.Malformed, "the grant's view has store or send, which nothing enforces for who reads here").WithFix("leave them out")
	case !now.Before(t.Expires):
		return carnet.Errorf(carnet.Malformed, "the grant ends at %s, which is past", t.Expires.UTC().Format(time.RFC3339)).WithFix("name a time to come")
	case t.Expires.Sub(now) > maxLife:
		return carnet.Errorf(carnet.Malformed, "the grant ends at %s, more than 366 days away", t.Expires.UTC().Format(time.RFC3339)).WithFix("give it for a year, and anew then")
	}
	if t.Ceiling != nil {
		return t.Ceiling.check()
	}
	return nil
}

var errAssessment = carnet.Errorf(carnet.Conflict, "the assessment isn't the one that was read").WithFix("assess it anew: what the avatar has, who receives it, or the terms are other ones than before")

// Give gives a grant. The fingerprint is of the assessment that was read: if it
// would say something else now, the grant is refused (carnet.Conflict).
func (a *Agent) Give(ctx context.Context, by string, t Terms, fingerprint string) (Grant, error) {
	report, assessed, err := a.assess(ctx, t) // it takes long: nothing that is to end waits for it
	if err != nil {
		return Grant{}, err
	}
	if fingerprint != report.Fingerprint {
		return Grant{}, errAssessment
	}
	a.changing.Lock()
	defer a.changing.Unlock()
	now := a.cfg.Now()
	if err := a.bounded(&t); err != nil {
		return Grant{}, err
	}
	switch r, _, err := a.reader(t); { // who receives it may be another meanwhile, or gone
	case err != nil:
		return Grant{}, err
	case r != assessed:
		return Grant{}, errAssessment
	}
	all, ofBy, ofTo := a.inForce(now, by, t.To)
	if all >= maxGrants || ofBy >= a.cfg.GrantsOfGiver || ofTo >= maxGrantsOfTo {
		return Grant{}, carnet.Errorf(carnet.TooLarge, "there are %d grants in force, %d given by %s, and %d of these to that receiver: at most %d, %d and %d there may be",
			all, ofBy, by, ofTo, maxGrants, a.cfg.GrantsOfGiver, maxGrantsOfTo).WithFix("revoke some, or have the operator raise limits.grants_of_giver")
	}
	g := Grant{ID: newID(), Version: 1, Terms: t, Assessment: fingerprint, By: by, Given: now.UTC()}
	g.Expires = g.Expires.UTC()
	return g, a.store(ctx, change{kindGrant, g.ID, 1, &g, ledger.Statement{Kind: ledger.GrantGiven, Avatar: t.Avatar, PolicyVersion: 1}, a.ended(now, by)})
}

// inForce counts the grants that are: all, those that one gave, and those of them to a
// receiver. What others give it doesn't count: nobody else could take that back.
func (a *Agent) inForce(now time.Time, by string, to To) (all, ofBy, ofTo int) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, g := range a.grants {
		if !g.holds(now) {
			continue
		}
		all++
		if g.By != by {
			continue
		}
		ofBy++
		if g.To == to {
			ofTo++
		}
	}
	return all, ofBy, ofTo
}

// over is when a grant that isn't in force ended.
func (g *Grant) over() time.Time {
	if g.Revoked != nil && g.Revoked.Before(g.Expires) {
		return *g.Revoked
	}
	return g.Expires
}

// ended makes the deletions of grants that ended long ago, and of those beyond as
// many as are kept of who gives one now, some at a time.
func (a *Agent) ended(now time.Time, by string) (gone []carnet.Document) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	var own []*Grant
	drop := func(g *Grant) {
		if len(gone) < clearEnded {
			gone = append(gone, carnet.Document{Kind: kindGrant, ID: g.ID, Version: g.Version + 1})
		}
	}
	for _, g := range a.grants {
		switch {
		case g.holds(now):
		case now.Sub(g.over()) > keepEnded:
			drop(g)
		case g.By == by:
			own = append(own, g)
		}
	}
	if len(own) >= endedOfBy {
		slices.SortFunc(own, func(g, h *Grant) int { return g.over().Compare(h.over()) })
		for _, g := range own[:len(own)-endedOfBy+1] {
			drop(g)
		}
	}
	return gone
}

// Revoke ends a grant, and what lives by it before it returns. Revoked again, it
// stays as it is.
func (a *Agent) Revoke(ctx context.Context, by, id string) (Grant, error) {
	a.changing.Lock()
	defer a.changing.Unlock()
	g, err := a.Grant(id)
	if err != nil || g.Revoked != nil {
		return g, err
	}
	now := a.cfg.Now().UTC()
	g.Version, g.Revoked, g.RevokedBy = g.Version+1, &now, by
	err = a.store(ctx, change{kindGrant, id, g.Version, &g, ledger.Statement{Kind: ledger.GrantRevoked, Avatar: g.Avatar, PolicyVersion: g.Version}, nil})
	if carnet.CodeOf(err) == carnet.Conflict { // another process was first
		if err := a.load(ctx); err != nil {
			return g, err
		}
		return a.Grant(id)
	}
	return g, err
}

// Grant returns a grant; carnet.NotFound if there is none.
func (a *Agent) Grant(id string) (Grant, error) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if g := a.grants[id]; g != nil {
		return *g, nil
	}
	return Grant{}, carnet.Errorf(carnet.NotFound, "there is no grant %.64q", id).WithFix("list the grants")
}

// Grants lists all grants, oldest first; of is nil for everybody's.
func (a *Agent) Grants(of *policy.Principal) []Grant {
	a.mu.RLock()
	defer a.mu.RUnlock()
	var all []*Grant
	for _, g := range a.grants {
		if of == nil || g.To == toOf(*of) || of.Kind == policy.AvatarSelf && g.Avatar.String() == of.Name {
			all = append(all, g)
		}
	}
	sortByGiven(all)
	grants := make([]Grant, 0, len(all))
	for _, g := range all {
		grants = append(grants, *g)
	}
	return grants
}

// find returns the newest grant that holds and gives an action, and whether any
// holds at all. The caller holds mu.
func (a *Agent) find(to To, avatar carnet.AvatarID, action identity.Action, purpose string) (found *Grant, visible bool) {
	now := a.cfg.Now()
	for _, g := range slices.Backward(a.index[receiver{to, avatar}]) {
		if !g.holds(now) || a.bounded(&g.Terms) != nil {
			continue
		}
		visible = true
		if (action == "" || g.gives(action)) && (purpose == "" || g.Purpose == purpose) {
			return g, true
		}
	}
	return nil, visible
}

// Find returns the grant to an avatar of another world about one of this, for an
// action and purpose: from memory. carnet.Forbidden if there is none.
func (a *Agent) Find(platform carnet.PartyID, did string, avatar carnet.AvatarID, action identity.Action, purpose string) (Grant, error) {
	if !a.fresh() {
		return Grant{}, errStale
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	g, _ := a.find(To{Platform: platform, DID: did}, avatar, action, purpose)
	if g == nil {
		if err := a.forbidden(To{Platform: platform, DID: did}, avatar, action); err != nil {
			return Grant{}, err
		}
		return Grant{}, carnet.Errorf(carnet.Forbidden, "there is no grant to %s of %s for %s of avatar %s with the purpose %q", did, platform, action, avatar, purpose).
			WithFix("have one given: carnet grant give")
	}
	return *g, nil
}

// Holds returns a grant if it has this version and is in force: from memory.
// carnet.Forbidden otherwise.
func (a *Agent) Holds(id string, version uint64) (Grant, error) {
	if !a.fresh() {
		return Grant{}, errStale
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	g := a.grants[id]
	if g == nil || g.Version != version || !g.holds(a.cfg.Now()) || !g.receiverIs(a.principals) {
		return Grant{}, carnet.Errorf(carnet.Forbidden, "the grant %s is over, or isn't what it was any more", id)
	}
	if err := a.bounded(&g.Terms); err != nil {
		return Grant{}, err
	}
	return *g, nil
}

// uses says which action of a grant an action of the guard's is; empty: any.
func uses(action policy.Action) identity.Action {
	switch action {
	case "get-state", "get-history":
		return identity.ActionRead
	case "watch-avatar":
		return identity.ActionSubscribe
	}
	return ""
}

// What is said of avatars that get something which isn't to be passed on: a reader
// under a grant is somebody that it would be passed on to.
const (
	nothingOnward = "all that the avatar is given comes by shares of other worlds, which don't let it be passed on"
	notAllOnward  = "what comes to the avatar by a share that doesn't let it be passed on is left out"
)

// Know finds out about a principal and an avatar, for the guard: from memory.
func (a *Agent) Know(who policy.Principal, action policy.Action, avatar carnet.AvatarID) (activity.Known, error) {
	if who.Kind == policy.AvatarSelf && who.Name == avatar.String() {
		return activity.Known{Facts: policy.Facts{Own: true}, Visible: true}, nil
	}
	to := toOf(who)
	if to == (To{}) {
		return activity.Known{}, nil
	}
	if !a.fresh() {
		return activity.Known{}, errStale
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	g, visible := a.find(to, avatar, uses(action), "")
	if g == nil {
		known := activity.Known{Visible: visible}
		if err := a.forbidden(to, avatar, uses(action)); err != nil { // it was given, so it may be told
			known.Visible, known.Why = true, err.Error()
		}
		return known, nil
	}
	return a.knownBy(g), nil
}

// KnowBy is Know for who calls by one grant, as another world's avatar has proved:
// no other counts, however much it gives.
func (a *Agent) KnowBy(id string, version uint64, action policy.Action, avatar carnet.AvatarID) (activity.Known, error) {
	g, err := a.Holds(id, version)
	use := uses(action)
	if carnet.CodeOf(err) == carnet.Forbidden || err == nil && (g.Avatar != avatar || use != "" && !g.gives(use)) {
		return activity.Known{}, nil
	}
	if err != nil {
		return activity.Known{}, err
	}
	return a.knownBy(&g), nil
}

// knownBy is what a grant that holds says of its receiver and its avatar.
func (a *Agent) knownBy(g *Grant) activity.Known {
	known := activity.Known{Facts: policy.Facts{Granted: true, Onward: g.Onward, Purpose: g.Purpose}, Grant: g.ID, Visible: true}
	switch some, all := a.cfg.Avatars.Onward(g.Avatar); {
	case !some:
		known.Facts.Granted = false
		known.Why = nothingOnward
	case !all:
		known.Why = notAllOnward
	}
	return known
}

// Visible lists the avatars that a principal knows of.
func (a *Agent) Visible(who policy.Principal) map[carnet.AvatarID]bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	now, to, all := a.cfg.Now(), toOf(who), make(map[carnet.AvatarID]bool)
	for _, g := range a.grants {
		if g.To == to && g.holds(now) && a.bounded(&g.Terms) == nil {
			all[g.Avatar] = true
		}
	}
	if id, err := carnet.ParseAvatarID(who.Name); err == nil && who.Kind == policy.AvatarSelf {
		all[id] = true
	}
	return all
}
