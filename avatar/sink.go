package avatar

import (
	"context"

	"carnet"
	"carnet/ledger"
	"carnet/link"
)

// arrived is a run of frames of one sender on its way through the committer.
type arrived struct {
	party    carnet.PartyID
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
	state, err := a.State(ctx, party)
	if err != nil {
		return nil, err
	}
	var verdicts []link.Verdict
	group := &arrived{party: party, done: make(chan error, 1)}
	var lookup error
	known := func(number uint64) (carnet.Fingerprint, bool) {
		at, ok, err := a.Frame(ctx, party, number)
		if err != nil {
			lookup = err
		}
		return at.Hash, ok
	}
	for _, arrival := range run {
		next, verdict := state.Judge(arrival.Head(), known)
		if lookup != nil {
			return nil, lookup
		}
		verdicts = append(verdicts, verdict)
		if verdict == link.Next {
			state = next
			row, err := a.frameRow(party, arrival)
			if err != nil {
				return nil, err
			}
			group.arrivals = append(group.arrivals, arrival)
			group.rows = append(group.rows, row)
		} else if verdict != link.Again {
			break
		}
	}
	if len(group.rows) == 0 {
		return verdicts, nil
	}
	select {
	case a.appends <- group:
	case <-ctx.Done():
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

func (a *Agent) frameRow(party carnet.PartyID, arrival *link.Arrival) (FrameRow, error) {
	f, now := &arrival.Frame, a.now().UnixNano()
	item, err := a.state(ledger.Statement{
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
	for {
		var groups []*arrived
		select {
		case <-ctx.Done():
			return a.drain()
		case g := <-a.appends:
			groups = append(groups, g)
		}
	more:
		for len(groups) < maxCommit {
			select {
			case g := <-a.appends:
				groups = append(groups, g)
			default:
				break more
			}
		}
		var rows []FrameRow
		for _, g := range groups {
			rows = append(rows, g.rows...)
		}
		err := a.store.Append(ctx, rows)
		if err != nil {
			for _, g := range groups {
				g.done <- err
			}
			if code := carnet.CodeOf(err); code == carnet.NoSpace || code == carnet.Conflict || ctx.Err() != nil {
				continue
			}
			return err
		}
		n := 0
		for _, g := range groups {
			n += copy(g.rows, rows[n:])
			g.done <- nil
		}
		a.recorded()
		select {
		case a.opened <- groups:
		case <-ctx.Done():
			return nil
		}
	}
}

// drain answers runs that come after the end.
func (a *Agent) drain() error {
	for {
		select {
		case g := <-a.appends:
			g.done <- carnet.Errorf(carnet.Unavailable, "the world is stopping")
		default:
			return nil
		}
	}
}
