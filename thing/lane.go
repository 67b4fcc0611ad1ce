package thing

import (
	mathrand "math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"carnet"
	"carnet/policy"
	"carnet/seal"
	"carnet/senml"
)

// Limits of what goes into one batch and one frame. A frame may be over
// maxFrameBytes by what one message comes to, which is below minFrame/2: a pack
// has at most 10,000 records and 256 KiB.
const (
	maxBatchMeasurements = 10_000
	maxBatchBytes        = 512 << 10 // of values and times; names and units come on top
	maxFrameBatches      = 512
	maxFrameBytes        = 1 << 20
	minFrame             = 1 << 20 // what a world must take at least
	maxPending           = 200_000 // weight in lanes, before the oldest must go
)

// course is one mapping's way to its world: the stream's numbers, the rates'
// state, what was counted, and the lanes. Owner: the run.
type course struct {
	mapping *Mapping

	nextBatch uint64
	nextFirst uint64 // number of the stream's next measurement
	rates     policy.State
	counts    counts
	lanes     []lane // by the thing's lingers

	epoch *epoch // nil: none yet
	cut   uint64 // the mapping's cut that the epoch belongs to

	delta    counts // what was counted since the last frame
	touched  bool   // changed since the last frame
	recorded bool   // in a frame's record or a snapshot
	frame    uint64 // the last frame that was built with something of it; 0: none in this run
}

// counts says, per property, how many measurements had which verdict.
type counts [][policy.WithinDeadband + 1]uint64

// lane holds what waits equally long.
type lane struct {
	course *course
	linger time.Duration
	// cursor is the position before which everything is decided, as of the last
	// frame built; taken is the position before which everything is in pending.
	cursor, taken uint64
	pending       []pending
	texts         texts // of pending
	weight        int   // of pending
	queued        time.Time
	parked        bool      // closed by the view, or held: what comes stays in the log
	reopen        time.Time // zero: when the view changes
	turn          uint64    // the mapping's, when it was parked
}

// first is the position of the oldest pending measurement.
func (l *lane) first() uint64 { return l.pending[0].position }

// pending is a measurement that waits for its lane.
type pending struct {
	sample
	position uint64
	hour     uint32 // of receipt
}

// stage collects what goes into one batch.
type stage struct {
	measurements []carnet.Measurement
	bytes        int // about what they come to
	hour         uint32
}

// epoch is a stretch of the stream with one key.
type epoch struct {
	key     seal.Key
	ceiling carnet.Label     // what is under its key stays within it
	kept    carnet.Retention // the longest of what may be under its key
	granted atomic.Bool      // its key bag is at the world
	started time.Time
	life    time.Duration
	slots   map[slotOf]*seal.Slot
}

// ceiling is the join of the labels of everything that a view admits.
func ceiling(table *policy.Table) (l carnet.Label) {
	for _, class := range table.Classes() {
		l = l.Join(class.Label)
	}
	return l
}

// longest is the longest retention of everything that a view admits.
func longest(table *policy.Table) (kept carnet.Retention) {
	for _, class := range table.Classes() {
		kept = max(kept, class.Retention)
	}
	return kept
}

// epochLife is how long an epoch lasts: at most a day, each a little less, so
// that they don't all end at once.
func epochLife() time.Duration { return 24*time.Hour - mathrand.N(4*time.Hour) }

type slotOf struct {
	label     carnet.Label
	retention carnet.Retention
	hour      uint32
}

// slot returns the epoch's slot for a label, retention class and hour.
func (e *epoch) slot(of slotOf) (*seal.Slot, error) {
	if s, ok := e.slots[of]; ok {
		return s, nil
	}
	s, err := e.key.Slot(uint32(len(e.slots)))
	if err != nil {
		return nil, err
	}
	e.slots[of] = s
	return s, nil
}

// take adds a message's measurements to their lanes and returns the weight of
// what it took; became hears of each lane that was empty.
func (c *course) take(position uint64, hour uint32, samples []sample, texts texts, became func(*lane)) (taken int) {
	laneOf := c.mapping.thing.laneOf
	for i := range samples {
		s := &samples[i]
		l := &c.lanes[laneOf[s.property]]
		if position < l.taken || l.parked {
			continue
		}
		l.pending = append(l.pending, pending{l.texts.move(s, texts), position, hour})
		if len(l.pending) == 1 {
			became(l)
		}
		w := texts.weight(s)
		l.weight += w
		taken += w
	}
	for i := range c.lanes {
		if l := &c.lanes[i]; !l.parked {
			l.taken = max(l.taken, position+1)
		}
	}
	return taken
}

