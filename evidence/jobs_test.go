package evidence

import (
	"crypto/ed25519"
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/capsule"
	"carnet/identity"
	"carnet/ledger"
	"carnet/seal"
)

// The keys of a job's parties: who signs orders, the DPM, and its ledger.
const (
	orders = 20
	forges = 21
	vault2 = 22
)

// jobScene is an avatar whose heart rates the DPM forge computed over: all that is beside
// its bundle.
type jobScene struct {
	*stage
	there  *stage // the DPM's ledger
	order  capsule.Order
	result capsule.Result
	job    Job
	ledger Ledger // the DPM's
}

// put has somebody state something of the job, which is on the ledger when prove is called.
func (s *stage) put(st ledger.Statement) (prove func() identity.OnLedger) {
	s.t.Helper()
	st.Time = made.UnixNano()
	text, err := st.Marshal()
	if err != nil {
		s.t.Fatal(err)
	}
	salt, at := ledger.NewSalt(), len(s.entries)
	s.entries = append(s.entries, carnet.Fingerprint(ledger.EntryOf(salt, text)))
	return func() identity.OnLedger {
		signed, sig := s.checkpoint(s.depot, seal.Root(s.entries))
		return identity.OnLedger{Statement: text, Salt: salt[:], Receipt: s.receipt(at, signed, sig)}
	}
}

