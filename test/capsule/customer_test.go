package capsule_test

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/capsule"
	"carnet/dpm"
	"carnet/engine"
	"carnet/engine/sql"
	"carnet/identity"
	"carnet/job"
	"carnet/keys"
	"carnet/ledger"
	"carnet/policy"
	"carnet/seal"
	"carnet/senml"
	"carnet/store/sqlite"
)

func fmtCount(n int, sum float64) []byte { return fmt.Appendf(nil, "%d %g\n", n, sum) }

// customer is a world: one avatar with batches, and its jobs. Its documents are in
// memory, and outlive its agent.
type customer struct {
	t      *testing.T
	clock  *clock
	name   carnet.PartyID
	key    ed25519.PrivateKey
	avatar carnet.AvatarID
	kek    keys.KEK
	rows   keys.Store
	table  *keys.Table
	dpms   map[carnet.PartyID]job.Peer
	disk   brittle

	agent *job.Agent
	stop  func()

	signed, publishers []string     // from its next start on
	log                *slog.Logger // from its next start on; nil: quiet

	unread, keyless atomic.Int32                  // how often inputs, or keys, can't be had, in a run
	bounds          atomic.Pointer[policy.Bounds] // of its avatar; nil: there are none

	mu        sync.Mutex // guards what follows
	reception *seal.ReceptionKey
	epoch     seal.Key
	batches   []*avatar.Batch
	contents  [][]carnet.Measurement
	gone      bool            // the avatar isn't here any more
	beside    carnet.AvatarID // another one, which has said nothing; none: there is none
	withheld  bool            // nobody can tell whether it is
	deaf      bool            // what the depot answers to a put is lost
	// What a depot's and a store's calls wait for, if it isn't nil.
	put, delete, program func()
	documents            map[[2]string]carnet.Document
	stated               []ledger.Statement
	objects              map[carnet.Fingerprint][]byte
}

var health = carnet.Label{Sensitivity: carnet.Personal | carnet.Health}

// newCustomer makes a world whose avatar has so many batches of heart rates, and starts
// its jobs.
func newCustomer(t *testing.T, c *clock, name carnet.PartyID, batches int) *customer {
	w := &customer{
		t: t, clock: c, name: name, key: newKey(), avatar: carnet.NewAvatarID(), dpms: make(map[carnet.PartyID]job.Peer),
		documents: make(map[[2]string]carnet.Document), objects: make(map[carnet.Fingerprint][]byte), epoch: seal.NewEpoch(carnet.NewStreamID()),
	}
	dir := t.TempDir()
	kek, err := keys.CreateFile(dir + "/kek")
	must(t, err)
	db, err := sqlite.Open(t.Context(), dir+"/keys.db", sqlite.Options{})
	must(t, err)
	t.Cleanup(func() { db.Close() })
	rows, err := db.Keys(t.Context())
	must(t, err)
	w.kek, w.rows = kek, brittleKeys{rows, &w.disk}
	_, err = keys.Create(t.Context(), keys.Config{KEK: kek, Store: rows})
	must(t, err)
	w.reception, err = seal.NewReceptionKey()
	must(t, err)
	for n := range batches {
		w.measure(n)
	}
	w.start()
	t.Cleanup(func() { w.stop() })
	return w
}

// measure adds a batch: the n-th minute, of ten heart rates and a note.
func (w *customer) measure(n int) {
	var ms []carnet.Measurement
	for i := range 10 {
		at := time.Date(2026, 11, 1, 8, n, i, 0, time.UTC)
		ms = append(ms, carnet.Measurement{Name: "heart_rate", Unit: "beat/min", Time: at.UnixNano(), Value: carnet.Float(float64(60 + 10*n + i))})
	}
	ms = append(ms, carnet.Measurement{Name: "note", Time: ms[0].Time, Value: carnet.String("of " + string(w.name))})
	body, err := seal.AppendBody(nil, seal.Body{Label: health, Retention: carnet.Keep, First: uint64(11 * n), Count: 11, Content: senml.AppendColumns(nil, ms)})
	must(w.t, err)
	slot, err := w.epoch.Slot(uint32(n / 2))
	must(w.t, err)
	sealed, err := slot.Seal(nil, uint64(n), body)
	must(w.t, err)
	opener, err := seal.NewOpener(1, func(seal.Header) (seal.Key, bool) { return w.epoch, true })
	must(w.t, err)
	header, _, err := opener.Open(nil, sealed)
	must(w.t, err)
	w.batches = append(w.batches, &avatar.Batch{Stream: header.Stream, Bytes: sealed, Header: header, Label: health, Retention: carnet.Keep, First: uint64(11 * n), Count: 11})
	w.contents = append(w.contents, ms)
}

