package thing

import (
	mathrand "math/rand/v2"
	"slices"
	"time"

	"carnet"
	"carnet/policy"
	"carnet/seal"
	"carnet/senml"
)

// Limits of what goes into one batch and one frame.
const (
	maxBatchMeasurements = 10_000
	maxFrameBatches      = 512
	maxFrameBytes        = 1 << 20
	maxPending           = 200_000 // measurements in lanes, before the oldest must go
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
	stage []stage

	delta  counts // what was counted since the last frame
	marked uint64 // the last frame that touched the course
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
	first         uint64 // position of pending[0]
	queued        time.Time
	parked        bool // closed by the view: what comes stays in the log
	reopen        time.Time
}

// pending is a measurement that waits for its lane. The name and unit are the
// property's.
type pending struct {
	value    carnet.Value
	time     int64
	hour     uint32 // of receipt
	property uint16
}

// stage collects what goes into one batch.
type stage struct {
	measurements []carnet.Measurement
	hour         uint32
}

// epoch is a stretch of the stream with one key.
type epoch struct {
	key     seal.Key
	ceiling carnet.Label // what is under its key stays within it
	granted bool         // its key bag is at the world; guarded by the sender's mutex
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

// take adds a message's measurements to their lanes and returns how many it
// took; became hears of each lane that was empty.
func (c *course) take(position uint64, hour uint32, measurements []carnet.Measurement, properties []uint16, became func(*lane)) (taken int) {
	laneOf := c.mapping.thing.laneOf
	for i, p := range properties {
		l := &c.lanes[laneOf[p]]
		if position < l.taken || l.parked {
			continue
		}
		if len(l.pending) == 0 {
			l.first = position
			became(l)
		}
		m := &measurements[i]
		l.pending = append(l.pending, pending{m.Value, m.Time, hour, p})
		taken++
	}
	for i := range c.lanes {
		if l := &c.lanes[i]; !l.parked {
			l.taken = max(l.taken, position+1)
		}
	}
	return taken
}

// decide applies the view that is in force to a lane's pending measurements and
// adds batches of what is admitted. The caller holds the policy lock.
func (b *builder) decide(l *lane) error {
	c := l.course
	table := c.mapping.table
	description := c.mapping.thing.description
	if len(c.stage) < len(table.Classes()) {
		c.stage = make([]stage, len(table.Classes()))
	}
	for i := range l.pending {
		p := &l.pending[i]
		property := &description.Properties[p.property]
		m := carnet.Measurement{Name: property.Name, Unit: property.Unit, Time: p.time, Value: p.value}
		verdict := table.Apply(&c.rates, int(p.property), &m)
		c.counts[p.property][verdict]++
		c.delta[p.property][verdict]++
		if verdict != policy.Admitted {
			continue
		}
		class := table.Result(int(p.property)).Class
		s := &c.stage[class]
		if len(s.measurements) > 0 && (s.hour != p.hour || len(s.measurements) >= maxBatchMeasurements) {
			if err := b.batch(c, table.Classes()[class], s); err != nil {
				return err
			}
		}
		s.hour = p.hour
		s.measurements = append(s.measurements, m)
	}
	for class := range table.Classes() {
		if s := &c.stage[class]; len(s.measurements) > 0 {
			if err := b.batch(c, table.Classes()[class], s); err != nil {
				return err
			}
		}
	}
	l.cursor = l.taken
	l.pending = l.pending[:0]
	return nil
}

// batch seals what a stage holds as the stream's next batch.
func (b *builder) batch(c *course, class policy.Class, s *stage) error {
	if e := c.epoch; e == nil || c.cut != c.mapping.cut || b.now.Sub(e.started) > e.life {
		c.cut = c.mapping.cut
		c.epoch = &epoch{key: seal.NewEpoch(c.mapping.Stream), ceiling: ceiling(c.mapping.table), started: b.now, life: epochLife(), slots: make(map[slotOf]*seal.Slot)}
	}
	if !c.epoch.granted && !slices.Contains(b.grants, c.epoch) {
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
	s.measurements = s.measurements[:0]
	return nil
}