func signed(t testing.TB) func(string, error) string {
	return func(token string, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
}

// newJobScene makes one; amiss changes what the order says of the avatar's input.
func newJobScene(t *testing.T, here bool, amiss ...func(*capsule.Input)) *jobScene {
	s := &jobScene{stage: newStage(t), there: newStage(t)}
	var err error
	if s.there.depot, err = ledger.NewSigner("lab.example/ledger", seed(vault2)); err != nil {
		t.Fatal(err)
	}
	s.ledger = Ledger{"vault2", s.there.depot.Key().String()}
	watch, other := s.course(s.hub, true), s.course(s.hub, false)
	var data []byte
	var leaves []carnet.Fingerprint
	for n := range 4 {
		f := s.send(watch, other)
		if n != 1 { // a batch that the job didn't need
			data = append(binary.BigEndian.AppendUint32(data, uint32(len(f.Batches[0]))), f.Batches[0]...)
			leaves = append(leaves, carnet.FingerprintOf(f.Batches[0]))
		}
	}
	input := func(data []byte, leaves []carnet.Fingerprint, name string) capsule.Input {
		return capsule.Input{Content: capsule.Content{Fingerprint: carnet.FingerprintOf(data), Size: int64(len(data))}, Avatar: name, Batches: len(leaves), Root: seal.Root(leaves)}
	}
	s.order = capsule.Order{
		Job: carnet.NewJobID(), By: s.name, For: "forge", Purpose: "fitness", Terms: carnet.Fingerprint{7}, Bags: []carnet.Fingerprint{{1}}, Reception: carnet.Fingerprint{2},
		Made: made, Until: made.Add(time.Hour), Task: capsule.Task{
			Engine: "sql", Program: capsule.Content{Fingerprint: carnet.Fingerprint{3}, Size: 9}, To: 1 << 62, Limits: capsule.Limits{Memory: 64 << 20, Milliseconds: 1000, Output: 1 << 20, Parts: 4},
			Inputs: []capsule.Input{input([]byte("another's"), []carnet.Fingerprint{{4}}, "a1"), input(data, leaves, "a2")},
		},
	}
	for _, change := range amiss {
		change(&s.order.Task.Inputs[1])
	}
	by := byte(forges)
	if here {
		s.order.For, s.order.Bags, by = s.name, nil, orders
	}
	j := &s.job
	if !here {
		j.At = "forge"
	}
	j.Outcome, j.Order = capsule.Done, signed(t)(s.order.Sign(seed(orders)))
	named := capsule.Fingerprint(j.Order)
	s.result = capsule.Result{Job: s.order.Job, Order: named, Outcome: capsule.Done, Attempt: 1, Began: made, Ended: made.Add(time.Second), Output: &capsule.Output{
		Program: s.order.Task.Program.Fingerprint, Inputs: s.order.Task.Root(), Measurements: 15, Fingerprint: carnet.Fingerprint{5}, Size: 5, Parts: 1,
	}}
	j.Result = signed(t)(s.result.Sign(seed(by)))
	ordered := s.put(ledger.Statement{Kind: ledger.JobOrdered, Who: s.name, Peer: s.order.For, Object: named})
	ended := s.put(ledger.Statement{Kind: ledger.JobEnded, Who: s.name, Peer: s.order.For, Object: capsule.Fingerprint(j.Result), Reason: "done"})
	s.receipts()
	one, two := ordered(), ended()
	j.Ordered, j.Ended = &one, &two
	j.Inputs = []JobInput{{Place: 1, Stream: watch.id, Batches: []Range{{0, 0}, {2, 3}}}}
	if !here {
		j.Acceptance = signed(t)(capsule.Acceptance{Job: s.order.Job, Order: named, Accepted: made}.Sign(seed(forges)))
		j.Record = s.record(t, func(*capsule.Record) {})
	}
	return s
}

// record is the DPM's, spoiled.
func (s *jobScene) record(t *testing.T, spoil func(*capsule.Record)) string {
	named := capsule.Fingerprint(s.job.Order)
	accepted := s.there.put(ledger.Statement{Kind: ledger.JobAccepted, Who: "forge", Peer: "arena", Object: named})
	ended := s.there.put(ledger.Statement{Kind: ledger.JobEnded, Who: "forge", Peer: "arena", Object: capsule.Fingerprint(s.job.Result), Reason: "done"})
	r := capsule.Record{Job: s.order.Job, Order: named, Depot: s.ledger.Party, Ledger: s.ledger.Key, Accepted: accepted(), Ended: ended()}
	spoil(&r)
	return signed(t)(r.Sign(seed(forges)))
}

// says has the world state something else of a job than it does in the scene.
func (s *jobScene) says(st ledger.Statement) *identity.OnLedger {
	p := s.put(st)()
	return &p
}

// refused is a job that the DPM refused, ordered at some time.
func (s *jobScene) refused(t *testing.T, at time.Time) Job {
	o := s.order
	o.Job, o.Made = carnet.NewJobID(), at
	order := signed(t)(o.Sign(seed(orders)))
	return Job{
		At: "forge", Order: order, Outcome: "refused", Why: "it has no room", Inputs: s.job.Inputs,
		Ordered: s.says(ledger.Statement{Kind: ledger.JobOrdered, Who: s.name, Peer: "forge", Object: capsule.Fingerprint(order)}),
	}
}

// withJobs are the options of a bundle with jobs.
func (s *jobScene) withJobs(all ...Job) Options {
	o := s.options()
	o.Jobs = &Jobs{By: publicOf(orders), DPMs: []DPM{{Party: "forge", Key: publicKey(forges)}, {Party: "idle", Key: publicKey(forges)}}, Jobs: all}
	return o
}

func publicOf(of byte) ed25519.PublicKey { return seed(of).Public().(ed25519.PublicKey) }
func publicKey(of byte) PublicKey        { return PublicKey(publicOf(of)) }

// trusted is a trust file that has all that a bundle of the scene names.
func (s *jobScene) trusted() Trust {
	t := s.trust()
	t.Worlds[0].Register = identity.DID(publicOf(orders))
	t.DPMs, t.Ledgers = []DPM{{Party: "forge", Key: publicKey(forges)}}, append(t.Ledgers, s.ledger)
	return t
}

// A job is proved with what both sides signed and stated, and which batches of the bundle
// it was over.
func TestJobsAreProved(t *testing.T) {
	for _, here := range []bool{false, true} {
		s := newJobScene(t, here)
		dir, trust := s.write(s.withJobs(s.job)), s.trusted()
		r := verify(t, dir, &trust)
		want(t, r, True, s.order.Job.String(), "1 of its 2 inputs", s.result.Output.Fingerprint.String())
		if len(r.Jobs) != 1 || r.Jobs[0].Own != 1 || r.Jobs[0].Outcome != capsule.Done || len(r.Trust.DPMs) != map[bool]int{true: 0, false: 1}[here] {
			t.Errorf("jobs %+v, DPMs %+v", r.Jobs, r.Trust.DPMs)
		}
		want(t, verify(t, s.write(s.options()), &trust), True) // without jobs it is as ever
	}
}

// However many jobs are over the same batches, they are read once.
func TestJobsOverTheSameBatches(t *testing.T) {
	s := newJobScene(t, false)
	v := &verification{dir: s.write(s.withJobs(s.job)), report: &Report{}}
	defer v.close()
	if whole, err := v.openFiles(); err != nil || !whole {
		t.Fatal(v.report.Findings, err)
	}
	if whole, err := v.openManifest(); err != nil || !whole {
		t.Fatal(v.report.Findings, err)
	}
	p, err := v.places(t.Context(), &jobsFile{Jobs: []Job{s.job}})
	if err != nil {
		t.Fatal(err)
	}
	want, other := s.order.Task.Inputs[1], s.order.Task.Inputs[1]
	other.Fingerprint[0]++
	if why, err := p.hold(t.Context(), &s.job.Inputs[0], &want); err != nil || why != "" {
		t.Fatalf("%s, %v", why, err)
	}
	v.files[FileBatches].Close() // what is read again isn't there
	if why, err := p.hold(t.Context(), &s.job.Inputs[0], &want); err != nil || why != "" {
		t.Errorf("the same input again: %s, %v", why, err)
	}
	if why, err := p.hold(t.Context(), &s.job.Inputs[0], &other); err != nil || why == "" {
		t.Errorf("another order's: %q, %v", why, err)
	}
}

// Each piece that is missing is named, and nothing is called true without it.
func TestMissingPiecesOfJobsAreNamed(t *testing.T) {
	s := newJobScene(t, false)
	for what, c := range map[string]struct {
		take func(*Job)
		is   Verdict
		says string
	}{
		"acceptance": {func(j *Job) { j.Acceptance = "" }, Unknown, "the acceptance of forge is missing"},
		"record":     {func(j *Job) { j.Record = "" }, Unknown, "what forge has stated on its ledger is missing"},
		"ordered":    {func(j *Job) { j.Ordered = nil }, Unknown, "the world's statement that it was ordered is missing"},
		"ended":      {func(j *Job) { j.Ended = nil }, Unknown, "the world's statement that it ended is missing"},
		"inputs":     {func(j *Job) { j.Inputs = nil }, Unknown, "its inputs were made can't be told"},
		"result":     {func(j *Job) { j.Result, j.Ended = "", nil }, False, "there is no result that says so"},
		"order":      {func(j *Job) { j.Order = "" }, False, "its order doesn't hold"},
		"receipt":    {func(j *Job) { one := *j.Ended; one.Receipt = nil; j.Ended = &one }, Unknown, "is pending"},
		"receipt of the DPM's": {func(j *Job) {
			j.Record = s.record(t, func(r *capsule.Record) { r.Accepted.Receipt = nil })
		}, Unknown, "the statement of forge that it accepted it is pending"},
	} {
		j := s.job
		c.take(&j)
		t.Run(what, func(t *testing.T) { want(t, verify(t, s.write(s.withJobs(j)), nil), c.is, c.says) })
	}
}

// A world that says of a job what wasn't signed or stated is found out, though it signs the
// bundle.
func TestForgedJobs(t *testing.T) {
	s := newJobScene(t, false)
	sign := signed(t)
	other := newJobScene(t, false)
	result := func(change func(*capsule.Result)) func(*Job) {
		return func(j *Job) {
			r, o := s.result, *s.result.Output
			r.Output = &o
			change(&r)
			j.Result = sign(r.Sign(seed(forges)))
		}
	}
	for what, c := range map[string]struct {
		spoil func(*Job)
		says  string
	}{
		"another's order":         {func(j *Job) { j.Order = sign(s.order.Sign(seed(forges))) }, "its order doesn't hold"},
		"another order":           {func(j *Job) { j.Order = other.job.Order }, "is of another order"},
		"the world's own result":  {func(j *Job) { j.Result = sign(s.result.Sign(seed(orders))) }, "its result isn't signed by forge"},
		"another outcome":         {func(j *Job) { j.Outcome = capsule.Failed }, "its result says done, and the world failed"},
		"another output":          {result(func(r *capsule.Result) { r.Output.Fingerprint[0]++ }), "the world's statement that it ended doesn't hold"},
		"another program":         {result(func(r *capsule.Result) { r.Output.Program[0]++ }), "of another program"},
		"other inputs":            {result(func(r *capsule.Result) { r.Output.Inputs[0]++ }), "of other inputs"},
		"another order's result":  {result(func(r *capsule.Result) { r.Order[0]++ }), "its result is of another order"},
		"the world's acceptance":  {func(j *Job) { j.Acceptance = sign(capsule.Acceptance{Job: s.order.Job}.Sign(seed(orders))) }, "its acceptance isn't signed by forge"},
		"another acceptance":      {func(j *Job) { j.Acceptance = other.job.Acceptance }, "its acceptance is of another order"},
		"a withdrawal by the DPM": {func(j *Job) { j.Withdrawal = sign(capsule.Withdrawal{Job: s.order.Job}.Sign(seed(forges))) }, "its withdrawal doesn't hold"},
		"another's withdrawal":    {func(j *Job) { j.Withdrawal = sign(capsule.Withdrawal{Job: s.order.Job}.Sign(seed(orders))) }, "its withdrawal is of another order"},
		"an order by another world": {func(j *Job) {
			o := s.order
			o.By = "citadel"
			j.Order = sign(o.Sign(seed(orders)))
		}, "its order is by citadel"},
		"it ran in the world":       {func(j *Job) { j.At = "" }, "it is said to have run elsewhere"},
		"statements for each other": {func(j *Job) { j.Ordered, j.Ended = j.Ended, j.Ordered }, "ordered doesn't hold"},
		"a statement off the ledger": {func(j *Job) {
			one := s.put(ledger.Statement{Kind: ledger.JobOrdered, Who: s.name, Peer: "forge", Object: capsule.Fingerprint(j.Order)})()
			one.Receipt = j.Ordered.Receipt
			j.Ordered = &one
			s.entries = s.entries[:len(s.entries)-1]
		}, "ordered doesn't hold"},
		"another's record":       {func(j *Job) { j.Record = other.job.Record }, "is of another order"},
		"a record of statements": {func(j *Job) { j.Record = s.record(t, func(r *capsule.Record) { r.Accepted = r.Ended }) }, "accepted it doesn't hold"},
		"the world's statements": {func(j *Job) { j.Record = s.record(t, func(r *capsule.Record) { r.Ended = *j.Ended }) }, "that it ended doesn't hold"},
		"other batches":          {func(j *Job) { j.Inputs = []JobInput{{1, s.courses[0].id, []Range{{1, 3}}}} }, "isn't made of the batches"},
		"fewer batches":          {func(j *Job) { j.Inputs = []JobInput{{1, s.courses[0].id, []Range{{2, 3}}}} }, "isn't made of the batches"},
		"batches beyond":         {func(j *Job) { j.Inputs = []JobInput{{1, s.courses[0].id, []Range{{2, 4}}}} }, "isn't in the bundle"},
		"another stream":         {func(j *Job) { j.Inputs = []JobInput{{1, s.courses[1].id, []Range{{2, 4}}}} }, "isn't in the bundle"},
		"another input":          {func(j *Job) { j.Inputs = []JobInput{{0, s.courses[0].id, []Range{{2, 2}}}} }, "isn't made of the batches"},
		"ordered of another DPM": {func(j *Job) {
			j.Ordered = s.says(ledger.Statement{Kind: ledger.JobOrdered, Who: s.name, Peer: "lab", Object: capsule.Fingerprint(j.Order)})
		}, "ordered doesn't hold"},
		"accepted, not ordered": {func(j *Job) {
			j.Ordered = s.says(ledger.Statement{Kind: ledger.JobAccepted, Who: s.name, Peer: "forge", Object: capsule.Fingerprint(j.Order)})
		}, "ordered doesn't hold"},
		"ordered by another world": {func(j *Job) {
			j.Ordered = s.says(ledger.Statement{Kind: ledger.JobOrdered, Who: "citadel", Peer: "forge", Object: capsule.Fingerprint(j.Order)})
		}, "ordered doesn't hold"},
		"ended by another DPM": {func(j *Job) {
			j.Ended = s.says(ledger.Statement{Kind: ledger.JobEnded, Who: s.name, Peer: "lab", Object: capsule.Fingerprint(j.Result), Reason: "done"})
		}, "ended doesn't hold"},
		"ended otherwise": {func(j *Job) {
			j.Ended = s.says(ledger.Statement{Kind: ledger.JobEnded, Who: s.name, Peer: "forge", Object: capsule.Fingerprint(j.Result), Reason: "failed"})
		}, "ended doesn't hold"},
		"an input twice": {func(j *Job) { j.Inputs = append(slices.Clone(j.Inputs), j.Inputs...) }, "or twice"},
	} {
		j := s.job
		c.spoil(&j)
		t.Run(what, func(t *testing.T) { want(t, verify(t, s.write(s.withJobs(j)), nil), False, c.says) })
	}
	want(t, verify(t, s.write(s.withJobs(s.job, s.job)), nil), False, "stands twice")
	want(t, verify(t, s.write(s.withJobs(s.job, s.refused(t, made.Add(-time.Minute)))), nil), False, "after a job that was made later")
	j := s.refused(t, made)
	j.Ended = s.job.Ended
	want(t, verify(t, s.write(s.withJobs(j)), nil), False, "it has no result, and a statement of one")
	own := newJobScene(t, true)
	own.job.Acceptance = s.job.Acceptance
	want(t, verify(t, own.write(own.withJobs(own.job)), nil), False, "it ran in the world, and has what a DPM signs")
	j = s.job
	j.Record = sign(capsule.Record{Job: s.order.Job}.Sign(seed(orders)))
	if _, err := Write(t.Context(), filepath.Join(t.TempDir(), "b"), s, s.withJobs(j)); err == nil {
		t.Error("a record by another key is written")
	}
}

// An outcome that can't be of its order isn't proved by who signed it; a withdrawal that
// isn't shown is missing.
func TestOutcomesAreFounded(t *testing.T) {
	s := newJobScene(t, false)
	says := func(o capsule.Outcome, ended time.Time, withdrawal string) (found []string) {
		r, j := s.result, s.job
		r.Outcome, r.Output, r.Ended = o, nil, ended
		j.Outcome, j.Result, j.Withdrawal, j.Record = o, signed(t)(r.Sign(seed(forges))), withdrawal, ""
		j.Ended = s.says(ledger.Statement{Kind: ledger.JobEnded, Who: s.name, Peer: "forge", Object: capsule.Fingerprint(j.Result), Reason: string(o)})
		for _, f := range verify(t, s.write(s.withJobs(j)), nil).Findings {
			if strings.Contains(f.Text, "its result says that") || strings.Contains(f.Text, "withdrawal") {
				found = append(found, f.Text)
			}
		}
		return found
	}
	word := signed(t)(capsule.Withdrawal{Job: s.order.Job, Order: capsule.Fingerprint(s.job.Order), Why: "cancelled", Made: made}.Sign(seed(orders)))
	for _, v := range []struct {
		found []string
		want  string // empty: nothing
	}{
		{says(capsule.Expired, s.order.Until, ""), ""},
		{says(capsule.Expired, s.order.Until.Add(-time.Second), ""), "its result says that its time was over at"},
		{says(capsule.Refused, made, ""), "its result says that its module is revoked, and its order names none"},
		{says(capsule.Withdrawn, made, word), ""},
		{says(capsule.Withdrawn, made, ""), "the world's withdrawal is missing"},
		{says(capsule.Parked, made, ""), ""},
	} {
		if len(v.found) > 1 || (len(v.found) == 1) != (v.want != "") || v.want != "" && !strings.Contains(v.found[0], v.want) {
			t.Errorf("it is found that %q; want %q", v.found, v.want)
		}
	}
}

// An input is the order's if all four agree that the order has of it: how many batches,
// how large, root, and fingerprint.
func TestInputsAreTheOrders(t *testing.T) {
	for what, change := range map[string]func(*capsule.Input){
		"batches":     func(in *capsule.Input) { in.Batches++ },
		"size":        func(in *capsule.Input) { in.Size++ },
		"root":        func(in *capsule.Input) { in.Root[0]++ },
		"fingerprint": func(in *capsule.Input) { in.Fingerprint[0]++ },
	} {
		t.Run(what, func(t *testing.T) {
			s := newJobScene(t, false, change)
			r := verify(t, s.write(s.withJobs(s.job)), nil)
			want(t, r, False, "isn't made of the batches", "0 of its 2 inputs")
			if len(r.Findings) != 1 {
				t.Errorf("something else is found, too:\n%s", r.Summary())
			}
		})
	}
}

// Several jobs are proved each, also one that ended without a result.
func TestSeveralJobsAreProved(t *testing.T) {
	s := newJobScene(t, false)
	trust := s.trusted()
	r := verify(t, s.write(s.withJobs(s.job, s.refused(t, made.Add(time.Minute)), s.refused(t, made.Add(time.Minute)))), &trust)
	want(t, r, True, "done", "refused")
	if len(r.Jobs) != 3 || r.Jobs[1].Own != 1 || r.Jobs[1].Outcome != "refused" || r.Jobs[1].Output != "" || !r.Jobs[1].Ended.IsZero() {
		t.Errorf("jobs %+v", r.Jobs)
	}
}

// With a trust file only the DPM counts that it names, and the key by which a trusted world
// is known signs orders.
func TestJobsByOtherKeysAreRefused(t *testing.T) {
	s := newJobScene(t, false)
	dir := s.write(s.withJobs(s.job))
	for what, c := range map[string]struct {
		change func(*Trust)
		is     Verdict
		says   string
	}{
		"another DPM's key":      {func(t *Trust) { t.DPMs[0].Key = publicKey(30) }, False, "the bundle's key of the DPM forge is not the one"},
		"no DPM":                 {func(t *Trust) { t.DPMs = nil }, Unknown, "no key of the DPM forge"},
		"another key of orders":  {func(t *Trust) { t.Worlds[0].Register = identity.DID(publicOf(30)) }, False, "orders are signed by another key"},
		"no key of orders":       {func(t *Trust) { t.Worlds[0].Register = "" }, Unknown, "by which key arena signs orders"},
		"no ledger of the DPM's": {func(t *Trust) { t.Ledgers = t.Ledgers[:1] }, Unknown, "no key of the ledger of vault2"},
		"another world's DPM alone": {func(t *Trust) {
			t.Worlds = append(t.Worlds, World{Party: "citadel", Key: publicKey(31)})
			t.DPMs[0].World = publicKey(31)
			t.Senders = tie(t, publicKey(1))
		}, Unknown, "no key of the DPM forge"},
	} {
		trust := s.trusted()
		c.change(&trust)
		t.Run(what, func(t *testing.T) { want(t, verify(t, dir, &trust), c.is, c.says) })
	}
}

// Trust files of several worlds keep each one's DPMs apart, and one that doesn't isn't gone by.
func TestDPMsOfSeveralWorlds(t *testing.T) {
	s := newJobScene(t, false)
	dir, arena := s.write(s.withJobs(s.job)), s.trusted()
	citadel := Trust{Version: 1, Worlds: []World{{Party: "citadel", Key: publicKey(31)}}, DPMs: []DPM{{Party: "forge", Key: publicKey(30)}}}
	both := citadel
	both.Join(&arena)
	if err := both.Pins(); err != nil {
		t.Error(err)
	}
	want(t, verify(t, dir, &both), True)
	both.DPMs = slices.DeleteFunc(both.DPMs, func(d DPM) bool { return !slices.Equal(d.World, citadel.Worlds[0].Key) })
	want(t, verify(t, dir, &both), Unknown, "no key of the DPM forge")
	both.DPMs[0].World = nil
	if err := both.Pins(); err == nil {
		t.Error("a file of two worlds that doesn't say whose DPM one is is gone by")
	}
}

func tie(t *Trust, world PublicKey) []Sender {
	all := slices.Clone(t.Senders)
	for i := range all {
		all[i].World = world
	}
	return all
}

// Nothing of a bundle with jobs is uncovered: each flipped bit is found, the file can't be
// taken away, and nothing be put beside it.
func TestNothingOfJobsIsUncovered(t *testing.T) {
	s := newJobScene(t, false)
	dir := s.write(s.withJobs(s.job))
	flipFiles(t, s.stage, dir, 3, []string{FileJobs})
	flipFiles(t, s.stage, dir, 17, append(dataFiles[:], FileManifest))
	text, err := os.ReadFile(filepath.Join(dir, FileJobs))
	if err != nil {
		t.Fatal(err)
	}
	without := s.write(s.options())
	if err := os.WriteFile(filepath.Join(without, FileJobs), text, 0o600); err != nil {
		t.Fatal(err)
	}
	want(t, verify(t, without, nil), False, FileJobs, "doesn't belong")
	if err := os.Remove(filepath.Join(dir, FileJobs)); err != nil {
		t.Fatal(err)
	}
	want(t, verify(t, dir, nil), False, FileJobs, "the file is missing")

	dir = s.write(s.withJobs(s.job))
	forge(t, s.stage, dir, FileJobs, func(b []byte) []byte { return append(b, '\n') }, nil)
	want(t, verify(t, dir, nil), False, FileJobs, "one form")
	for says, c := range map[string]struct {
		dir    string
		change func(*Trust)
	}{
		"which no job is of":                  {s.write(s.withJobs(s.job)), func(own *Trust) { own.DPMs = append(own.DPMs, DPM{Party: "idle", Key: publicKey(forges)}) }},
		"names the DPM forge twice":           {s.write(s.withJobs(s.job)), func(own *Trust) { own.DPMs = append(own.DPMs, own.DPMs[0]) }},
		"says which world calls a DPM so":     {s.write(s.withJobs(s.job)), func(own *Trust) { own.DPMs[0].World = own.Worlds[0].Key }},
		"has no key of its DPM forge":         {s.write(s.withJobs(s.job)), func(own *Trust) { own.DPMs = nil }},
		"another key of the ledger of forge":  {s.write(s.withJobs(s.job)), func(own *Trust) { own.Ledgers = own.Ledgers[:1] }},
		"a bundle of its version has no jobs": {s.write(s.options()), func(own *Trust) { own.DPMs = []DPM{{Party: "forge", Key: publicKey(forges)}} }},
	} {
		forge(t, s.stage, c.dir, FileTrust, func(b []byte) []byte {
			own, err := ParseTrust(b)
			if err != nil {
				t.Fatal(err)
			}
			c.change(own)
			b, _ = own.marshal()
			return b
		}, nil)
		want(t, verify(t, c.dir, nil), False, says)
	}
	dir = s.write(s.withJobs(s.job))
	forge(t, s.stage, dir, FileJobs, nil, func(m *manifest) { m.Version = 4 })
	want(t, verify(t, dir, nil), False, FileManifest, "doesn't name the files")
	dir = s.write(s.options())
	forge(t, s.stage, dir, FileJobs, nil, func(m *manifest) { m.Version = 5 })
	want(t, verify(t, dir, nil), False, FileManifest, "doesn't name the files")
}

// Whatever stands in the file of jobs, reading it ends, and what is taken has one form.
func FuzzJobs(f *testing.F) {
	text, _ := json.MarshalIndent(jobsFile{Version: 1, By: identity.DID(publicOf(1)), Jobs: []Job{{Order: "a.b.c", Inputs: []JobInput{{Batches: []Range{{1, 2}}}}}}}, "", " ")
	f.Add(append(text, '\n'))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parseJobs(b)
		if err != nil {
			return
		}
		if again, err := json.MarshalIndent(got, "", " "); err != nil || string(again)+"\n" != string(b) {
			t.Errorf("%q is taken, and is %q", b, again)
		}
	})
}