// start opens its jobs, as they are stored.
func (w *customer) start() {
	ctx, cancel := context.WithCancel(context.Background())
	var err error
	w.table, err = keys.Open(ctx, keys.Config{KEK: w.kek, Store: w.rows})
	must(w.t, err)
	if w.log == nil {
		w.log = quiet()
	}
	w.agent, err = job.New(ctx, job.Config{
		Party: w.name, Key: w.key, Purpose: "fitness", World: w, Keys: w.table, Depot: w, DepotDID: func() string { return identity.DID(public(vaultKey)) }, Engines: []engine.Engine{sql.Engine{}, script{}}, Now: w.clock.now, Log: w.log,
		Peer: func(name carnet.PartyID) (job.Peer, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			p, ok := w.dpms[name]
			if !ok {
				return p, carnet.Errorf(carnet.Forbidden, "the peering with %s has ended", name)
			}
			return p, nil
		},
		DPMs: func() []carnet.PartyID {
			w.mu.Lock()
			defer w.mu.Unlock()
			return slices.Sorted(maps.Keys(w.dpms))
		},
		Signed: w.signed, Publishers: w.publishers,
	})
	must(w.t, err)
	done := make(chan error, 1)
	go func() { done <- w.agent.Run(ctx) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("%s: %v", w.name, err)
		}
	})
}

// ordersFrom has it order from a DPM, in a way that a test may stand in.
func (w *customer) ordersFrom(o *office, way func(job.DPM) job.DPM) {
	o.opens(w.name, w.key)
	var d job.DPM = &calls{o: o, who: w.name}
	if way != nil {
		d = way(d)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dpms[o.name] = job.Peer{
		Name: o.name, OwnName: o.name, Key: public(o.key), Terms: terms, Clearance: carnet.Clearance{Sensitivity: carnet.Personal | carnet.Health, Purposes: "fitness"}, DPM: d,
	}
}

// spec is a job of a program over all that the avatar has.
func (w *customer) spec(at carnet.PartyID, engine, program string) job.Spec {
	return job.Spec{At: at, Engine: engine, Program: []byte(program), Avatars: []carnet.AvatarID{w.avatar}, Properties: []string{"heart_rate"}, Limits: roomy, To: time.Date(2026, 11, 2, 0, 0, 0, 0, time.UTC)}
}

// order orders it.
func (w *customer) order(s job.Spec) job.Info {
	w.t.Helper()
	i, err := w.agent.Order(w.t.Context(), s)
	must(w.t, err)
	return i
}

// is waits until a job is as it should be.
func (w *customer) is(id carnet.JobID, what string, as func(job.Info) bool) job.Info {
	w.t.Helper()
	var i job.Info
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		var err error
		i, err = w.agent.Job(w.t.Context(), id, false)
		must(w.t, err)
		if as(i) {
			return i
		}
		if time.Now().After(end) {
			w.t.Fatalf("%s: the job is %s, %s (%s), and at its DPM %+v; want %s", w.name, i.Stand.State, i.Stand.Outcome, i.Stand.Why, i.Progress, what)
		}
	}
}

func (w *customer) ended(id carnet.JobID) job.Info {
	w.t.Helper()
	return w.is(id, "an end", func(i job.Info) bool { return i.Stand.State == job.Ended })
}

// done waits until nothing is to be done about it any more.
func (w *customer) done(id carnet.JobID, want string) job.Info {
	w.t.Helper()
	i := w.ended(id)
	if i.Stand.Outcome != capsule.Done {
		w.t.Fatalf("%s: the job is %s: %s", w.name, i.Stand.Outcome, i.Stand.Why)
	}
	out, err := w.agent.Output(w.t.Context(), id)
	if err != nil || string(out) != want {
		w.t.Fatalf("%s: the output is %q, %v; want %q", w.name, out, err, want)
	}
	return i
}

// counts is what the script "count" puts out of its heart rates.
func (w *customer) counts() string {
	n, sum := 0, 0.0
	for _, ms := range w.contents {
		for _, m := range ms[:10] {
			n++
			sum += m.Value.Num
		}
	}
	return string(fmtCount(n, sum))
}

// What follows implements job.World and job.Depot.

