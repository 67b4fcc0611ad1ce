package evidence

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"carnet"
	"carnet/capsule"
	"carnet/identity"
	"carnet/ledger"
	"carnet/seal"
)

// jobsOf verifies what a bundle says of jobs: what was signed, what was stated, and that
// inputs are the bundle's batches.
func (v *verification) jobsOf(ctx context.Context) error {
	if v.files[FileJobs] == nil {
		return nil
	}
	text, err := v.small(FileJobs, maxJobsFile)
	if err != nil || text == nil {
		return err
	}
	if carnet.FingerprintOf(text) != v.manifest.file(FileJobs).Hash {
		v.whole(FileJobs, "the file is not the one that the world signed")
		return nil
	}
	f, err := parseJobs(text)
	if err != nil {
		v.whole(FileJobs, "%v", err)
		return nil
	}
	by, err := identity.ParseDID(f.By)
	if err != nil {
		v.whole(FileJobs, "the key that signs orders: %v", err)
		return nil
	}
	v.signsOrders(f.By)
	where, err := v.places(ctx, f)
	if err != nil {
		return err
	}
	last := int64(0)
	for i := range f.Jobs {
		c := jobCheck{v: v, job: &f.Jobs[i], by: by, where: where}
		if err := c.all(ctx); err != nil {
			return err
		}
		if c.wrong == "" && c.order.Made.Unix() < last {
			c.say(False, "it comes after a job that was made later")
		}
		last = max(last, c.order.Made.Unix())
	}
	v.doubled()
	v.unnamed(f)
	return nil
}

// signsOrders holds the key of orders against the one by which a trusted world is known.
func (v *verification) signsOrders(by string) {
	if v.trust == nil {
		return
	}
	own := v.own.Worlds[0]
	for _, w := range v.trust.Worlds {
		if w.Party != own.Party || !bytes.Equal(w.Key, own.Key) {
			continue
		}
		switch w.Register {
		case by:
		case "":
			v.report.add(Finding{Verdict: Unknown, File: FileJobs, Offset: -1, Text: "the trust file given doesn't say by which key " + string(w.Party) + " signs orders; have 'carnet party trust' write it anew"})
		default:
			v.report.add(Finding{Verdict: False, File: FileJobs, Offset: -1, Text: "orders are signed by another key than that of " + string(w.Party) + " in the trust file given"})
		}
		return
	}
}

// doubled looks for a job that stands twice.
func (v *verification) doubled() {
	seen := make(map[carnet.JobID]bool)
	for _, j := range v.report.Jobs {
		if seen[j.Job] {
			v.report.add(Finding{Verdict: False, File: FileJobs, Offset: -1, Text: fmt.Sprintf("the job %s stands twice", j.Job)})
		}
		seen[j.Job] = true
	}
}

// unnamed looks for DPMs that no job is of: nothing in a bundle is beside what it proves.
func (v *verification) unnamed(f *jobsFile) {
	for _, d := range v.own.DPMs {
		if !slices.ContainsFunc(f.Jobs, func(j Job) bool { return j.At == d.Party }) {
			v.whole(FileTrust, "the trust section names the DPM %s, which no job is of", d.Party)
		}
	}
}

// jobCheck is the verification of one job.
type jobCheck struct {
	v     *verification
	job   *Job
	by    ed25519.PublicKey // signs orders
	where *batchPlaces

	order capsule.Order
	of    JobOf
	wrong string
}

// say adds a finding about the job.
func (c *jobCheck) say(verdict Verdict, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if verdict == False && c.wrong == "" {
		c.wrong = text
	}
	name := "a job"
	if c.order.Job != (carnet.JobID{}) {
		name = "the job " + c.order.Job.String()
	}
	c.v.report.add(Finding{Verdict: verdict, File: FileJobs, Offset: -1, Text: name + ": " + text})
}

// lacks says that a piece is missing.
func (c *jobCheck) lacks(what string) {
	c.say(Unknown, "%s is missing: what it would prove can't be told", what)
}

