package job

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"slices"
	"strings"
	"time"

	"carnet"
	"carnet/capsule"
	"carnet/seal"
	"carnet/senml"
)

// Jobs at a things agent: docs/design/own-jobs.md says what they read, and what is the
// same as in a world.

// Owned is what the agent needs at a things agent: what the logs of things hold.
type Owned interface {
	Records
	// Pin fixes what a job reads of one thing: carnet.NotFound for a thing, or a mapping of
	// one, that isn't the owner's, as for one that isn't there; carnet.TooOld where what is
	// asked for can't be read any more as it was.
	Pin(context.Context, Reading) (Log, error)
	// EachOf hands over what a log shows, in its order: each time the same, as long as it is
	// there. What it hands over is valid during the call of do only.
	EachOf(ctx context.Context, l *Log, do func([]carnet.Measurement) error) error
	// Worlds lists those that are shown something of a thing, for whoever plans a job.
	Worlds(carnet.ThingID) []carnet.PartyID
}

// Reading is what a job wants to read of a thing.
type Reading struct {
	Owner      string
	Thing      carnet.ThingID
	ViewOf     carnet.PartyID    // under the views of its mapping to that world
	Mapping    *carnet.MappingID // or of this one
	From, To   time.Time
	Properties []string // none: all
}

// Log says what a job reads of a thing's log.
type Log struct {
	Thing   carnet.ThingID    `json:"thing"`
	Mapping *carnet.MappingID `json:"mapping,omitempty"` // under whose views; nil: as it is
	World   carnet.PartyID    `json:"world,omitempty"`   // of that mapping
	From    uint64            `json:"from"`              // the first position
	End     uint64            `json:"end"`               // the position after the last
	// Upto says, by linger in milliseconds, the position before which everything had
	// reached the mapping's world.
	Upto map[int64]uint64 `json:"upto,omitempty"`
	// Labels are those of what is shown of each property.
	Labels map[string]capsule.Label `json:"labels"`
}

// label is that of what is shown of a property: of one that isn't known, the most
// sensitive.
func (l *Log) label(property string) carnet.Label {
	if label, known := l.Labels[property]; known {
		return label.Label()
	}
	return carnet.Label{Sensitivity: carnet.AllSensitive}
}

// aboutThings refuses what a job at a things agent can't be about.
func (s *Spec) aboutThings() error {
	bad := func(format string, args ...any) *carnet.Error {
		return carnet.Errorf(carnet.Malformed, format, args...)
	}
	switch {
	case len(s.Avatars) > 0:
		return bad("a job at a things agent is about things, and avatars are named").WithFix("name things; or ask the world: carnet job run --party")
	case len(s.Things) == 0 || len(s.Things) > capsule.MostInputs:
		return bad("a job is about 1 to %d things, not %d", capsule.MostInputs, len(s.Things)).WithFix("name your own: carnet thing list")
	case s.Owner == "":
		return bad("a job at a things agent is an owner's")
	case s.ViewOf != "" && s.Mapping != nil:
		return bad("a world and a mapping are given to say under which views").WithFix("give one of them")
	case s.Mapping != nil && len(s.Things) > 1:
		return bad("a mapping is of one thing, and %d are named", len(s.Things)).WithFix("order a job for each, or name the world")
	}
	for i, id := range s.Things {
		if slices.Contains(s.Things[:i], id) {
			return bad("the thing %s stands twice", id)
		}
	}
	return nil
}

// mayWait refuses an owner one more job than may wait.
func (a *Agent) mayWait(owner string) error {
	n := 0
	a.mu.Lock()
	for _, h := range a.jobs {
		if h.job.Owner == owner && h.job.Stand.State != Ended {
			n++
		}
	}
	a.mu.Unlock()
	if n >= a.cfg.OfOwner {
		return carnet.Errorf(carnet.TooLarge, "%s has %d jobs here that haven't ended, which is all that one may have", owner, n).
			WithFix("wait for one, or cancel it: carnet job list, carnet job cancel")
	}
	return nil
}

// choosingAtOnce is how many jobs have their logs read at once before they are ordered.
const choosingAtOnce = 2

// logs are what jobs at a things agent are computed over.
type logs struct {
	*Agent
	choosing chan struct{}
}