func (w *customer) EachBatch(_ context.Context, id carnet.AvatarID, q avatar.BatchQuery, do func(carnet.StreamID, *avatar.Batch, []carnet.Measurement) error) error {
	if _, err := w.Avatar(id); err != nil || id != w.avatar {
		return err
	}
	if q.Stream != (carnet.StreamID{}) && w.unread.Add(-1) >= 0 {
		return carnet.Errorf(carnet.Unavailable, "the disk is busy")
	}
	for i, b := range w.batches {
		if q.Stream != (carnet.StreamID{}) && q.Stream != b.Stream || b.Header.Number < q.First || q.Last != 0 && b.Header.Number > q.Last {
			continue
		}
		fits := slices.DeleteFunc(slices.Clone(w.contents[i]), func(m carnet.Measurement) bool {
			return m.Time < q.From || m.Time >= q.To || len(q.Properties) > 0 && !slices.Contains(q.Properties, m.Name)
		})
		if len(fits) == 0 {
			continue
		}
		if err := do(b.Stream, b, fits); err != nil {
			return err
		}
	}
	return nil
}

func (w *customer) SlotKey(_ context.Context, h seal.Header) (seal.Key, error) {
	if w.keyless.Add(-1) >= 0 {
		return seal.Key{}, carnet.Errorf(carnet.Unavailable, "the key table is busy")
	}
	slot, err := w.epoch.Slot(h.Slot)
	if err != nil {
		return seal.Key{}, err
	}
	return slot.Key(), nil
}

func (w *customer) AnnounceTo(signer crypto.Signer, self carnet.PartyID) ([]byte, error) {
	return w.reception.Announce(signer, self, w.clock.now().Add(24*time.Hour))
}

func (w *customer) OpenBag(sealed []byte, want seal.Expected) (*seal.Bag, error) {
	want.Now = w.clock.now()
	return w.reception.OpenBag(sealed, want)
}

func (w *customer) Avatar(id carnet.AvatarID) (avatar.Info, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if id == w.beside && id != (carnet.AvatarID{}) {
		return avatar.Info{ID: id}, nil
	}
	if w.gone || id != w.avatar {
		return avatar.Info{}, carnet.Errorf(carnet.NotFound, "there is no avatar %s", id)
	}
	return avatar.Info{ID: id}, nil
}

func (w *customer) Readable(id carnet.AvatarID) error {
	if _, err := w.Avatar(id); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.withheld {
		return carnet.Errorf(carnet.Unavailable, "it can't be told yet whether it is erased")
	}
	return nil
}

// waits has a call wait for what a test has it wait for.
func (w *customer) waits(which *func()) {
	w.mu.Lock()
	wait := *which
	w.mu.Unlock()
	if wait != nil {
		wait()
	}
}

// holds has calls wait, all that come, and says that one came; free lets them go on.
func (w *customer) holds(which *func()) (came <-chan struct{}, free func()) {
	c, f := make(chan struct{}, 100), make(chan struct{})
	w.mu.Lock()
	defer w.mu.Unlock()
	*which = func() {
		c <- struct{}{}
		<-f
	}
	return c, sync.OnceFunc(func() { close(f) })
}

func (w *customer) Bounds(carnet.AvatarID) (b policy.Bounds) {
	if set := w.bounds.Load(); set != nil {
		b = *set
	}
	return b
}

func (w *customer) SendersOf(carnet.AvatarID) []carnet.PartyID { return nil }

func (w *customer) Keep(_ context.Context, kept []avatar.Kept, statements []ledger.Statement, plain ...carnet.Document) error {
	return w.disk.step(func() error { return w.keep(kept, statements, plain) })
}

func (w *customer) keep(kept []avatar.Kept, statements []ledger.Statement, plain []carnet.Document) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := slices.Clone(plain)
	for _, k := range kept {
		d := carnet.Document{Kind: k.Kind, ID: k.ID, Version: k.Version}
		if k.Body != nil {
			var err error
			if d.Body, err = json.Marshal(k.Body); err != nil {
				return err
			}
		}
		all = append(all, d)
	}
	for _, d := range all {
		if have := w.documents[[2]string{d.Kind, d.ID}].Version; have+1 != d.Version {
			return carnet.Errorf(carnet.Conflict, "%s %s has version %d, so the next isn't %d", d.Kind, d.ID, have, d.Version)
		}
	}
	for _, d := range all {
		if d.Body == nil {
			delete(w.documents, [2]string{d.Kind, d.ID})
		} else {
			w.documents[[2]string{d.Kind, d.ID}] = d
		}
	}
	w.stated = append(w.stated, statements...)
	return nil
}