// park closes a lane: what it held, and what comes, stays in the log.
func (l *lane) park(until time.Time) {
	l.parked, l.reopen, l.turn, l.taken = true, until, l.course.mapping.turn.Load(), l.first()
	l.clear()
}

// drop forgets what a lane holds: its mapping has ended.
func (l *lane) drop() {
	l.cursor = l.taken
	l.clear()
}

// keep forgets all but the last of what a lane holds.
func (l *lane) keep(rest []pending) {
	var kept texts
	for i := range rest {
		rest[i].sample = kept.move(&rest[i].sample, l.texts)
	}
	l.pending, l.texts = append(l.pending[:0], rest...), kept
}

func (l *lane) clear() {
	clear(l.texts)
	l.pending, l.texts, l.weight = l.pending[:0], l.texts[:0], 0
}

// decide applies the view that is in force to a lane's pending measurements and
// adds batches of what is admitted, until the frame is full; what came in one
// message is never divided. The caller holds the policy lock.
func (b *builder) decide(l *lane) error {
	c := l.course
	table := c.mapping.table
	classes := table.Classes()
	description := c.mapping.thing.description
	for len(b.stages) < len(classes) {
		b.stages = append(b.stages, stage{})
	}
	done := 0
	for ; done < len(l.pending); done++ {
		p := &l.pending[done]
		if done > 0 && p.position != l.pending[done-1].position && b.full() {
			break
		}
		l.weight -= l.texts.weight(&p.sample)
		property := &description.Properties[p.property]
		m := carnet.Measurement{Name: property.Name, Unit: property.Unit, Time: p.time, Value: l.texts.value(&p.sample)}
		verdict := table.Apply(&c.rates, int(p.property), &m)
		c.counts[p.property][verdict]++
		c.delta[p.property][verdict]++
		if verdict != policy.Admitted {
			continue
		}
		if err := b.stage(c, classes, table.Result(int(p.property)).Class, p.hour, m); err != nil {
			return err
		}
	}
	for class := range classes {
		if err := b.batch(c, classes[class], &b.stages[class]); err != nil {
			return err
		}
	}
	if done == len(l.pending) {
		l.cursor = l.taken
		l.clear()
		return nil
	}
	l.cursor = l.pending[done].position
	l.keep(l.pending[done:])
	return nil
}

// stage adds an admitted measurement to the next batch of its class.
func (b *builder) stage(c *course, classes []policy.Class, class int, hour uint32, m carnet.Measurement) error {
	s := &b.stages[class]
	size := 20 + len(m.Value.Str) // the most that a time, a number or a length come to
	if len(s.measurements) == maxBatchMeasurements || s.bytes+size > maxBatchBytes || s.hour != hour {
		if err := b.batch(c, classes[class], s); err != nil {
			return err
		}
	}
	s.hour = hour
	s.measurements = append(s.measurements, m)
	s.bytes += size
	b.staged += size
	return nil
}

// batch seals what a stage holds, if anything, as the stream's next batch.
func (b *builder) batch(c *course, class policy.Class, s *stage) error {
	if len(s.measurements) == 0 {
		return nil
	}
	if e := c.epoch; e == nil || c.cut != c.mapping.cut || b.now.Sub(e.started) > e.life {
		c.cut = c.mapping.cut
		c.epoch = &epoch{key: seal.NewEpoch(c.mapping.Stream), ceiling: ceiling(c.mapping.table), kept: longest(c.mapping.table), started: b.now, life: epochLife(), slots: make(map[slotOf]*seal.Slot)}
	}
	if !c.epoch.granted.Load() && !slices.Contains(b.grants, c.epoch) {
		b.grants = append(b.grants, c.epoch)
	}
	slot, err := c.epoch.slot(slotOf{class.Label, class.Retention, s.hour})
	if err != nil {
		return err
	}
	b.columns = senml.AppendColumns(b.columns[:0], s.measurements)
	b.body, err = seal.AppendBody(b.body[:0], seal.Body{
		Label: class.Label, Retention: class.Retention, Hour: s.hour,
		First: c.nextFirst, Count: uint32(len(s.measurements)), Content: b.columns,
	})
	if err != nil {
		return err
	}
	from := len(b.bytes)
	if b.bytes, err = slot.Seal(b.bytes, c.nextBatch, b.body); err != nil {
		return err
	}
	b.ends = append(b.ends, len(b.bytes)-from)
	c.nextBatch++
	c.nextFirst += uint64(len(s.measurements))
	b.staged -= s.bytes
	clear(s.measurements) // texts
	s.measurements, s.bytes = s.measurements[:0], 0
	return nil
}