// enter waits for a place to read logs in.
func (l logs) enter(ctx context.Context) error {
	select {
	case l.choosing <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// choose implements source.
func (l logs) choose(ctx context.Context, s *Spec, _ bool) (*chosen, error) {
	var pinned []Log
	for _, id := range s.Things {
		log, err := l.cfg.Owned.Pin(ctx, Reading{s.Owner, id, s.ViewOf, s.Mapping, s.From, s.To, s.Properties})
		if err != nil {
			return nil, err
		}
		pinned = append(pinned, log)
	}
	return l.read(ctx, pinned, &capsule.Task{From: s.From.UnixNano(), To: s.To.UnixNano(), Properties: s.Properties})
}

// rechoose implements source.
func (l logs) rechoose(ctx context.Context, j *Job, _ bool) (*chosen, error) {
	c, err := l.read(ctx, j.Logs, &j.Task)
	if err == nil && !slices.Equal(c.inputs, j.Task.Inputs) {
		err = gone()
	}
	if carnet.CodeOf(err) == carnet.NotFound {
		return nil, carnet.Errorf(carnet.NotFound, "it can't be repeated: %v", err)
	}
	return c, err
}

// gone says that a log doesn't hold any more what was ordered to be read.
func gone() error {
	return carnet.Errorf(carnet.NotFound, "its inputs are gone: the log was trimmed since it was ordered, or holds something else")
}

// read finds the inputs that logs make.
func (l logs) read(ctx context.Context, pinned []Log, t *capsule.Task) (*chosen, error) {
	if err := l.enter(ctx); err != nil {
		return nil, err
	}
	defer func() { <-l.choosing }()
	c := &chosen{logs: pinned, properties: make(map[string]uint64)}
	w := walk{owned: l.cfg.Owned, logs: pinned, task: t, input: func(in capsule.Input, p Pin) error {
		if len(c.inputs) == capsule.MostInputs {
			return carnet.Errorf(carnet.TooLarge, "the job needs more than %d inputs of %d MiB", capsule.MostInputs, inputBytes>>20).
				WithFix("choose a shorter time or fewer things, and order several jobs")
		}
		c.inputs, c.pins, c.bytes = append(c.inputs, in), append(c.pins, p), c.bytes+in.Size
		return nil
	}, chunk: func(i int, ms []carnet.Measurement) error {
		for j := range ms {
			if c.properties[ms[j].Name] == 0 {
				c.label = c.label.Join(pinned[i].label(ms[j].Name))
			}
			c.properties[ms[j].Name]++
		}
		return nil
	}}
	if err := w.run(ctx); err != nil {
		return nil, err
	}
	if len(c.inputs) == 0 && pinned[0].World != "" {
		return nil, carnet.Errorf(carnet.NotFound, "%s isn't known to have such measurements of that time", pinned[0].World).
			WithFix("see what its view shows: carnet thing view explain; what has just been measured may be under way")
	}
	if len(c.inputs) == 0 {
		return nil, carnet.Errorf(carnet.NotFound, "the things' logs have no such measurements in that time").WithFix("see what they measure, and the properties' names: carnet thing show")
	}
	return c, nil
}

// each implements source. What it hands over counts only if it doesn't fail: at the end
// of each input it is held against the order.
func (l logs) each(ctx context.Context, j *Job, opened func(int, uint64), do func(string, []carnet.Measurement) error) error {
	all, given, inputs := uint64(0), uint64(0), 0
	for i := range j.Pins {
		all += j.Pins[i].Measurements
	}
	w := walk{owned: l.cfg.Owned, logs: j.Logs, task: &j.Task, input: func(in capsule.Input, _ Pin) error {
		if inputs++; inputs > len(j.Task.Inputs) || in != j.Task.Inputs[inputs-1] {
			return gone()
		}
		return nil
	}, chunk: func(i int, ms []carnet.Measurement) error {
		given += uint64(len(ms))
		opened(int(min(1000, given*1000/max(1, all))), given)
		return do(nameOf(i), ms)
	}}
	if err := w.run(ctx); err != nil {
		return err
	}
	if inputs != len(j.Task.Inputs) {
		return gone()
	}
	return nil
}

// A chunk is what is handed over at once.
const (
	chunkMeasurements = 4096
	chunkBytes        = 512 << 10 // of texts, from which on it is full
)

// walk goes through logs: it makes chunks of what fits a task, and inputs of chunks.
type walk struct {
	owned Owned
	logs  []Log
	task  *capsule.Task
	chunk func(log int, ms []carnet.Measurement) error // one of the log's
	input func(capsule.Input, Pin) error               // one is whole

	at    int
	ms    []carnet.Measurement
	texts int
	made  *making // nil between inputs
	next  uint64  // measurement of the log
}

// making is an input in the making: its bytes are hashed, and kept nowhere.
type making struct {
	sum    hash.Hash
	size   int64
	leaves []carnet.Fingerprint
	first  uint64
}

func (w *walk) run(ctx context.Context) error {
	for w.at = range w.logs {
		w.next = 0
		err := w.owned.EachOf(ctx, &w.logs[w.at], func(ms []carnet.Measurement) error {
			for i := range ms {
				if !w.task.Fits(&ms[i]) {
					continue
				}
				m := ms[i]
				m.Value.Str = strings.Clone(m.Value.Str)
				w.ms, w.texts = append(w.ms, m), w.texts+len(m.Value.Str)
				if len(w.ms) == chunkMeasurements || w.texts >= chunkBytes {
					if err := w.flush(); err != nil {
						return err
					}
				}
			}
			return ctx.Err()
		})
		if err == nil {
			err = w.flush()
		}
		if err == nil {
			err = w.end()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// flush hands over a chunk, and adds it to the input.
func (w *walk) flush() error {
	if len(w.ms) == 0 {
		return nil
	}
	if w.made == nil {
		w.made = &making{sum: sha256.New(), first: w.next}
	}
	columns := senml.AppendColumns(make([]byte, 4), w.ms)
	binary.BigEndian.PutUint32(columns, uint32(len(columns)-4))
	w.made.sum.Write(columns)
	w.made.size += int64(len(columns))
	w.made.leaves = append(w.made.leaves, carnet.FingerprintOf(columns[4:]))
	w.next += uint64(len(w.ms))
	if err := w.chunk(w.at, w.ms); err != nil {
		return err
	}
	clear(w.ms)
	w.ms, w.texts = w.ms[:0], 0
	if w.made.size >= inputBytes {
		return w.end()
	}
	return nil
}

// end ends an input.
func (w *walk) end() error {
	m := w.made
	if m == nil {
		return nil
	}
	w.made = nil
	in := capsule.Input{
		Content: capsule.Content{Fingerprint: carnet.Fingerprint(m.sum.Sum(nil)), Size: m.size}, Avatar: nameOf(w.at), Batches: len(m.leaves), Root: seal.Root(m.leaves),
	}
	return w.input(in, Pin{First: m.first, Last: w.next - 1, Measurements: w.next - m.first})
}
