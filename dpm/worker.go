package dpm

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"carnet"
	"carnet/capsule"
	"carnet/engine"
	"carnet/seal"
	"carnet/senml"
)

// Worker runs jobs, one at a time. It has a job's keys while it runs it, and keeps
// nothing.
type Worker struct {
	Name    string
	Board   Board
	Engines []engine.Engine
	// Stuck is called when a program can't be ended: it goes on beyond its limit of time.
	// It ends the process. Nil: the worker waits.
	Stuck func()
	Log   *slog.Logger
}

// stuckAfter is how far beyond its time a run may go before the process is ended.
const stuckAfter = 5 * time.Second

// Run leases jobs and runs them until ctx ends.
func (w *Worker) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		job, err := w.Board.Lease(ctx, w.Name)
		switch {
		case err != nil && ctx.Err() == nil:
			w.Log.Warn("no job can be had; it is tried again", "worker", w.Name, "err", err)
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
		case job != nil:
			w.run(ctx, job)
		}
	}
	return nil
}

// run runs one attempt, and says how it ended.
func (w *Worker) run(ctx context.Context, job *Assignment) {
	attempt, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r := &running{worker: w, job: job, hash: sha256.New()}
	renewed := make(chan struct{})
	go func() {
		defer close(renewed)
		w.renew(attempt, r, cancel)
	}()
	stuck := time.AfterFunc(job.Task.Limits.Engine().Time+startTime+stuckAfter, func() {
		if w.Stuck != nil {
			w.Log.Error("a program can't be ended: the process is", "worker", w.Name, "job", job.Job)
			w.Stuck()
		}
	})
	defer stuck.Stop()
	ran, err := r.all(attempt)
	cancel(nil)
	<-renewed
	if err != nil {
		w.Log.Warn("an attempt ended without an outcome", "worker", w.Name, "job", job.Job, "attempt", job.Attempt, "err", err)
		if context.Cause(attempt) != context.Canceled && ctx.Err() == nil {
			return // the lease is lost: nobody waits for a word
		}
		ran = Ran{}
		select { // what can't be had or stored may be in a while
		case <-time.After(giveBackAfter):
		case <-ctx.Done():
		}
	}
	ending, stop := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer stop()
	if err := w.Board.End(ending, job.Ticket, ran); err != nil {
		w.Log.Warn("the end of an attempt isn't taken", "worker", w.Name, "job", job.Job, "err", err)
	}
}

// giveBackAfter is how long a worker keeps a job that it can't go on with.
const giveBackAfter = time.Second

// startTime is how long fetching content and compiling may take beside the run.
const startTime = 2 * time.Minute

// errLost says that the attempt isn't the job's any more.
var errLost = errors.New("the lease is lost")

// renew renews the lease each second.
func (w *Worker) renew(ctx context.Context, r *running, cancel context.CancelCauseFunc) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		call, stop := context.WithTimeout(ctx, leaseFor)
		err := w.Board.Renew(call, r.job.Ticket, Progress{int(r.permille.Load()), r.given.Load()})
		stop()
		if carnet.CodeOf(err) == carnet.Conflict {
			cancel(errLost)
			return
		}
	}
}

// running is an attempt.
type running struct {
	worker *Worker
	job    *Assignment
	hash   hash.Hash
	size   uint64
	parts  int
	out    *seal.Slot

	permille atomic.Int64
	given    atomic.Uint64
}

// all runs the attempt. An error says that it has no outcome: another may.
func (r *running) all(ctx context.Context) (Ran, error) {
	err := r.program(ctx)
	if ctx.Err() != nil {
		return Ran{}, context.Cause(ctx)
	}
	switch code := carnet.CodeOf(err); {
	case err == nil:
		return Ran{Outcome: capsule.Done, Measurements: r.given.Load(), Fingerprint: carnet.Fingerprint(r.hash.Sum(nil)), Size: r.size, Parts: r.parts}, nil
	case engine.Final(err) || code == carnet.Tampered:
		return Ran{Outcome: capsule.Failed, Code: code, Why: carnet.Shorten(err.Error(), capsule.MaxReason)}, nil
	}
	return Ran{}, err
}

func (r *running) program(ctx context.Context) error {
	task := &r.job.Task
	i := slices.IndexFunc(r.worker.Engines, func(e engine.Engine) bool { return e.Name() == task.Engine })
	if i < 0 {
		return fmt.Errorf("this worker has no engine %q", task.Engine)
	}
	key, err := r.job.Out.key()
	if err != nil {
		return err
	}
	if r.out, err = key.Slot(key.Path.Slot); err != nil {
		return err
	}
	program, err := r.content(ctx, task.Program)
	if err != nil {
		return err
	}
	opener, err := openerOf(r.job.Keys)
	if err != nil {
		return err
	}
	in := Inputs{Task: task, Opener: opener, Content: func(c capsule.Content) ([]byte, error) { return r.content(ctx, c) }, Opened: r.opened}
	return r.worker.Engines[i].Run(ctx, engine.Run{
		Program: program, Parameters: task.Parameters, Limits: task.Limits.Engine(), Each: in.Each,
		Part: func(part []byte) error { return r.part(ctx, part) },
	})
}

