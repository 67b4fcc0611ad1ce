package main

import (
	"context"
	"fmt"
	"strconv"

	"carnet"
	"carnet/access"
	"carnet/api"
	"carnet/thing"
)

type statusCommand struct {
	reaching
	Of   carnet.PartyID `arg:"" optional:"" placeholder:"PARTY" help:"The party; the same as --party. Default: all."`
	JSON bool           `help:"As JSON."`
}

// Run shows what each party says of itself. One that can't be asked doesn't hide
// the others, but makes it fail.
func (c statusCommand) Run(ctx context.Context, s streams) error {
	found, failed := askEach(s, c.reaching, c.Of, func(r reaching, f *access.File, p access.Party) (api.Status, error) { return r.status(ctx, f, p) })
	if found == nil {
		return failed
	}
	if c.JSON {
		if err := writeJSON(s.out, found); err != nil {
			return err
		}
		return failed
	}
	for _, st := range found {
		if err := showStatus(s, st); err != nil {
			return err
		}
	}
	return failed
}

// askEach asks a party, or all, and says of those that can't be asked why. Without
// anybody to ask what was found is nil.
func askEach[T any](s streams, r reaching, one carnet.PartyID, ask func(reaching, *access.File, access.Party) (T, error)) (found []T, failed error) {
	r, err := r.or(one)
	if err != nil {
		return nil, err
	}
	f, err := r.file()
	if err != nil {
		return nil, err
	}
	parties, err := r.parties(f, anywhere())
	if err != nil {
		return nil, err
	}
	found = []T{}
	for _, p := range parties {
		answer, err := ask(r, f, p)
		if err != nil {
			failed = exitCode{code: exitError}
			report(s, fmt.Errorf("%s: %w", p.Name, err))
			continue
		}
		found = append(found, answer)
	}
	return found, failed
}

func (r reaching) status(ctx context.Context, f *access.File, p access.Party) (api.Status, error) {
	cl, err := r.dial(f, p, administrator, auditor)
	if err != nil {
		return api.Status{}, err
	}
	return cl.Status(ctx)
}

func showStatus(s streams, st api.Status) error {
	t := table{{string(st.Party), clock(st.Time)}}
	n := func(name string, v uint64) { t.add("  "+name, strconv.FormatUint(v, 10)) }
	if v := st.States; v != nil {
		state := "there"
		if v.Away != nil {
			state = fmt.Sprintf("away since %s: %s", clock(v.Away.Since), carnet.Unreached(v.Away.Why))
		}
		t.add("  depot "+string(v.To), state)
	}
	if v := st.DPM; v != nil {
		n("workers", uint64(v.Workers))
		n("jobs whose content lacks", uint64(v.Waiting))
		n("jobs ready", uint64(v.Ready))
		n("jobs running", uint64(v.Leased))
		n("jobs ended", uint64(v.Ended))
		n("jobs parked", uint64(v.Parked))
	}
	if v := st.Things; v != nil {
		n("things", uint64(v.Things))
		n("policy version", v.PolicyVersion)
		n("messages accepted", v.Messages)
		n("messages refused", v.Refusals)
		n("frames sent", v.SentFrames)
		n("batches sent", v.SentBatches)
		n("statements", v.Statements)
		n("receipts", v.Receipts)
		n("no receipt yet", v.Statements-min(v.Statements, v.Receipts))
		for _, l := range v.Links {
			t.add("  link to "+string(l.World), linkState(l))
		}
	}
	if v := st.World; v != nil {
		n("avatars", uint64(v.Avatars))
		n("streams", uint64(v.Streams))
		n("measurements", v.Measurements)
		n("batches", v.Batches)
		n("frames", v.Frames)
		n("stretches", v.Stretches)
		n("defects", v.Defects)
		n("statements", v.Statements)
		n("receipts", v.Receipts)
		n("no receipt yet", v.Statements-min(v.Statements, v.Receipts))
		n("live subscriptions", uint64(v.Live))
		for _, l := range v.Shares {
			state := fmt.Sprintf("%s given, %d taken", number(uint64(l.Giving), "share", "shares"), l.Taking)
			if l.Trouble != "" {
				state += "; " + l.Trouble
			}
			t.add("  with "+string(l.World), state)
		}
	}
	if v := st.Depot; v != nil {
		n("objects", uint64(v.Objects))
		n("bytes", uint64(v.Bytes))
		n("ledger entries", v.Entries)
	}
	return t.write(s.out)
}

func linkState(l thing.LinkStatus) string {
	up := "down"
	if l.Up {
		up = "up"
	}
	state := fmt.Sprintf("%s, %s acknowledged, %s behind", up, number(l.Acked, "frame", "frames"), number(l.Lag, "message", "messages"))
	if l.Trouble != "" {
		state += "; " + l.Trouble
	}
	return state
}
