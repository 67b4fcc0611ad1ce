package thing

import (
	"slices"
	"sync/atomic"

	"carnet"
)

// bucketSpan is how much measured time one duplicate look-up covers.
const bucketSpan = int64(10 * 60 * 1e9)

// Limits of what is held in memory to know duplicates by.
const (
	maxSets       = 8         // buckets of one thing, as sets
	maxHeld       = 8 << 20   // bytes of one thing's sets, between two messages
	maxHeldOfAll  = 256 << 20 // bytes of all things' sets: beyond, all are let go
	identityBytes = 100       // what one takes, about, beside its text
)

func bucketOf(t int64) int64 {
	b := t / bucketSpan
	if t%bucketSpan < 0 {
		b--
	}
	return b
}

// identity is what makes two measurements of one thing the same.
type identity struct {
	property uint16
	time     int64
	value    carnet.Value
}

func (id identity) size() int { return identityBytes + len(id.value.Str) }

// span is a range of log positions, from and including first, to and including last.
type span struct{ first, last uint64 }

// seen tells new measurements of one thing from duplicates. Its owner is the
// thing's mutex.
type seen struct {
	high []int64               // per property: the newest measured time accepted
	sets map[int64]*seenSet    // late buckets held in memory
	use  uint64                // counts uses, for forgetting the least recent set
	held int                   // bytes of sets
	all  *atomic.Int64         // bytes of all things' sets
	wide map[identity]struct{} // while a message with many late buckets, or a crowded one, is looked at: what of it is held

	dirty bool // high has changed since it was saved
}

type seenSet struct {
	has     map[identity]struct{}
	size    int // bytes
	lastUse uint64
}

// unseen is the high-water time of a property that never had a measurement.
const unseen = -1 << 63

func newSeen(properties int, all *atomic.Int64) seen {
	s := seen{high: make([]int64, properties), all: all}
	for i := range s.high {
		s.high[i] = unseen
	}
	return s
}

// admit reports whether a measurement is new, and takes note of it if so. load
// keeps what the log holds in a bucket, or of the message (keep, wide); an error
// leaves the measurement unadmitted.
func (s *seen) admit(property uint16, m *carnet.Measurement, load func(bucket int64) error) (isNew bool, err error) {
	bucket := bucketOf(m.Time)
	if m.Time > s.high[property] {
		s.high[property], s.dirty = m.Time, true
		if set := s.sets[bucket]; set != nil {
			s.note(set, identity{property, m.Time, m.Value})
		}
		if s.wide != nil {
			s.wide[identity{property, m.Time, m.Value}] = struct{}{}
		}
		return true, nil
	}
	if s.sets[bucket] == nil && s.wide == nil {
		if err := load(bucket); err != nil {
			return false, err
		}
	}
	id := identity{property, m.Time, m.Value}
	if set := s.sets[bucket]; set != nil {
		s.use++
		set.lastUse = s.use
		return s.note(set, id), nil
	}
	if _, held := s.wide[id]; held {
		return false, nil
	}
	s.wide[id] = struct{}{}
	return true, nil
}

// note adds to a set, and reports whether it wasn't there.
func (s *seen) note(set *seenSet, id identity) (isNew bool) {
	if _, held := set.has[id]; held {
		return false
	}
	set.has[id] = struct{}{}
	set.size += id.size()
	s.count(id.size())
	return true
}

func (s *seen) count(bytes int) {
	s.held += bytes
	s.all.Add(int64(bytes))
}

// late counts the buckets of a message's measurements that are to be looked up,
// up to one more than are held as sets.
func (s *seen) late(properties []uint16, ms []carnet.Measurement) int {
	high, buckets := slices.Clone(s.high), make(map[int64]struct{})
	for i := range ms {
		if p := properties[i]; ms[i].Time > high[p] {
			high[p] = ms[i].Time
		} else if buckets[bucketOf(ms[i].Time)] = struct{}{}; len(buckets) > maxSets {
			break
		}
	}
	return len(buckets)
}

// keep holds a bucket as a set, and forgets the one that was not used for longest:
// within a message of no more late buckets than sets, none of its own.
func (s *seen) keep(bucket int64, has map[identity]struct{}) {
	if s.sets == nil {
		s.sets = make(map[int64]*seenSet)
	}
	if len(s.sets) >= maxSets {
		oldest, least := int64(0), uint64(1<<64-1)
		for b, set := range s.sets {
			if set.lastUse < least {
				oldest, least = b, set.lastUse
			}
		}
		s.count(-s.sets[oldest].size)
		delete(s.sets, oldest)
	}
	set := &seenSet{has: has}
	for id := range has {
		set.size += id.size()
	}
	s.sets[bucket] = set
	s.count(set.size)
}

// looked ends the look at a message. Sets that have grown too large, or that left no
// room for what the message needed, make room.
func (s *seen) looked() {
	if s.wide != nil || s.held > maxHeld {
		s.forget()
	}
}

// forget drops all sets: the log knows what is held. So it must be after a message
// that was admitted could not be stored.
func (s *seen) forget() {
	s.count(-s.held)
	s.sets, s.wide = nil, nil
}

// raise takes saved high-water times.
func (s *seen) raise(high []int64) {
	for i, t := range high {
		s.high[i] = max(s.high[i], t)
	}
}
