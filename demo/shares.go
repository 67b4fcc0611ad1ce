package demo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"carnet"
	"carnet/audit"
	"carnet/avatar"
	"carnet/crossing"
	"carnet/node"
	"carnet/policy"
)

// Share is one share between two worlds, as both sides' stores have it.
type Share struct {
	ID     carnet.ShareID  `json:"id"`
	Giver  carnet.PartyID  `json:"giver"`
	Taker  carnet.PartyID  `json:"taker"`
	Avatar carnet.AvatarID `json:"avatar"` // the giver's
	For    carnet.AvatarID `json:"for"`    // the taker's
	State  crossing.State  `json:"state"`  // at the giver
	Taking crossing.State  `json:"taking"` // at the taker
	// Given counts the measurements that the share's view admits of what the giver
	// holds, as the oracle works it out, and Taken those that the taker holds by the
	// share.
	Given int `json:"given"`
	Taken int `json:"taken"`
	// Copied and Derived count the taker's batches: byte for byte the giver's, or made
	// anew of what the view shows.
	Copied    int `json:"copied"`
	Derived   int `json:"derived"`
	Lost      int `json:"lost"`
	Doubled   int `json:"doubled"`
	Extra     int `json:"extra"`
	Reordered int `json:"reordered"`
}

// judgeShares reads what arena gave citadel from both stores, and has the oracle
// compare.
func (s *setup) judgeShares(ctx context.Context, r *Report, o Options) (err error) {
	if s.party("arena") == nil || s.party("citadel") == nil {
		return nil // no two worlds call each other
	}
	all, done, err := s.openShares(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	for _, c := range all {
		share, found, err := c.judge(ctx)
		if err != nil {
			return fmt.Errorf("judge the share %s: %w", c.share.ID, err)
		}
		r.Shares = append(r.Shares, share)
		r.add(string(c.share.Taker)+" by its share", found)
	}
	return nil
}

// openShares opens giver and taker, which have ended, and lists their shares, oldest
// first.
func (s *setup) openShares(ctx context.Context, o Options) (all []crossed, done func() error, err error) {
	arena, err := node.Inspect(ctx, s.party("arena").config, o.Log)
	if err != nil {
		return nil, nil, err
	}
	citadel, err := node.Inspect(ctx, s.party("citadel").config, o.Log)
	if err != nil {
		return nil, nil, errors.Join(err, arena.Close())
	}
	given := arena.Shares.Given()
	for i, g := range given {
		c := crossed{share: g, giver: arena, taker: citadel}
		next := slices.IndexFunc(given[i+1:], func(n crossing.Given) bool { return n.Avatar == g.Avatar && n.For == g.For })
		if next >= 0 {
			c.before, _ = arena.Shares.Streams(given[i+1+next].ID)
		}
		all = append(all, c)
	}
	return all, func() error { return errors.Join(arena.Close(), citadel.Close()) }, nil
}

// crossed is a share whose giver and taker are both open.
type crossed struct {
	share        crossing.Given
	giver, taker *node.Inspection
	before       map[carnet.StreamID]uint64 // where the next share of the two avatars began, by source stream; nil: there is none

	taken func(map[carnet.StreamID][]audit.Held) // tests change what the taker holds
}

// judge has the oracle compare, and returns what it found in all streams together.
func (c crossed) judge(ctx context.Context) (s Share, found audit.Result, err error) {
	g := c.share
	s = Share{ID: g.ID, Giver: "arena", Taker: g.Taker, Avatar: g.Avatar, For: g.For, State: crossing.Giving}
	if g.End != nil {
		s.State = crossing.Ended
	}
	for _, t := range c.taker.Shares.Taken() {
		if t.ID == g.ID {
			s.Taking = t.State
		}
	}
	logs, err := c.logs(ctx)
	if err != nil {
		return s, found, err
	}
	held, err := c.held(ctx, &s)
	if err != nil {
		return s, found, err
	}
	if c.taken != nil {
		c.taken(held)
	}
	for stream, log := range logs {
		result, err := c.compare(ctx, log, held[stream])
		if err != nil {
			return s, found, err
		}
		found = together(found, result)
		delete(held, stream)
	}
	for _, rest := range held { // of streams that the giver hasn't
		found.Held, found.Extra = found.Held+len(rest), found.Extra+len(rest)
	}
	s.Given, s.Taken = found.Expected, found.Held
	s.Lost, s.Doubled, s.Extra, s.Reordered = found.Lost, found.Doubled, found.Extra, found.Reordered
	return s, found, nil
}

// together is what the oracle found in two streams.
func together(p, q audit.Result) audit.Result {
	return audit.Result{
		Expected: p.Expected + q.Expected, Held: p.Held + q.Held,
		Lost: p.Lost + q.Lost, Doubled: p.Doubled + q.Doubled, Extra: p.Extra + q.Extra, Reordered: p.Reordered + q.Reordered,
		Examples: audit.Examples{
			Lost: slices.Concat(p.Examples.Lost, q.Examples.Lost), Doubled: slices.Concat(p.Examples.Doubled, q.Examples.Doubled),
			Extra: slices.Concat(p.Examples.Extra, q.Examples.Extra), Reordered: slices.Concat(p.Examples.Reordered, q.Examples.Reordered),
		},
	}
}

// batch is what the giver holds of one batch that the share is about.
type batch struct {
	end          uint64 // the number after its last measurement
	measurements []carnet.Measurement
}

// logs reads what the giver holds of the avatar since the share began, by stream:
// batch by batch, since the view decides a batch in the order of measured time.
func (c crossed) logs(ctx context.Context) (map[carnet.StreamID][]batch, error) {
	from, _ := c.giver.Shares.Streams(c.share.ID)
	logs := make(map[carnet.StreamID][]batch)
	type at struct {
		stream carnet.StreamID
		number uint64
	}
	var last at
	err := c.giver.World.EachHeld(ctx, c.share.Avatar, func(h avatar.Held) error {
		if by, foreign := c.giver.World.ShareOf(h.Stream); foreign && !by.Onward || !c.within(h.Stream, h.Number, from) {
			return nil
		}
		log := logs[h.Stream]
		if now := (at{h.Stream, h.Batch}); now != last || len(log) == 0 {
			log, last = append(log, batch{}), now
		}
		b := &log[len(log)-1]
		b.end, b.measurements = h.Number+1, append(b.measurements, h.Measurement)
		logs[h.Stream] = log
		return nil
	})
	for _, log := range logs {
		for _, b := range log {
			slices.SortStableFunc(b.measurements, asDecided)
		}
	}
	return logs, err
}

// asDecided is the order in which a share's view decides the measurements of a batch.
func asDecided(p, q carnet.Measurement) int {
	return cmp.Or(cmp.Compare(p.Time, q.Time), strings.Compare(p.Name, q.Name))
}

// inOrder puts a copied batch's measurements in that order, under its numbers.
func inOrder(copied []audit.Held) {
	var numbers []uint64
	for _, h := range copied {
		numbers = append(numbers, h.Number)
	}
	slices.SortStableFunc(copied, func(p, q audit.Held) int { return asDecided(p.Measurement, q.Measurement) })
	for i := range copied {
		copied[i].Number = numbers[i]
	}
}

// within says whether a number of a source stream is this share's.
func (c crossed) within(stream carnet.StreamID, number uint64, from map[carnet.StreamID]uint64) bool {
	if c.before != nil && number >= c.before[stream] {
		return false
	}
	return number >= from[stream]
}

// held reads what the taker holds by the share, by the source stream: of each the
// copies and what was derived, which have the source's numbers, in their order. Within a
// copy, whose bytes are the giver's, it is the one in which the view decides.
func (c crossed) held(ctx context.Context, s *Share) (map[carnet.StreamID][]audit.Held, error) {
	from, derived := c.giver.Shares.Streams(c.share.ID)
	streams, err := c.giver.World.Heads(c.share.Avatar)
	if err != nil {
		return nil, err
	}
	source := make(map[carnet.StreamID]carnet.StreamID)
	for of, stream := range derived {
		source[stream] = of
	}
	all := make(map[carnet.StreamID][]audit.Held)
	type at struct {
		stream carnet.StreamID
		number uint64
	}
	counted := make(map[at]bool)
	copies := make(map[at][]audit.Held)
	err = c.taker.World.EachHeld(ctx, c.share.For, func(h avatar.Held) error {
		of, isDerived := source[h.Stream]
		if !isDerived {
			of = h.Stream
			if _, copied := streams[of]; !copied || !c.within(of, h.Number, from) {
				return nil
			}
		}
		if now := (at{h.Stream, h.Batch}); !counted[now] {
			counted[now] = true
			if isDerived {
				s.Derived++
			} else {
				s.Copied++
			}
		}
		one := audit.Held{Number: h.Number, Measurement: h.Measurement}
		if isDerived {
			all[of] = append(all[of], one)
		} else {
			copies[at{of, h.Batch}] = append(copies[at{of, h.Batch}], one)
		}
		return nil
	})
	for batch, copied := range copies {
		inOrder(copied)
		all[batch.stream] = append(all[batch.stream], copied...)
	}
	for _, of := range all {
		slices.SortStableFunc(of, func(p, q audit.Held) int { return cmp.Compare(p.Number, q.Number) })
	}
	return all, err
}

// compare has the oracle work out what the share's view admits of a stream's batches.
// What a share that has ended didn't give any more isn't missed: it gave batches in
// their order, each whole, and so all up to the one that its last measurement is of.
func (c crossed) compare(ctx context.Context, log []batch, held []audit.Held) (audit.Result, error) {
	view, err := c.share.View.MarshalJSON()
	if err != nil {
		return audit.Result{}, err
	}
	properties, err := c.properties(log)
	if err != nil {
		return audit.Result{}, err
	}
	config := audit.Config{Views: []audit.ViewVersion{{Version: 1, View: view, Properties: properties, Since: map[int64]uint64{0: 0}}}}
	if c.share.End != nil {
		upto := 0
		if len(held) > 0 {
			done := held[len(held)-1].Number
			if upto = 1 + slices.IndexFunc(log, func(b batch) bool { return b.end > done }); upto == 0 {
				upto = len(log)
			}
		}
		config.Upto = map[int64]uint64{0: uint64(upto)}
	}
	oracle, err := audit.New(config)
	if err != nil {
		return audit.Result{}, err
	}
	return oracle.Audit(ctx,
		func(_ context.Context, from uint64, do func(audit.Message) error) error {
			for i := int(from); i < len(log); i++ {
				if err := do(audit.Message{Position: uint64(i), Measurements: log[i].measurements}); err != nil {
					return err
				}
			}
			return nil
		},
		func(_ context.Context, do func(audit.Held) error) error {
			for _, h := range held {
				if err := do(h); err != nil {
					return err
				}
			}
			return nil
		})
}

// properties are what a log has measurements of, and whether judge and clearance say
// yes to each.
func (c crossed) properties(log []batch) (all []audit.Property, err error) {
	judge, err := policy.NewJudge(nil)
	if err != nil {
		return nil, err
	}
	known, err := c.giver.World.Properties(c.share.Avatar)
	if err != nil {
		return nil, err
	}
	sight, err := policy.NewSight(judge, c.share.View, policy.Reader{Party: c.share.Taker, Clearance: c.share.Most}, c.share.GrantVersion, known...)
	if err != nil {
		return nil, err
	}
	seen := make(map[string]bool)
	for _, b := range log {
		for _, m := range b.measurements {
			if !seen[m.Name] {
				seen[m.Name] = true
				all = append(all, audit.Property{Name: m.Name, Unit: m.Unit, Kind: m.Value.Kind, Admit: sight.Shows(m.Name)})
			}
		}
	}
	return all, nil
}

// write writes the share for people.
func (s Share) write(w io.Writer) {
	state := ""
	if s.State == crossing.Ended {
		state = ", until it ended"
	}
	fmt.Fprintf(w, "%-10s from %s by a share%s: %s of %d given, in %s copied and %d derived\n", s.Taker, s.Giver, state,
		number(s.Taken, "measurement"), s.Given, number(s.Copied, "batch"), s.Derived)
}
