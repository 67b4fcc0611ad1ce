package move

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/identity"
)

// leaver gives what moves by an order: everything, or what the owner leaves of it.
func (a *Agent) leaver(o SignedOrder) (avatar.Leaver, error) {
	redact := o.Moving().Redact
	if redact == nil {
		return a.World, nil
	}
	order, err := identity.OpenOrder(o.Order)
	if err != nil {
		return nil, err
	}
	return a.World.Redacted(avatar.Redaction{
		Clearance: redact.Clearance(), Order: carnet.FingerprintOf([]byte(o.Order)), Ordered: order.Made, Sign: a.VouchLeft,
	}), nil
}

// redactable refuses a redaction after which there is still more than a world may have.
func redactable(to carnet.PartyID, r identity.Redaction, cleared carnet.Clearance) error {
	if r.Clearance().Within(cleared) {
		return nil
	}
	return carnet.Errorf(carnet.Forbidden, "what the order leaves of the history may not go to %s, which is cleared for less", to).
		WithFix("begin another move, which leaves behind what the target may not have now: carnet avatar move --redact")
}

// byView refuses a redaction by a view, which may give part of a batch.
func byView(redact *identity.Redaction, view []byte) error {
	if redact == nil || len(view) == 0 {
		return nil
	}
	return carnet.Errorf(carnet.Forbidden, "what a view doesn't give can't be left out of a move: a view may give part of a batch, and batches are left out whole, by their labels").
		WithFix("leave out --view, and narrow what its things send there afterwards: carnet thing view set; or leave out --redact")
}

// describeFor says what may be given to a world, and what of an avatar is labelled above
// that.
func (a *Agent) describeFor(ctx context.Context, d *Described, id carnet.AvatarID, to carnet.PartyID) error {
	peer, err := a.Peers.Named(to)
	if err != nil {
		return err
	}
	bound, err := a.World.Policy(id)
	if err != nil {
		return err
	}
	if err := bound.Bounds.MayCross(peer.DID(), to, a.Now()); err != nil {
		return err
	}
	peer.Clearance.Sensitivity &= bound.Bounds.MostHistory()
	d.Clearance = &peer.Clearance
	if d.Ceiling.Exceeds(peer.Clearance) == "" {
		return nil
	}
	if err := a.World.Pack(ctx); err != nil {
		return err
	}
	d.Leaves, err = a.World.WouldLeave(ctx, id, peer.Clearance)
	return err
}

// assessRedacted says what would be left behind, and what comes.
func (a *Agent) assessRedacted(w Wanted) (report []string) {
	say := func(format string, args ...any) {
		line := fmt.Sprintf(format, args...)
		if len(line) > identity.MaxRequestText {
			line = line[:strings.LastIndexByte(line[:identity.MaxRequestText-3], ' ')] + " …"
		}
		report = append(report, line)
	}
	if len(w.Leaves) == 0 {
		say("So far nothing has to be left behind: no batch is labelled above what %s may have.", a.Party)
	}
	for _, l := range w.Leaves[:min(len(w.Leaves), maxLeaves)] {
		what := fmt.Sprintf("%d measurements in %d batches, labelled %s", l.Measurements, l.Batches, labelled(l.Label))
		if len(l.Properties) > 0 {
			what += fmt.Sprintf(", measured %s to %s, of: %s", stamp(l.From), stamp(l.To), strings.Join(l.Properties, ", "))
		}
		say("Left behind, and deleted for good: %s.", what)
		if l.Closed > 0 {
			say("Among those, %d batches can't be opened any more: what they hold isn't counted.", l.Closed)
		}
	}
	if n := len(w.Leaves) - maxLeaves; n > 0 {
		say("And what is labelled in %d more ways.", n)
	}
	say("What else is labelled so until it moves is left behind, too. Everything else comes as it is, with its proofs. What other worlds shared with it stays theirs: those shares end.")
	return report
}

// maxLeaves is how many labels a report lists.
const maxLeaves = 20

// labelled says a label in words.
func labelled(l carnet.Label) string {
	said := l.Sensitivity.String()
	if l.Purposes != "" {
		said += ", bound to the purpose " + strings.Join(l.Purposes.Words(), " or ")
	}
	if l.Residency != "" {
		said += ", bound to the residency " + strings.Join(l.Residency.Words(), " or ")
	}
	return said
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04") }

// checkLeft refuses a manifest that says to have left out something by this order which
// the order doesn't name.
func checkLeft(t atTarget, order identity.Order, m *avatar.Manifest) error {
	redact, hash := t.Moving().Redact, carnet.FingerprintOf([]byte(t.Order))
	for i := range m.Streams {
		s := &m.Streams[i]
		if redact != nil && !s.Slots {
			return carnet.Errorf(carnet.Forbidden, "%s gives keys of epochs of stream %s, which open what was to be left behind", t.From, s.Stream)
		}
		at := slices.IndexFunc(s.Left, func(l avatar.LeftOut) bool { return l.Crossing == t.ID })
		if at < 0 {
			continue
		}
		l := &s.Left[at]
		if redact == nil {
			return carnet.Errorf(carnet.Forbidden, "%s left something out of stream %s without the owner's order", t.From, s.Stream)
		}
		if l.Order != hash || !l.Ordered.Equal(order.Made) {
			return carnet.Errorf(carnet.Forbidden, "%s left something out of stream %s by another order", t.From, s.Stream)
		}
		for j := range l.Runs {
			if r := &l.Runs[j]; r.Label().Exceeds(redact.Clearance()) == "" {
				return carnet.Errorf(carnet.Forbidden, "%s left %d batches out of stream %s that are labelled %s, which the order doesn't", t.From, r.Batches, s.Stream, labelled(r.Label()))
			}
		}
	}
	return nil
}
