package demo

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"carnet"
	"carnet/api"
	"carnet/job"
	"carnet/thing"
)

// settleFor is how long the parties may take to pass on what they have.
const settleFor = 60 * time.Second

// settle waits until the agent has passed on everything, the worlds have
// acknowledged it and passed on what they share, and every statement has its receipt.
// It returns what still waits, if that takes too long. Parties are asked one after the
// other, and what one passes on another states: nobody may have stated anything from one
// round to the next.
func (s *setup) settle(ctx context.Context) (waits []string) {
	s.screen.say("waiting until everything has reached the worlds and the ledger")
	ctx, cancel := context.WithTimeout(ctx, settleFor)
	defer cancel()
	quiet, before := false, uint64(0) // how it was in the round before
	for {
		now, stated := s.waits(ctx)
		if len(now) == 0 && quiet && stated == before {
			return nil
		}
		quiet, before = len(now) == 0, stated
		if ctx.Err() == nil || waits == nil { // else it says only that nobody was asked any more
			waits = now
		}
		select {
		case <-ctx.Done():
			return waits
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// waits asks every party what it hasn't passed on yet, and to whom: a sentence each; and
// how many statements they have made.
func (s *setup) waits(ctx context.Context) (all []string, stated uint64) {
	for _, p := range s.parties {
		st, err := p.looks.Status(ctx)
		if err != nil {
			all = append(all, fmt.Sprintf("%s can't be asked what it hasn't passed on: %v", p.name, err))
			continue
		}
		all = append(all, waitsAt(p.name, st)...)
		if st.Things != nil {
			stated += st.Things.Statements
		}
		if st.World != nil {
			stated += st.World.Statements
		}
		if st.World != nil && !s.computed(ctx, p) {
			all = append(all, fmt.Sprintf("%s: a job hasn't ended, or what came out of it, or what a DPM stated of it, isn't there yet", p.name))
		}
	}
	return all, stated
}

// waitsAt is what a party says that it hasn't passed on.
func waitsAt(name carnet.PartyID, st api.Status) (all []string) {
	say := func(trouble, format string, args ...any) {
		line := fmt.Sprintf("%s: ", name) + fmt.Sprintf(format, args...)
		if trouble != "" {
			line += ": " + trouble
		}
		all = append(all, line)
	}
	statements := func(statements, receipts uint64) {
		if n := statements - min(statements, receipts); n > 0 {
			say("", "the depot has given no receipt yet for %s", number(int(n), "statement"))
		}
	}
	if t := st.Things; t != nil {
		for _, l := range t.Links {
			if what := notPassedOn(l); what != "" {
				say(l.Trouble, "%s", what)
			}
		}
		statements(t.Statements, t.Receipts)
	}
	if w := st.World; w != nil {
		for _, l := range w.Shares {
			if l.Waiting {
				say(l.Trouble, "%s hasn't acknowledged all that is shared with it", l.World)
			}
		}
		statements(w.Statements, w.Receipts)
	}
	return all
}

// notPassedOn says what an agent hasn't passed on to a world; nothing for a link that
// is up and has acknowledged everything.
func notPassedOn(l thing.LinkStatus) string {
	var parts []string
	if !l.Up {
		parts = append(parts, fmt.Sprintf("the link to %s is down, so whatever has come for it since waits", l.World))
	}
	if l.Lag > 0 {
		parts = append(parts, fmt.Sprintf("%s not decided for %s yet", number(int(l.Lag), "message"), l.World))
	}
	if l.Waiting > 0 {
		parts = append(parts, fmt.Sprintf("%s that %s hasn't acknowledged", number(int(l.Waiting), "frame"), l.World))
	}
	return strings.Join(parts, ", ")
}

// computed reports whether a world has nothing more to do about its jobs: they have
// ended, what came out is at the depot, and DPMs have shown what they stated.
func (s *setup) computed(ctx context.Context, world *party) bool {
	if len(s.script.acts) == 0 {
		return true
	}
	jobs, err := world.client.Jobs(ctx)
	return err == nil && !slices.ContainsFunc(jobs, func(j api.Job) bool {
		return j.State != job.Ended || j.Output != nil && j.Object == "" || j.At != "" && !hasRecord(ctx, world, j.ID)
	})
}

// hasRecord reports whether a world has what a DPM stated of a job that has ended, as far as
// there is any.
func hasRecord(ctx context.Context, world *party, id carnet.JobID) bool {
	p, err := world.client.JobProof(ctx, id)
	return err == nil && (p.Acceptance == "" || p.Result == "" || p.Record != "" || p.NoRecord != "")
}