func (w *customer) EachKept(_ context.Context, kind string, do func(string, uint64, func(any) error) error) error {
	w.mu.Lock()
	var all []carnet.Document
	for _, d := range w.documents {
		if d.Kind == kind {
			all = append(all, d)
		}
	}
	w.mu.Unlock()
	slices.SortFunc(all, func(a, b carnet.Document) int { return strings.Compare(a.ID, b.ID) })
	for _, d := range all {
		if err := do(d.ID, d.Version, func(v any) error { return json.Unmarshal(d.Body, v) }); err != nil {
			return err
		}
	}
	return nil
}

func (w *customer) OneKept(ctx context.Context, kind, id string, body any) (uint64, error) {
	d, err := w.Plain(ctx, kind, id)
	if kind == "program" {
		w.waits(&w.program)
	}
	if err != nil {
		return 0, err
	}
	return d.Version, json.Unmarshal(d.Body, body)
}

func (w *customer) Plain(_ context.Context, kind, id string) (carnet.Document, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	d, ok := w.documents[[2]string{kind, id}]
	if !ok {
		return d, carnet.Errorf(carnet.NotFound, "there is no %s %s", kind, id)
	}
	return d, nil
}

// Dooming is of what the depot is to delete by an erasure: a document for each.
func (w *customer) Dooming(_ context.Context, objects []carnet.Fingerprint, by carnet.ErasureID) (all []carnet.Document, err error) {
	for _, f := range objects {
		all = append(all, carnet.Document{Kind: "doomed", ID: f.String(), Version: 1, Body: by[:]})
	}
	return all, nil
}

func (w *customer) Party() carnet.PartyID { return "vault" }

func (w *customer) PutObject(_ context.Context, body []byte, _ carnet.Retention) (carnet.Fingerprint, error) {
	w.waits(&w.put)
	w.mu.Lock()
	defer w.mu.Unlock()
	f := carnet.FingerprintOf(body)
	w.objects[f] = slices.Clone(body)
	if w.deaf {
		return f, carnet.Errorf(carnet.Unavailable, "the answer was lost")
	}
	return f, nil
}

func (w *customer) GetObject(_ context.Context, f carnet.Fingerprint) ([]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if b, ok := w.objects[f]; ok {
		return b, nil
	}
	return nil, carnet.Errorf(carnet.NotFound, "there is no object %s", f)
}

func (w *customer) DeleteObject(_ context.Context, f carnet.Fingerprint) error {
	w.waits(&w.delete)
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.objects, f)
	return nil
}

// statements are those of a kind with a reason.
func (w *customer) statements(kind ledger.Kind, reason string) (all []ledger.Statement) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.stated {
		if s.Kind == kind && strings.Contains(s.Reason, reason) {
			all = append(all, s)
		}
	}
	return all
}

// calls is the way to a DPM, which may have been started again since.
type calls struct {
	o   *office
	who carnet.PartyID
}

var _ job.DPM = (*calls)(nil)

func (c *calls) client() *dpm.Client {
	return &dpm.Client{Base: c.o.server.URL, HTTP: &http.Client{Transport: as(c.who)}}
}

func (c *calls) Offer(ctx context.Context) (dpm.Offer, error) { return c.client().Offer(ctx) }

func (c *calls) Submit(ctx context.Context, id carnet.JobID, s dpm.Submission) (string, error) {
	return c.client().Submit(ctx, id, s)
}

func (c *calls) Status(ctx context.Context, id carnet.JobID, seen uint64, wait time.Duration) (dpm.Status, error) {
	return c.client().Status(ctx, id, seen, wait)
}

func (c *calls) PutContent(ctx context.Context, id carnet.JobID, content []byte) error {
	return c.client().PutContent(ctx, id, content)
}

func (c *calls) Part(ctx context.Context, id carnet.JobID, attempt, n int) ([]byte, error) {
	return c.client().Part(ctx, id, attempt, n)
}

func (c *calls) Partial(ctx context.Context, id carnet.JobID) (dpm.PartialAnswer, error) {
	return c.client().Partial(ctx, id)
}

func (c *calls) Revoke(ctx context.Context, message string) error {
	return c.client().Revoke(ctx, message)
}

func (c *calls) Revoked(ctx context.Context, records []string) ([]string, error) {
	return c.client().Revoked(ctx, records)
}

func (c *calls) Withdraw(ctx context.Context, id carnet.JobID, message string) (string, error) {
	return c.client().Withdraw(ctx, id, message)
}

func (c *calls) Erase(ctx context.Context, q dpm.Erasing) (string, error) {
	return c.client().Erase(ctx, q)
}

func (c *calls) Record(ctx context.Context, id carnet.JobID) (string, error) {
	return c.client().Record(ctx, id)
}

func (c *calls) Taken(ctx context.Context, id carnet.JobID, message string) error {
	return c.client().Taken(ctx, id, message)
}
