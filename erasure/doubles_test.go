package erasure

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/crossing"
	"carnet/crossing/move"
	"carnet/depot"
	"carnet/identity"
	"carnet/item"
	"carnet/job"
	"carnet/ledger"
	"carnet/register"
)

var noon = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

// Who has which key, in these tests.
const (
	here = iota + 10
	there
	elsewhere
	theOwner
	theRegistrar
)

// world is the part of a world that an erasure uses, in memory: avatars, and streams that
// came by shares.
type world struct {
	World
	mu        sync.Mutex
	avatars   map[carnet.AvatarID]avatar.Info
	frozen    map[carnet.AvatarID]bool
	gone      map[carnet.AvatarID]avatar.Destination
	shared    map[carnet.ShareID][]carnet.StreamID // as they came
	hidden    map[carnet.StreamID]bool
	cleared   map[carnet.StreamID]bool
	documents map[string][]byte
	hiding    func()                                    // called before an avatar is hidden
	clearing  func()                                    // while streams of a share are cleared; nil: nothing
	doomed    map[carnet.ErasureID][]carnet.Fingerprint // what the depot is to delete, by whose erasure
	undeleted error                                     // why it doesn't delete what is nobody's
	moving    bool                                      // avatars keep still for a move, which nothing lets go
}

func (w *world) Frozen(id carnet.AvatarID) (x carnet.CrossingID, still bool, err error) {
	defer w.lock()()
	return carnet.CrossingID{3}, w.frozen[id] || w.moving, nil
}

func (w *world) Doomed(_ context.Context, by carnet.ErasureID) ([]carnet.Fingerprint, error) {
	defer w.lock()()
	return slices.Clone(w.doomed[by]), nil
}

func (w *world) Undoomed(_ context.Context, of []carnet.Fingerprint) ([]carnet.Document, error) {
	defer w.lock()()
	for by := range w.doomed {
		w.doomed[by] = slices.DeleteFunc(w.doomed[by], func(f carnet.Fingerprint) bool { return slices.Contains(of, f) })
	}
	return nil, nil
}

// Release takes effect at once.
func (w *world) Release(_ context.Context, by carnet.ErasureID) ([]carnet.Document, error) {
	defer w.lock()()
	w.doomed[carnet.ErasureID{}] = append(w.doomed[carnet.ErasureID{}], w.doomed[by]...)
	delete(w.doomed, by)
	return nil, nil
}

func (w *world) DeleteDoomed(context.Context) error { defer w.lock()(); return w.undeleted }
func (w *world) AtDepot(do func() error) error      { return do() }

func (w *world) lock() func() { w.mu.Lock(); return w.mu.Unlock }

func (w *world) Avatar(id carnet.AvatarID) (avatar.Info, error) {
	defer w.lock()()
	if v, ok := w.avatars[id]; ok {
		return v, nil
	}
	return avatar.Info{}, carnet.Errorf(carnet.NotFound, "there is no avatar %s", id)
}

func (w *world) Departed(id carnet.AvatarID) (avatar.Destination, error) {
	defer w.lock()()
	if d, ok := w.gone[id]; ok {
		return d, nil
	}
	return avatar.Destination{}, carnet.Errorf(carnet.NotFound, "it hasn't gone")
}

func (w *world) Erase(_ context.Context, id carnet.AvatarID, by carnet.ErasureID, _ carnet.Fingerprint, _ carnet.PartyID) error {
	defer w.lock()()
	if w.frozen[id] || w.moving {
		return carnet.Errorf(carnet.Conflict, "it keeps still")
	}
	if w.hiding != nil {
		w.hiding()
	}
	delete(w.avatars, id)
	w.gone[id] = avatar.Destination{Erasure: by}
	return nil
}

func (w *world) Clear(context.Context, carnet.AvatarID) error                { return nil }
func (w *world) Silence(context.Context, carnet.AvatarID) error              { return nil }
func (w *world) Overwrite(context.Context) error                             { return nil }
func (w *world) Named(carnet.AvatarID) []carnet.StreamID                     { return nil }
func (w *world) Speakers(carnet.AvatarID) map[carnet.StreamID]carnet.PartyID { return nil }
func (w *world) TellErased([]carnet.Erased)                                  {}
func (w *world) EachKept(context.Context, string, func(string, uint64, func(any) error) error) error {
	return nil
}

func (w *world) SharedBy(id carnet.ShareID) []carnet.StreamID {
	defer w.lock()()
	return slices.Clone(w.shared[id])
}

func (w *world) named(id carnet.ShareID, only []carnet.StreamID) []carnet.StreamID {
	return slices.DeleteFunc(slices.Clone(w.shared[id]), func(s carnet.StreamID) bool { return only != nil && !slices.Contains(only, s) })
}

