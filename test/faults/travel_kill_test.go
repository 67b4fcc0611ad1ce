package faults_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"carnet"
	"carnet/api"
	"carnet/crossing/move"
	"carnet/identity"
)

// TestMoves has avatars move to and fro between arena and the clinic while their
// watches publish, each with a sword or two, each party in turn is killed at random
// moments, connections are cut and some moves are called off. Whatever became of each
// move: one home, nothing lost and nothing doubled, each sword in one world, the evidence
// verifies, and no party finds anything half done.
func TestMoves(t *testing.T) {
	t.Parallel()
	r := random(t)
	var lines network
	n := newNeighbours(t, `{"properties": {"steps": {}}, "purposes": ["care"]}`, lines.lay)
	n.takes()
	j := &journeys{neighbours: n, lines: &lines, kills: make(map[carnet.PartyID]int), ends: make(map[string]int), left: *moves}
	sending, stop := context.WithCancel(t.Context())
	defer stop()
	count := min(max(6, *moves/25), 40) // each goes some 10 to 25 times
	sent := make(chan error, count)
	for i := range count {
		w := n.watch
		if i > 0 {
			w = n.addPromptFor(map[carnet.PartyID]string{"arena": travels})
			n.own(w)
		}
		v := &traveller{neighbours: n, watch: w, at: n.arena, id: w.mappings["arena"].Avatar}
		for range 1 + i%2 {
			v.swords = append(v.swords, n.issueTo(v.id, "sword", "Oathkeeper", identity.Attributes{"damage": 12.0}))
		}
		j.all = append(j.all, v)
		w.send(2)
		go func() { sent <- w.run(sending, time.Duration(count)*33*time.Millisecond) }() // all of them 30 times a second
	}
	began := time.Now()
	j.goThrough(r)
	t.Logf("%d moves of %d avatars in %s: %v; killed: %v; %d cuts; the longest took %s", j.moves(), count, time.Since(began).Round(time.Second), j.ends, j.kills, j.cuts, j.longest.Round(time.Second))
	stop()
	for range j.all {
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
	}
	if want := *moves; j.ends["home"] < want/2 || j.cuts == 0 || len(j.kills) < 4 {
		t.Errorf("of %d moves only %d were committed, with %v killed and %d cuts: the test tests little", want, j.ends["home"], j.kills, j.cuts)
	}
	n.judgeTravellers(j.all...)
}

// traveller is a watch's avatar that goes from world to world.
type traveller struct {
	*neighbours
	watch *watch
	at    *party
	id    carnet.AvatarID // there
	home  carnet.HomeID   // at the register
	trail []lodging       // where it lived before, oldest first

	swords []api.Item // as arena issued them
}

// lodging is an avatar in a world.
type lodging struct {
	world  *party
	avatar carnet.AvatarID
}

// journeys are the moves of a test, while parties are killed.
type journeys struct {
	*neighbours
	lines *network
	all   []*traveller

	mu      sync.Mutex // guards what follows
	left    int        // moves to begin
	ends    map[string]int
	longest time.Duration

	kills map[carnet.PartyID]int
	cuts  int
}

// atOnce is how many avatars move at the same time.
const atOnce = 6

// goThrough has all moves made, some avatars at a time, and kills meanwhile.
func (j *journeys) goThrough(r *rand.Rand) {
	j.t.Helper()
	ctx, cancel := context.WithCancelCause(j.t.Context())
	defer cancel(nil)
	turns := make(chan *traveller, len(j.all))
	for _, v := range j.all {
		turns <- v
	}
	var travelling sync.WaitGroup
	for range min(atOnce, len(j.all)) {
		r := rand.New(rand.NewPCG(r.Uint64(), r.Uint64()))
		travelling.Go(func() {
			for j.next() && ctx.Err() == nil {
				v := <-turns
				if err := j.move(ctx, r, v); err != nil {
					cancel(fmt.Errorf("the avatar of %s: %w", v.watch.id, err))
				}
				turns <- v
			}
		})
	}
	over := make(chan struct{})
	go func() {
		travelling.Wait()
		close(over)
	}()
	j.disturb(r, over)
	if err := context.Cause(ctx); err != nil {
		j.t.Fatalf("after %d moves, %v, with %v killed and %d cuts: %v", j.moves(), j.ends, j.kills, j.cuts, err)
	}
}

