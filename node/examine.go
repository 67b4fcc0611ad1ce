package node

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"carnet"
	"carnet/peering"
)

// lookAgain is how long after something was found it is looked for again: what is only
// in passing isn't told.
const lookAgain = 2 * time.Second

// examine has every part of the party look at what it has, for what is half done or not
// as it should be.
func (n *Node) examine(ctx context.Context) (carnet.Examination, error) {
	first, err := n.examineOnce(ctx)
	if err != nil || len(first.Findings) == 0 {
		first.Findings = []carnet.Finding{}
		return first, err
	}
	select {
	case <-ctx.Done():
		return carnet.Examination{}, ctx.Err()
	case <-time.After(lookAgain):
	}
	again, err := n.examineOnce(ctx)
	again.Findings = first.Lasting(again)
	return again, err
}

func (n *Node) examineOnce(ctx context.Context) (e carnet.Examination, err error) {
	n.examinePeers(&e)
	n.examineOutbox(&e)
	n.examineKey(&e)
	if n.api.Things != nil {
		n.api.Things.Examine(&e)
	}
	if n.registrar != nil {
		n.registrar.Examine(&e)
	}
	if n.api.World == nil {
		return e, nil
	}
	if err := n.api.World.Examine(ctx, &e); err != nil {
		return e, err
	}
	n.api.Shares.Examine(&e)
	n.api.Erasures.Examine(&e)
	return e, n.api.Moves.Examine(ctx, &e)
}

// examineKey looks for a rotation that isn't over.
func (n *Node) examineKey(e *carnet.Examination) {
	if n.table.Unfinished() {
		e.Found(carnet.Finding{Kind: "keys", About: n.config.KeyFile, Reason: "the key-encryption key is being rotated: copies of the key table are opened by the key of before, too", Fix: fmt.Sprintf("wait; or run: carnet party rotate --config %s", n.config.file)})
	}
}

// examinePeers looks for exchanges that wait, and peers that can't be reached.
func (n *Node) examinePeers(e *carnet.Examination) {
	all := n.peers.All()
	e.Saw("peers", len(all))
	for _, p := range all {
		f := carnet.Finding{Kind: "peering", About: string(p.Name), Since: p.Since}
		switch p.State {
		case peering.Invited:
			f.Reason, f.Fix = "it is invited, and hasn't accepted", "wait, invite it anew, or take the invitation back ('carnet peer remove')"
		case peering.Answered:
			f.Reason, f.Fix = "it has accepted, and the words aren't compared", "compare them ('carnet peer show', 'carnet peer accept')"
		case peering.Accepted:
			f.Reason = cmp.Or(n.peers.Trouble(p.Name), "it is accepted here, and hasn't confirmed")
		case peering.Active:
			if f.Since, f.Reason = n.trouble(p.Name); f.Reason == "" {
				continue
			}
			f.Fix = "see that it runs and lets this party in; what goes between the two waits"
		case peering.Suspended:
			f.Reason, f.Fix = "it is suspended here: what goes between the two waits", "resume it ('carnet peer resume')"
		default:
			continue
		}
		e.Found(f)
	}
}

// examineOutbox looks for statements that wait for their receipts, since the depot can't
// be reached.
func (n *Node) examineOutbox(e *carnet.Examination) {
	if n.api.Outbox == nil {
		return
	}
	if away := n.api.Outbox.Away(); away != nil {
		e.Found(carnet.Finding{
			Kind: "statements", About: string(n.api.Outbox.To()), Since: away.Since, Reason: fmt.Sprintf("the depot doesn't take statements: %s", away.Why),
			Fix: "see that it runs and can be reached; nothing is lost meanwhile",
		})
	}
}