func (c *jobCheck) all(ctx context.Context) error {
	j := c.job
	o, err := capsule.OpenOrder(j.Order, c.by)
	if err != nil {
		c.say(False, "its order doesn't hold: %v", err)
		return nil
	}
	c.order = o
	c.of = JobOf{Job: o.Job, At: j.At, Outcome: j.Outcome, Why: j.Why, Made: o.Made, Engine: o.Task.Engine, Program: o.Task.Program.Fingerprint.String(), Inputs: len(o.Task.Inputs)}
	if o.By != c.v.manifest.World {
		c.say(False, "its order is by %s", o.By)
	}
	if (o.For == o.By) != (j.At == "") {
		c.say(False, "its order is for %s, and it is said to have run elsewhere", o.For)
	}
	c.stated("the world's statement that it was ordered", 0, j.Ordered, ledger.Statement{Kind: ledger.JobOrdered, Who: o.By, Peer: cmp.Or(j.At, o.By), Object: capsule.Fingerprint(j.Order)})
	key := c.by
	if j.At != "" {
		d := dpm(c.v.own.DPMs, j.At)
		if d == nil {
			c.say(False, "the trust section has no key of its DPM %s", j.At)
			return nil
		}
		key = ed25519.PublicKey(d.Key)
		c.accepted(key)
	} else if j.Acceptance != "" || j.Withdrawal != "" || j.Record != "" {
		c.say(False, "it ran in the world, and has what a DPM signs")
	}
	c.result(key)
	if j.At != "" {
		c.record(key)
	}
	err = c.inputs(ctx)
	c.v.report.Jobs = append(c.v.report.Jobs, c.of)
	return err
}

// accepted holds acceptance and withdrawal against the order.
func (c *jobCheck) accepted(key ed25519.PublicKey) {
	named := capsule.Fingerprint(c.job.Order)
	if c.job.Acceptance != "" {
		a, err := capsule.OpenAcceptance(c.job.Acceptance, key)
		switch {
		case err != nil:
			c.say(False, "its acceptance isn't signed by %s: %v", c.job.At, err)
		case a.Job != c.order.Job || a.Order != named:
			c.say(False, "its acceptance is of another order")
		}
	} else if c.job.Result != "" && c.job.Outcome != capsule.Withdrawn {
		c.lacks("the acceptance of " + string(c.job.At))
	}
	if c.job.Withdrawal == "" {
		return
	}
	w, err := capsule.OpenWithdrawal(c.job.Withdrawal, c.by)
	switch {
	case err != nil:
		c.say(False, "its withdrawal doesn't hold: %v", err)
	case w.Job != c.order.Job || w.Order != named:
		c.say(False, "its withdrawal is of another order")
	}
}

// worldsOwn are the outcomes that a world says by itself: without a result, or against one.
var worldsOwn = []capsule.Outcome{"refused", "silent", "lied"}

// result holds the result against the order.
func (c *jobCheck) result(key ed25519.PublicKey) {
	j, ended := c.job, ledger.Statement{Kind: ledger.JobEnded, Who: c.order.By, Peer: cmp.Or(c.job.At, c.order.By), Reason: string(c.job.Outcome)}
	if j.Result == "" {
		// Earlier programs signed no result of a job that was parked in the world itself.
		if !slices.Contains(append(worldsOwn, capsule.Withdrawn), j.Outcome) && (j.At != "" || j.Outcome != capsule.Parked) {
			c.say(False, "it is said to have ended as %q, and there is no result that says so", string(j.Outcome))
		}
		if j.Ended != nil { // it would name no job
			c.say(False, "it has no result, and a statement of one")
		}
		return
	}
	ended.Object = capsule.Fingerprint(j.Result)
	c.stated("the world's statement that it ended", 0, j.Ended, ended)
	r, err := capsule.OpenResult(j.Result, key)
	if err != nil {
		who := "the world"
		if j.At != "" {
			who = string(j.At)
		}
		c.say(False, "its result isn't signed by %s: %v", who, err)
		return
	}
	c.of.Ended = r.Ended
	if r.Job != c.order.Job || r.Order != capsule.Fingerprint(j.Order) {
		c.say(False, "its result is of another order")
		return
	}
	if r.Outcome != j.Outcome && !slices.Contains(worldsOwn, j.Outcome) {
		c.say(False, "its result says %s, and the world %s", r.Outcome, j.Outcome)
	}
	if r.Outcome == j.Outcome && j.At != "" { // else the world says that it isn't so
		if why := r.Unfounded(&c.order); why != "" {
			c.say(False, "its result says that %s", why)
		}
		if r.Outcome == capsule.Withdrawn && j.Withdrawal == "" {
			c.lacks("the world's withdrawal")
		}
	}
	if r.Output == nil || j.Outcome != capsule.Done {
		return
	}
	c.of.Output = r.Output.Fingerprint.String()
	switch {
	case r.Output.Program != c.order.Task.Program.Fingerprint:
		c.say(False, "its result is of another program than the order's")
	case r.Output.Inputs != c.order.Task.Root():
		c.say(False, "its result is of other inputs than the order's")
	}
}

