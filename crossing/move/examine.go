package move

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"carnet"
	"carnet/identity"
	"carnet/item"
)

// Examine looks for moves that aren't over, for what keeps still or was made for a move
// that isn't there, and for avatars and items of which the register says something else
// than is known here.
func (a *Agent) Examine(ctx context.Context, e *carnet.Examination) error {
	a.examineMoves(e)
	if err := a.examineStill(e); err != nil {
		return err
	}
	a.examineHomes(ctx, e)
	return nil
}

func (a *Agent) examineMoves(e *carnet.Examination) {
	sources := a.AtSource()
	targets, progress := a.AtTarget()
	e.Saw("moves", len(sources)+len(targets))
	for _, l := range sources {
		if !(&atSource{AtSource: l}).open() {
			continue
		}
		reason, fix := fmt.Sprintf("the avatar %s is on its way to %s: %s here", l.Avatar, l.To, l.State), fixOf(l.State)
		if l.State == Gone && !l.Heard && l.Departure == "" {
			reason = fmt.Sprintf("what has gone from the avatar %s to %s is gone here, and %s hasn't said that it has it; what is left of it here is deleted at %s", l.Avatar, l.To, l.To, l.Ended.Add(keepFor).UTC().Format(time.RFC3339))
			fix = fmt.Sprintf("if %s runs and doesn't know of the move, put back a newer copy of its store before then", l.To)
		}
		e.Found(carnet.Finding{Kind: "move", About: l.ID.String(), Since: since(l.Steps, l.Begun), Reason: reason, Fix: fix})
	}
	peer := a.known()
	for _, t := range targets {
		if is := a.came(t.ID); t.State != Asked && !is.open(peer) {
			continue
		}
		reason := fmt.Sprintf("the avatar %s is on its way from %s: %s here", t.To, t.From, t.State)
		if t.State == Home && t.Departure == "" {
			reason = fmt.Sprintf("the avatar %s lives here, and %s, where it lived before, hasn't signed yet that it has deleted what moved", t.To, t.From)
		}
		if waits := progress[t.ID].Waits; waits != "" {
			reason += "; " + waits
		}
		e.Found(carnet.Finding{Kind: "move", About: t.ID.String(), Since: since(t.Steps, t.Begun), Reason: reason, Fix: fixOf(t.State)})
	}
}

// since is when the state began in which a move is.
func since(steps []Step, begun time.Time) time.Time {
	if n := len(steps); n > 0 {
		return steps[n-1].Time
	}
	return begun
}

// fixOf says what a person can do about a move that isn't over.
func fixOf(s State) string {
	switch s {
	case Asked:
		return "its owner orders it ('carnet owner approve'), or it is called off ('carnet avatar cancel')"
	case Offered, Copying:
		return "wait, or call it off ('carnet avatar cancel')"
	}
	return "" // the registrar's decision, or what follows it, can only be waited for
}

// examineStill looks at avatars and items that keep still, and at room for avatars.
func (a *Agent) examineStill(e *carnet.Examination) error {
	for _, v := range a.World.Avatars() {
		x, frozen, err := a.World.Frozen(v.ID)
		if carnet.CodeOf(err) == carnet.NotFound {
			continue // it has gone meanwhile
		} else if err != nil {
			return err
		}
		if a.saidFor(x) || a.isSaying(x) {
			continue // it keeps still for a farewell
		}
		if l := a.left(x); frozen && (l.Avatar != v.ID || l.State.Over() || l.State == None) {
			e.Found(carnet.Finding{
				Kind: "avatar", About: v.ID.String(), Since: l.Ended, Wrong: true,
				Reason: fmt.Sprintf("it keeps still for the crossing %s, which %s here", x, stateOf(l.State)), Fix: "this is a fault of the program: please report it",
			})
		}
	}
	for id, x := range a.World.Arriving() {
		if t := a.came(x); t.State == None || t.State == Dropped {
			e.Found(carnet.Finding{
				Kind: "avatar", About: id.String(), Since: t.Ended, Wrong: true,
				Reason: fmt.Sprintf("there is room for it by the crossing %s, which %s here", x, stateOf(t.State)), Fix: "restart the world, which deletes it",
			})
		}
	}
	items := a.Items.Items()
	e.Saw("items", len(items))
	for _, i := range items {
		if i.State != item.Here {
			continue
		}
		if _, err := a.World.Avatar(i.Avatar); carnet.CodeOf(err) == carnet.NotFound {
			e.Found(carnet.Finding{
				Kind: "item", About: i.ID.String(), Since: i.Since, Wrong: true,
				Reason: fmt.Sprintf("the avatar %s that has it isn't here", i.Avatar), Fix: "retire it ('carnet item retire')",
			})
		}
	}
	for _, h := range a.Items.Homes() {
		if l := a.left(h.Frozen); h.Frozen != (carnet.CrossingID{}) && !a.saidFor(h.Frozen) && !a.isSaying(h.Frozen) && (l.State == None || l.State.Over()) {
			e.Found(carnet.Finding{
				Kind: "item", About: h.Item.String(), Since: l.Ended, Wrong: true,
				Reason: fmt.Sprintf("it keeps still for the crossing %s, which %s here", h.Frozen, stateOf(l.State)), Fix: "this is a fault of the program: please report it",
			})
		}
	}
	return nil
}