func (w *world) EraseShared(_ context.Context, id carnet.ShareID, only []carnet.StreamID, _ carnet.ErasureID) (had avatar.Extent, err error) {
	defer w.lock()()
	for _, s := range w.named(id, only) {
		w.hidden[s] = true
		had.Streams++
	}
	return had, nil
}

func (w *world) ClearShared(_ context.Context, id carnet.ShareID, only []carnet.StreamID, _ carnet.ErasureID) error {
	if w.clearing != nil {
		w.clearing()
	}
	defer w.lock()()
	for _, s := range w.named(id, only) {
		w.cleared[s] = w.hidden[s]
	}
	return nil
}

func (w *world) Keep(_ context.Context, kept []avatar.Kept, _ []ledger.Statement, _ ...carnet.Document) error {
	defer w.lock()()
	for _, k := range kept {
		text, err := json.Marshal(k.Body)
		if err != nil {
			return err
		}
		w.documents[k.ID] = text
	}
	return nil
}

// moves are what is known of moves.
type moves struct {
	Moves
	world    *world
	homes    []move.Registered
	sources  []move.AtSource
	targets  []move.AtTarget
	farewell error // why what keeps still for one doesn't go on
}

func (m *moves) AtSource() []move.AtSource { return m.sources }
func (m *moves) AtTarget() ([]move.AtTarget, map[carnet.CrossingID]move.Progress) {
	return m.targets, nil
}
func (m *moves) Cancel(context.Context, carnet.CrossingID, string) error { return nil }
func (m *moves) NoteHome(context.Context, move.Registered) error         { return nil }
func (m *moves) Forget(context.Context, carnet.AvatarID) error           { return nil }
func (m *moves) ByHome(home carnet.HomeID) []move.Registered {
	return slices.DeleteFunc(slices.Clone(m.homes), func(h move.Registered) bool { return h.Home != home })
}

func (m *moves) HomeOf(id carnet.AvatarID) (move.Registered, error) {
	for _, h := range m.homes {
		if h.Avatar == id {
			return h, nil
		}
	}
	return move.Registered{}, carnet.Errorf(carnet.NotFound, "no home of %s", id)
}

func (m *moves) LetGo(_ context.Context, id carnet.AvatarID) error {
	defer m.world.lock()()
	if m.farewell == nil {
		delete(m.world.frozen, id)
	}
	return m.farewell
}

// shares are what is known of shares.
type shares struct {
	Shares
	taken map[carnet.ShareID]crossing.Taken
	given []crossing.Given
	// unshelved are those whose shelves are withdrawn.
	unshelved []carnet.ShareID
}

func (s *shares) TakenAs(id carnet.ShareID) (crossing.Taken, bool) {
	t, ok := s.taken[id]
	return t, ok
}
func (s *shares) TakenFor(carnet.AvatarID) []crossing.Taken          { return nil }
func (s *shares) GivenOf(carnet.AvatarID) []crossing.Given           { return s.given }
func (s *shares) ForgetGiven(context.Context, carnet.AvatarID) error { return nil }
func (s *shares) Unshelve(_ context.Context, of []carnet.ShareID, _ carnet.ErasureID) error {
	s.unshelved = append(s.unshelved, of...)
	return nil
}
func (s *shares) Withdrawn(context.Context, carnet.ErasureID) error { return nil }
func (s *shares) Passed(_ carnet.ShareID, of []carnet.StreamID) []carnet.StreamID {
	return slices.Clone(of)
}

// jobs are what was computed, with the DPMs that it was computed at.
type jobs struct {
	Jobs
	mu     sync.Mutex
	at     map[carnet.PartyID]int
	over   uint64
	told   []job.Erased
	answer func(at carnet.PartyID, by carnet.ErasureID) ([]string, []int, error)
}

func (j *jobs) Erase(_ context.Context, e job.Erased) (uint64, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.told = append(j.told, e)
	return j.over, nil
}

func (j *jobs) ErasedAt(carnet.ErasureID) map[carnet.PartyID]int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return maps.Clone(j.at)
}

func (j *jobs) Over(carnet.AvatarID) map[carnet.PartyID]int { return j.at }

func (j *jobs) TellErased(_ context.Context, at carnet.PartyID, by carnet.ErasureID) ([]string, []int, error) {
	return j.answer(at, by)
}

// items are what avatars have.
type items struct {
	Items
	had    uint64
	still  error // why one of them can't end now
	erased []carnet.AvatarID
	untold int
}

func (i *items) Untold(carnet.ErasureID) int { return i.untold }

func (i *items) Of(carnet.AvatarID) []item.Info { return nil }

func (i *items) Erase(_ context.Context, id carnet.AvatarID, _ carnet.ErasureID) (uint64, error) {
	if i.still == nil {
		i.erased = append(i.erased, id)
	}
	return i.had, i.still
}