// record holds what the DPM stated against what it signed.
func (c *jobCheck) record(key ed25519.PublicKey) {
	j := c.job
	if j.Record == "" {
		if j.Acceptance != "" {
			c.lacks("what " + string(j.At) + " has stated on its ledger")
		}
		return
	}
	r, err := capsule.OpenRecord(j.Record, key)
	if err != nil {
		c.say(False, "what is said to be stated by %s isn't signed by it: %v", j.At, err)
		return
	}
	if r.Job != c.order.Job || r.Order != capsule.Fingerprint(j.Order) {
		c.say(False, "what %s stated is of another order", j.At)
		return
	}
	i := slices.Index(c.v.own.Ledgers, Ledger{r.Depot, r.Ledger})
	if i < 0 {
		c.say(False, "the trust section has another key of the ledger of %s, or none", j.At)
		return
	}
	c.stated("the statement of "+string(j.At)+" that it accepted it", i, &r.Accepted, ledger.Statement{Kind: ledger.JobAccepted, Who: c.order.For, Object: r.Order})
	if j.Result != "" {
		c.stated("the statement of "+string(j.At)+" that it ended", i, &r.Ended, ledger.Statement{Kind: ledger.JobEnded, Who: c.order.For, Object: capsule.Fingerprint(j.Result)})
	}
}

// stated holds a statement with its receipt, of the ledger at a place of the trust section,
// against what it is to state.
func (c *jobCheck) stated(what string, at int, p *identity.OnLedger, want ledger.Statement) {
	if p == nil {
		c.lacks(what)
		return
	}
	s, err := statedAs(c.v.verifiers[at], p, want)
	if err != nil {
		c.say(False, "%s doesn't hold: %v", what, err)
	} else if s == nil {
		c.say(Unknown, "%s is pending: whether it is on the ledger can't be told", what)
	} else if why := c.v.histories[at].contradicts(*s); why != "" {
		c.say(False, "%s: %s", what, why)
	}
}

// inputs holds the order's inputs against the bundle's batches.
func (c *jobCheck) inputs(ctx context.Context) error {
	seen := make(map[int]bool)
	for _, in := range c.job.Inputs {
		if in.Place < 0 || in.Place >= len(c.order.Task.Inputs) || seen[in.Place] {
			c.say(False, "it is said to have an input %d, which its order doesn't have, or twice", in.Place)
			continue
		}
		seen[in.Place] = true
		why, err := c.where.hold(ctx, &in, &c.order.Task.Inputs[in.Place])
		if err != nil {
			return err
		}
		if why != "" {
			c.say(False, "input %d %s", in.Place, why)
			continue
		}
		if !c.where.broken { // else nobody has looked
			c.of.Own++
		}
	}
	if len(seen) == 0 {
		c.say(Unknown, "of which of the bundle's batches its inputs were made can't be told: the world has them no more, or doesn't say")
	}
	return nil
}

// batchPlaces is where the batches of streams lie that inputs are made of.
type batchPlaces struct {
	v      *verification
	of     map[carnet.StreamID][]batchPlace // by number
	broken bool                             // the bundle's batches are false already
	made   map[carnet.Fingerprint]content   // what was made of runs of batches: jobs are often over the same
}

// content is what an input must be.
type content struct {
	batches     int
	size        int64
	root, bytes carnet.Fingerprint
}