// opened counts what was given to the program.
func (r *running) opened(permille int, measurements uint64) {
	r.permille.Store(int64(permille))
	r.given.Store(measurements)
}

// content fetches content, which must be what its name says.
func (r *running) content(ctx context.Context, c capsule.Content) ([]byte, error) {
	data, err := r.worker.Board.Content(ctx, r.job.Ticket, c.Fingerprint)
	if err != nil {
		return nil, err
	}
	if carnet.FingerprintOf(data) != c.Fingerprint {
		return nil, carnet.Errorf(carnet.Unavailable, "content %s is damaged here", c.Fingerprint)
	}
	return data, nil
}

// part seals a part of the output and stores it.
func (r *running) part(ctx context.Context, part []byte) error {
	sealed, err := SealPart(r.out, r.job.Label, r.parts, part)
	if err != nil {
		return err
	}
	if err := r.worker.Board.PutPart(ctx, r.job.Ticket, r.parts, sealed); err != nil {
		return fmt.Errorf("store a part: %v", err) // without its code: it isn't the program's fault
	}
	r.hash.Write(part)
	r.size += uint64(len(part))
	r.parts++
	return nil
}

// SealPart seals the n-th part of an output.
func SealPart(out *seal.Slot, label capsule.Label, n int, part []byte) ([]byte, error) {
	body, err := seal.AppendBody(nil, seal.Body{Label: label.Label(), Retention: carnet.Keep, First: uint64(n), Count: 1, Content: part})
	if err != nil {
		return nil, err
	}
	return out.Seal(nil, uint64(n), body)
}

// openerOf opens batches under a job's keys.
func openerOf(all []Key) (*seal.Opener, error) {
	slots := make(map[seal.Path]seal.Key, len(all))
	for _, k := range all {
		key, err := k.key()
		if err != nil {
			return nil, err
		}
		slots[key.Path] = key
	}
	return seal.NewOpener(1024, func(h seal.Header) (seal.Key, bool) {
		k, ok := slots[seal.Path{Level: seal.SlotLevel, Stream: h.Stream, Epoch: h.Epoch, Slot: h.Slot}]
		return k, ok
	})
}

// Inputs are a task's inputs, opened.
type Inputs struct {
	Task    *capsule.Task
	Opener  *seal.Opener
	Content func(capsule.Content) ([]byte, error)
	Opened  func(permille int, measurements uint64)
}

// Each hands over the measurements of a task, in the order of its inputs and of the
// batches in them: those measured within its time and of its properties. An input that
// isn't what the order says is carnet.Tampered.
func (in Inputs) Each(do func(avatar string, ms []carnet.Measurement) error) error {
	all, done, given := 0, 0, uint64(0)
	for i := range in.Task.Inputs {
		all += in.Task.Inputs[i].Batches
	}
	decoder := senml.NewDecoder(senml.Limits{Bytes: seal.MaxBatch, Records: 1 << 14})
	var body []byte
	var ms []carnet.Measurement
	for i := range in.Task.Inputs {
		input := &in.Task.Inputs[i]
		data, err := in.Content(input.Content)
		if err != nil {
			return err
		}
		if err := checkInput(input, data); err != nil {
			return err
		}
		err = EachBatch(data, func(batch []byte) error {
			if _, body, err = in.Opener.Open(body[:0], batch); err != nil {
				return carnet.Errorf(carnet.Tampered, "a batch of the input of %s doesn't open: %v", input.Avatar, err)
			}
			b, err := seal.ParseBody(body)
			if err == nil {
				ms, err = decoder.Decode(ms[:0], senml.Columns, b.Content, 0)
			}
			if err != nil {
				return carnet.Errorf(carnet.Tampered, "a batch of the input of %s can't be read: %v", input.Avatar, err)
			}
			fits := ms[:0]
			for i := range ms {
				if in.Task.Fits(&ms[i]) {
					fits = append(fits, ms[i])
				}
			}
			done++
			given += uint64(len(fits))
			in.Opened(done*1000/all, given)
			if len(fits) == 0 {
				return nil
			}
			return do(input.Avatar, fits)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// checkInput refuses an input that hasn't the batches that the order says.
func checkInput(in *capsule.Input, data []byte) error {
	var leaves []carnet.Fingerprint
	err := EachBatch(data, func(batch []byte) error {
		leaves = append(leaves, carnet.FingerprintOf(batch))
		return nil
	})
	if err != nil {
		return err
	}
	if len(leaves) != in.Batches || seal.Root(leaves) != in.Root {
		return carnet.Errorf(carnet.Tampered, "the input of %s hasn't the %d batches that its order says", in.Avatar, in.Batches)
	}
	return nil
}

// EachBatch calls do for each batch of an input.
func EachBatch(input []byte, do func(batch []byte) error) error {
	for len(input) > 0 {
		if len(input) < 4 || uint64(len(input)-4) < uint64(binary.BigEndian.Uint32(input)) {
			return carnet.Errorf(carnet.Tampered, "an input ends in the middle of a batch")
		}
		end := 4 + int(binary.BigEndian.Uint32(input))
		if err := do(input[4:end:end]); err != nil {
			return err
		}
		input = input[end:]
	}
	return nil
}