// next takes one of the moves that are left.
func (j *journeys) next() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.left--
	return j.left >= 0
}

func (j *journeys) moves() (n int) {
	for _, times := range j.ends {
		n += times
	}
	return n
}

// disturb kills parties and cuts connections until everything is over; then all run.
func (j *journeys) disturb(r *rand.Rand, over <-chan struct{}) {
	var order []*party
	for {
		select {
		case <-over:
			return
		case <-time.After(time.Duration(r.IntN(2000)) * time.Millisecond):
		}
		if r.IntN(3) == 0 {
			l := j.lines.any(r)
			l.cut(true)
			time.Sleep(time.Duration(r.IntN(500)) * time.Millisecond)
			l.mend()
			j.cuts++
			continue
		}
		if len(order) == 0 {
			for _, i := range r.Perm(4) {
				order = append(order, j.parties()[i])
			}
		}
		victim := order[0]
		order = order[1:]
		victim.kill(j.t)
		j.kills[victim.name]++
		away := 400
		if victim == j.vault && r.IntN(3) == 0 {
			away = 4000 // nobody can be asked who is home
		}
		time.Sleep(time.Duration(r.IntN(away)) * time.Millisecond)
		victim.start(j.t)
		if r.IntN(2) == 0 {
			j.await(victim)
		}
	}
}

// move has an avatar move to the other world, or at least begin to.
func (j *journeys) move(ctx context.Context, r *rand.Rand, v *traveller) error {
	began := time.Now()
	end, err := v.move(ctx, r)
	j.mu.Lock()
	defer j.mu.Unlock()
	if err == nil {
		j.ends[end]++
		j.longest = max(j.longest, time.Since(began))
	}
	return err
}

// patience is how long something may take while parties are killed.
const patience = 4 * time.Minute

// insist does what a person does whom nobody answers, or who is told to wait: the
// same again.
func insist[T any](ctx context.Context, what string, do func() (T, error)) (v T, err error) {
	for end := time.Now().Add(patience); ; {
		if v, err = do(); err == nil {
			return v, nil
		}
		if time.Now().After(end) || ctx.Err() != nil {
			return v, fmt.Errorf("%s: %w", what, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// other is the world where the avatar doesn't live.
func (v *traveller) other() *party {
	if v.at == v.arena {
		return v.clinic
	}
	return v.arena
}

// move begins a move, has it ordered, perhaps called off, and waits for its end:
// "home", or why it is none.
func (v *traveller) move(ctx context.Context, r *rand.Rand) (end string, err error) {
	from, to := v.at, v.other()
	x, err := insist(ctx, "begin a move", func() (api.Crossing, error) { return v.beginMove(ctx, from, to, v.id) })
	if err != nil {
		return "", err
	}
	if r.IntN(12) == 0 { // its owner doesn't want it
		_, err := insist(ctx, "call off what nobody ordered", func() (api.Crossing, error) { return to.client.CancelCrossing(ctx, x.ID) })
		return "not ordered", err
	}
	ordered, err := v.sign(x)
	if err != nil {
		return "", err
	}
	if x, err = insist(ctx, "hand in the order", func() (api.Crossing, error) { return to.client.OrderCrossing(ctx, x.ID, ordered) }); err != nil {
		return "", err
	}
	off := time.Time{}
	by := []*party{from, to}[r.IntN(2)]
	if r.IntN(6) == 0 {
		off = time.Now().Add(time.Duration(r.IntN(1500)) * time.Millisecond)
	}
	for until := time.Now().Add(patience); ; {
		if !off.IsZero() && time.Now().After(off) {
			off = time.Time{}
			_, _ = by.client.CancelCrossing(ctx, x.ID) // as a person tries it once, perhaps too late
		}
		if is, err := to.client.Crossing(ctx, x.ID); err == nil {
			x = is
		}
		switch x.State {
		case move.Home:
			v.trail = append(v.trail, lodging{from, v.id})
			v.at, v.id = to, x.Ours
			return "home", nil
		case move.Dropped:
			return "dropped: " + x.Why, nil
		}
		if time.Now().After(until) {
			return "", fmt.Errorf("the crossing %s is %s after %s: %+v", x.ID, x.State, patience, x.Progress)
		}
		select {
		case <-ctx.Done():
			return "", context.Cause(ctx)
		case <-time.After(250 * time.Millisecond):
		}
	}
}