func stateOf(s State) string {
	if s == None {
		return "isn't known"
	}
	return "is " + string(s)
}

// Bounds of what is asked of registers.
const (
	askedAtOnce = 8
	askedFor    = 20 * time.Second
)

// known is a home, as this world knows it.
type known struct {
	Registered
	kind, about string
	here        bool // what it is of is here
}

// examineHomes asks the register of every home that is or was here: what is here must
// be at home here, and what is at home here must be here.
func (a *Agent) examineHomes(ctx context.Context, e *carnet.Examination) {
	all := a.knownHomes()
	e.Saw("homes", len(all))
	ctx, cancel := context.WithTimeout(ctx, askedFor)
	defer cancel()
	found, errs := make([]*carnet.Finding, len(all)), make([]error, len(all))
	var asking sync.WaitGroup
	next := make(chan int)
	for range min(askedAtOnce, len(all)) {
		asking.Go(func() {
			for i := range next {
				found[i], errs[i] = a.examineHome(ctx, all[i])
			}
		})
	}
	for i := range all {
		next <- i
	}
	close(next)
	asking.Wait()
	for _, f := range found {
		if f != nil {
			e.Found(*f)
		}
	}
	if errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil }); len(errs) > 0 {
		e.Found(carnet.Finding{
			Kind: "register", About: "homes", Reason: fmt.Sprintf("of %d homes the register couldn't be asked: %v", len(errs), errs[0]),
			Fix: "see that the depot which keeps the register answers ('carnet status'), and examine again",
		})
	}
}

// knownHomes lists the homes of what is here, and of what was and isn't at home at
// another world for all that is known.
func (a *Agent) knownHomes() (all []known) {
	items := a.Items.Homes()
	a.mu.RLock()
	defer a.mu.RUnlock()
	here := make(map[carnet.HomeID]bool)
	for _, h := range a.homes {
		if _, err := a.World.Avatar(h.Avatar); err == nil {
			here[h.Home] = true
			all = append(all, known{h.Registered, "avatar", h.Avatar.String(), true})
		}
	}
	for _, h := range a.homes {
		if !here[h.Home] {
			here[h.Home] = true // asked once
			all = append(all, known{h.Registered, "avatar", h.Avatar.String(), false})
		}
	}
	for _, h := range items {
		all = append(all, known{Registered{Home: h.Home, Registrar: h.Registrar, Owner: h.Owner}, "item", h.Item.String(), true})
	}
	return all
}

func (a *Agent) examineHome(ctx context.Context, h known) (*carnet.Finding, error) {
	registrar, err := a.registrarOf(h.Registrar)
	if err != nil {
		return nil, err
	}
	is, _, err := registrar.Home(ctx, h.Home)
	if carnet.CodeOf(err) == carnet.NotFound {
		return nil, nil // it was to be enrolled, and nobody has asked for that since
	} else if err != nil {
		return nil, err
	}
	f := carnet.Finding{Kind: h.kind, About: h.about, Wrong: true}
	switch {
	case h.here && is.Erased != "":
		f.Reason, f.Fix = "it is here, and the register says that it is erased, by its owner's order", "restart the world, which erases it then"
	case h.here && is.World != a.did && !a.leaves(h):
		f.Reason = fmt.Sprintf("it is here, and the register says that its home is %s", is.World)
		f.Fix = "this world's store may have been restored from an older copy: the world where its home is has it, and this one learns of it when it next claims it"
	case !h.here && is.World == a.did && is.Erased == "" && !a.comes(h.Home):
		f.Reason = "the register says that its home is here, and it isn't"
		f.Fix = "put back a newer copy of this world's store, or let its owner bring a passport to another world ('carnet avatar import')"
	default:
		return nil, nil
	}
	return &f, nil
}

// leaves reports whether a home is one of a move from here that isn't over.
func (a *Agent) leaves(h known) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, l := range a.sources {
		if !l.State.Over() && names(l.Order, h.Home) {
			return true
		}
	}
	return false
}

// comes reports whether a home is one of a move to here that isn't over.
func (a *Agent) comes(home carnet.HomeID) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, t := range a.targets {
		if !t.State.Over() && t.Home.Home == home {
			return true
		}
	}
	return false
}

// names reports whether an order, which was checked when it came, names a home.
func names(order string, home carnet.HomeID) bool {
	o, err := identity.OpenOrder(order)
	return err == nil && slices.Contains(o.Homes, home)
}
