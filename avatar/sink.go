package avatar

import (
	"context"
	"errors"

	"carnet"
	"carnet/ledger"
	"carnet/link"
)

// arrived is a run of frames of one sender on its way through the committer.
type arrived struct {
	sender   carnet.PartyID
	bytes    int             // of the rows' bodies
	arrivals []*link.Arrival // those to store
	rows     []FrameRow
	done     chan error
}

// State implements link.Sink.
func (a *Agent) State(_ context.Context, party carnet.PartyID) (link.State, error) {
	a.linkMu.Lock()
	defer a.linkMu.Unlock()
	return a.links[party], nil
}

// Register implements link.Sink.
func (a *Agent) Register(ctx context.Context, party carnet.PartyID, n link.Nonce, above uint64) (link.State, error) {
	row, err := a.store.Register(ctx, party, n, above)
	if err != nil {
		return link.State{}, err
	}
	s := linkState(row)
	a.linkMu.Lock()
	defer a.linkMu.Unlock()
	a.links[party] = s
	return s, nil
}

// Welcomed implements link.Sink.
func (a *Agent) Welcomed(party carnet.PartyID) { a.remind(party) }

func linkState(row LinkRow) link.State {
	return link.State{
		Nonce: row.Nonce, Incarnation: row.Incarnation,
		Last: link.Position{Number: row.Number, Hash: row.Hash, Covers: row.Covers},
	}
}

// Frame implements link.Sink.
func (a *Agent) Frame(ctx context.Context, party carnet.PartyID, number uint64) (link.Position, bool, error) {
	row, err := a.store.Frame(ctx, party, number)
	if carnet.CodeOf(err) == carnet.NotFound {
		return link.Position{}, false, nil
	} else if err != nil {
		return link.Position{}, false, err
	}
	return link.Position{Number: row.Number, Hash: row.Hash, Covers: row.Covers}, true, nil
}

// Accept implements link.Sink.
func (a *Agent) Accept(ctx context.Context, party carnet.PartyID, run []*link.Arrival) ([]link.Verdict, error) {
	verdicts, state, group, err := a.judge(ctx, party, run)
	if err != nil || len(group.rows) == 0 {
		return verdicts, err
	}
	if err := a.turns.take(ctx, a.stopped, party, group.bytes); err != nil {
		return nil, err
	}
	select {
	case a.appends <- group:
	case <-a.stopped:
		return nil, errStopping
	case <-ctx.Done():
		a.turns.end(party, group.bytes)
		return nil, ctx.Err()
	}
	// What the committer has taken it finishes: its answer decides.
	if err := <-group.done; err != nil {
		return nil, err
	}
	a.linkMu.Lock()
	a.links[party] = state
	a.linkMu.Unlock()
	return verdicts, nil
}

var errStopping = carnet.Errorf(carnet.Unavailable, "the world is stopping")

// judge decides on a run of frames and makes rows of those to store.
func (a *Agent) judge(ctx context.Context, party carnet.PartyID, run []*link.Arrival) (verdicts []link.Verdict, state link.State, group *arrived, err error) {
	if state, err = a.State(ctx, party); err != nil {
		return nil, state, nil, err
	}
	group = &arrived{sender: party, done: make(chan error, 1)}
	known := func(number uint64) (carnet.Fingerprint, bool) {
		if n := len(group.rows); n > 0 && number >= group.rows[0].Number {
			return group.rows[number-group.rows[0].Number].Hash, true
		}
		at, ok, failed := a.Frame(ctx, party, number)
		if failed != nil {
			err = failed
		}
		return at.Hash, ok
	}
	for _, arrival := range run {
		next, verdict := state.Judge(arrival.Head(), known)
		if err != nil {
			return nil, state, nil, err
		}
		verdicts = append(verdicts, verdict)
		if verdict == link.Again {
			continue
		} else if verdict != link.Next {
			break
		}
		state = next
		row, err := a.frameRow(party, arrival)
		if err != nil {
			return nil, state, nil, err
		}
		group.arrivals = append(group.arrivals, arrival)
		group.rows = append(group.rows, row)
		group.bytes += len(row.Body)
	}
	return verdicts, state, group, nil
}

func (a *Agent) frameRow(party carnet.PartyID, arrival *link.Arrival) (FrameRow, error) {
	f, now := &arrival.Frame, a.now().UnixNano()
	item, err := a.Statement(ledger.Statement{
		Kind: ledger.ReceivedRoot, Time: now, Peer: party, Frame: f.Header.Number, Root: f.Root, Header: arrival.Hash,
		PolicyVersion: f.Header.Policy,
	})
	return FrameRow{
		Sender: party, Incarnation: f.Header.Incarnation, Number: f.Header.Number, Parent: f.Header.Previous, Hash: arrival.Hash,
		Covers: f.Header.Covers, Received: now, Batches: f.Header.Count, Header: f.Sign1,
		Body: arrival.Bytes[4+len(f.Sign1):], Statement: item,
	}, err
}

// maxCommit is how many runs of frames go into one commit.
const maxCommit = 64

// commitLoop stores runs of frames, many senders' in one commit.
func (a *Agent) commitLoop(ctx context.Context) error {
	defer close(a.stopped)
	for {
		select {
		case <-ctx.Done():
			return nil
		case g := <-a.appends:
			if err := a.commit(ctx, a.waiting(g)); err != nil && ctx.Err() == nil {
				return err
			}
		}
	}
}

// waiting collects the runs that wait to be stored now.
func (a *Agent) waiting(first *arrived) []*arrived {
	groups := []*arrived{first}
	for len(groups) < maxCommit {
		select {
		case g := <-a.appends:
			groups = append(groups, g)
		default:
			return groups
		}
	}
	return groups
}

// commit stores runs, hands them to the opener and then answers: who asks after
// the answer where a stream stands is told with these frames. The error is one
// that leaves durability in doubt.
func (a *Agent) commit(ctx context.Context, groups []*arrived) (err error) {
	stored := a.append(ctx, groups)
	if carnet.CodeOf(stored) == carnet.Conflict && len(groups) > 1 {
		// What is refused alone isn't refused for another's sake.
		for i := range groups {
			err = errors.Join(err, a.commit(ctx, groups[i:i+1]))
		}
		return err
	}
	if stored == nil {
		a.recorded()
		select {
		case a.opened <- work{groups: groups}:
		case <-ctx.Done(): // they are opened at the next start
		}
	} else if carnet.CodeOf(stored) == "" {
		err = stored
	}
	for _, g := range groups {
		if stored != nil {
			a.turns.end(g.sender, g.bytes)
		}
		g.done <- stored
	}
	return err
}

// append stores runs in one transaction and fills in their frames' ids.
func (a *Agent) append(ctx context.Context, groups []*arrived) error {
	rows := groups[0].rows
	if len(groups) > 1 {
		rows = nil
		for _, g := range groups {
			rows = append(rows, g.rows...)
		}
	}
	if err := a.store.Append(ctx, rows); err != nil {
		return err
	}
	for _, g := range groups {
		rows = rows[copy(g.rows, rows):]
	}
	return nil
}