// desk is a register that answers one thing.
type desk struct {
	Registrar
	is   identity.HomeAnswer
	away bool
}

func (d *desk) Home(context.Context, carnet.HomeID) (identity.HomeAnswer, register.HomeReply, error) {
	if d.away {
		return identity.HomeAnswer{}, register.HomeReply{}, carnet.Errorf(carnet.Unavailable, "the register is away")
	}
	return d.is, register.HomeReply{}, nil
}

func (d *desk) Enrol(context.Context, carnet.HomeID, string) (identity.HomeAnswer, register.HomeReply, error) {
	return d.Home(context.Background(), carnet.HomeID{})
}

func (d *desk) Erase(context.Context, carnet.HomeID, string) (identity.HomeAnswer, register.HomeReply, error) {
	return d.Home(context.Background(), carnet.HomeID{})
}

type noDepot struct{ Depot }

func (noDepot) Party() carnet.PartyID { return "" }

// vault is a depot that signs what it is asked, but for one erasure's.
type vault struct {
	asked   []depot.Erasing
	refuses carnet.ErasureID
}

func (v *vault) Party() carnet.PartyID { return "there" }

func (v *vault) Erase(_ context.Context, q depot.Erasing) (string, error) {
	if q.Erasure == v.refuses {
		return "", carnet.Errorf(carnet.Unavailable, "not now")
	}
	v.asked = append(v.asked, q)
	return identity.SignDeletion(testKey(there), identity.Deletion{
		Erasure: q.Erasure, Order: q.Order, By: did(there), Role: identity.DeletedAtDepot, Objects: uint64(len(q.Objects)), Unreadable: noon, Unrecoverable: noon.Add(time.Hour),
	})
}

// stage is a world that erases, alone.
type stage struct {
	t      *testing.T
	agent  *Agent
	world  *world
	moves  *moves
	shares *shares
	jobs   *jobs
	items  *items
	desk   *desk
}

func newStage(t *testing.T) *stage { return newStageOf(t, "here", here) }

// newStageOf is a world of a name, with a key.
func newStageOf(t *testing.T, party carnet.PartyID, key byte) *stage {
	w := &world{
		avatars: make(map[carnet.AvatarID]avatar.Info), frozen: make(map[carnet.AvatarID]bool), gone: make(map[carnet.AvatarID]avatar.Destination),
		shared: make(map[carnet.ShareID][]carnet.StreamID), hidden: make(map[carnet.StreamID]bool), cleared: make(map[carnet.StreamID]bool), documents: make(map[string][]byte),
		doomed: make(map[carnet.ErasureID][]carnet.Fingerprint),
	}
	s := &stage{t: t, world: w, moves: &moves{world: w}, shares: &shares{taken: make(map[carnet.ShareID]crossing.Taken)}, jobs: &jobs{}, items: &items{}, desk: &desk{}}
	var err error
	s.agent, err = New(t.Context(), Config{
		Party: party, Key: testKey(key), World: w, Shares: s.shares, Moves: s.moves, Jobs: s.jobs, Items: s.items, Depot: noDepot{},
		Registrar:  func() (Registrar, string, error) { return s.desk, did(theRegistrar), nil },
		Registered: func() bool { return true },
		Peer: func(p carnet.PartyID) string {
			return map[carnet.PartyID]string{"here": did(here), "there": did(there), "elsewhere": did(elsewhere)}[p]
		},
		Tell: func(context.Context, carnet.PartyID, string, []byte) ([]byte, error) {
			return nil, carnet.Errorf(carnet.Unavailable, "nobody answers")
		},
		Revoke: func(context.Context, carnet.AvatarID) error { return nil },
		Now:    func() time.Time { return noon }, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// order is the owner's, for the world with a key.
func (s *stage) order(at byte, home carnet.HomeID, id carnet.AvatarID) string {
	s.t.Helper()
	e := carnet.ErasureID{5}
	token, err := identity.SignErasure(testKey(theOwner), identity.ErasureOrder{
		Erasure: e, Registrar: did(theRegistrar), Owner: did(theOwner), World: did(at), Home: home, Avatar: identity.ErasedMark(e, id), Made: noon, Until: noon.Add(time.Hour),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return token
}

// goOn has everything be done that can be, as Run does.
func (s *stage) goOn() {
	for range 6 {
		for _, e := range s.agent.All() {
			s.agent.goOn(s.t.Context(), e.key())
		}
	}
}

// told tells the world something, which goes on with it meanwhile.
func (s *stage) told(by carnet.PartyID, t Telling) (told Told, err error) {
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		told, err = s.agent.Told(s.t.Context(), by, t)
	}()
	for {
		select {
		case <-answered:
			return told, err
		case <-time.After(5 * time.Millisecond):
			s.goOn()
		}
	}
}