type batchPlace struct {
	number, offset uint64
	length         uint32
}

// places reads where the batches of the inputs' streams lie.
func (v *verification) places(ctx context.Context, f *jobsFile) (*batchPlaces, error) {
	p := &batchPlaces{v: v, of: make(map[carnet.StreamID][]batchPlace), made: make(map[carnet.Fingerprint]content), broken: v.report.Verdict == False}
	wanted := make(map[uint32]carnet.StreamID)
	for _, j := range f.Jobs {
		for _, in := range j.Inputs {
			if at, ok := v.streams[in.Stream]; ok {
				wanted[at] = in.Stream
			}
		}
	}
	if len(wanted) == 0 || p.broken {
		return p, nil
	}
	b, record := bufio.NewReaderSize(io.NewSectionReader(v.files[FileBatchIndex], 0, v.manifest.file(FileBatchIndex).Length), 1<<18), make([]byte, batchRecordSize)
	for n := 0; ; n++ {
		if _, err := io.ReadFull(b, record); err == io.EOF {
			return p, nil
		} else if err != nil {
			return nil, err
		}
		if n&0xffff == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		var r batchRecord
		if !r.parse(record) {
			return p, nil // it is false already
		}
		if id, ok := wanted[r.stream]; ok {
			p.of[id] = append(p.of[id], batchPlace{r.number, r.offset, r.length})
		}
	}
}

// hold makes an input again of the bundle's batches, and says how it isn't the order's.
func (p *batchPlaces) hold(ctx context.Context, in *JobInput, want *capsule.Input) (string, error) {
	if p.broken {
		return "", nil
	}
	if len(in.Batches) == 0 || len(in.Batches) > maxJobRuns {
		return fmt.Sprintf("is said to be of %d runs of batches", len(in.Batches)), nil
	}
	name := in.runs()
	is, known := p.made[name]
	if !known {
		var why string
		var err error
		if is, why, err = p.make(ctx, in, want.Batches); err != nil || why != "" {
			return why, err
		}
		p.made[name] = is
	}
	if is != (content{want.Batches, want.Size, want.Root, want.Fingerprint}) {
		return "isn't made of the batches that it is said to be made of", nil
	}
	return "", nil
}

// runs are the input's batches, in short.
func (in *JobInput) runs() carnet.Fingerprint {
	b := in.Stream[:]
	for _, run := range in.Batches {
		b = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, run.From), run.To)
	}
	return carnet.FingerprintOf(b)
}

// make makes an input of the bundle's batches, at most so many, or says why it can't be.
func (p *batchPlaces) make(ctx context.Context, in *JobInput, most int) (content, string, error) {
	all, sum, size := p.of[in.Stream], sha256.New(), int64(0)
	var leaves []carnet.Fingerprint
	var batch []byte
	for i, run := range in.Batches {
		if run.From > run.To || i > 0 && run.From <= in.Batches[i-1].To || run.To-run.From >= uint64(most) {
			return content{}, "is said to be of batches out of order, or of more than its order says", nil
		}
		for n := run.From; n <= run.To; n++ {
			at, here := slices.BinarySearchFunc(all, n, func(b batchPlace, n uint64) int { return int(int64(b.number) - int64(n)) })
			if !here {
				return content{}, fmt.Sprintf("is said to be of batch %d of stream %s, which isn't in the bundle", n, in.Stream), nil
			}
			if len(leaves) == most || ctx.Err() != nil {
				return content{}, "is said to be of more batches than its order says", ctx.Err()
			}
			batch = slices.Grow(batch[:0], int(all[at].length))[:all[at].length]
			if _, err := p.v.files[FileBatches].ReadAt(batch, int64(all[at].offset)); err != nil {
				return content{}, "", err
			}
			_ = binary.Write(sum, binary.BigEndian, all[at].length)
			sum.Write(batch)
			size += 4 + int64(len(batch))
			leaves = append(leaves, carnet.FingerprintOf(batch))
		}
	}
	return content{len(leaves), size, seal.Root(leaves), carnet.Fingerprint(sum.Sum(nil))}, "", nil
}
