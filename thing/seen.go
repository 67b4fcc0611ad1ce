package thing

import (
	"carnet"
)

// bucketSpan is how much measured time one duplicate look-up covers.
const bucketSpan = int64(10 * 60 * 1e9)

// maxSets bounds how many buckets of one thing are held as sets at once.
const maxSets = 8

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

// span is a range of log positions, from and including first, to and including last.
type span struct{ first, last uint64 }

// seen tells new measurements of one thing from duplicates. Its owner is the
// thing's mutex.
type seen struct {
	high []int64            // per property: the newest measured time accepted
	sets map[int64]*seenSet // late buckets held in memory
	use  uint64             // counts uses, for forgetting the least recent set

	dirty bool // high has changed since it was saved
}

type seenSet struct {
	has     map[identity]struct{}
	lastUse uint64
}

// unseen is the high-water time of a property that never had a measurement.
const unseen = -1 << 63

func newSeen(properties int) seen {
	s := seen{high: make([]int64, properties)}
	for i := range s.high {
		s.high[i] = unseen
	}
	return s
}

// admit reports whether a measurement is new, and takes note of it if so. load
// reads the identities that the log holds in a bucket; an error leaves the
// measurement unadmitted.
func (s *seen) admit(property uint16, m *carnet.Measurement, load func(bucket int64) (map[identity]struct{}, error)) (isNew bool, err error) {
	bucket := bucketOf(m.Time)
	if m.Time > s.high[property] {
		s.high[property], s.dirty = m.Time, true
		if len(s.sets) > 0 {
			if set := s.sets[bucket]; set != nil {
				set.has[identity{property, m.Time, m.Value}] = struct{}{}
			}
		}
		return true, nil
	}
	set := s.sets[bucket]
	if set == nil {
		has, err := load(bucket)
		if err != nil {
			return false, err
		}
		set = s.keep(bucket, has)
	}
	s.use++
	set.lastUse = s.use
	id := identity{property, m.Time, m.Value}
	if _, held := set.has[id]; held {
		return false, nil
	}
	set.has[id] = struct{}{}
	return true, nil
}

func (s *seen) keep(bucket int64, has map[identity]struct{}) *seenSet {
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
		delete(s.sets, oldest)
	}
	set := &seenSet{has: has}
	s.sets[bucket] = set
	return set
}

// forget drops all sets: after a message that was admitted could not be stored,
// the log alone knows what is held.
func (s *seen) forget() { s.sets = nil }

// raise takes saved high-water times.
func (s *seen) raise(high []int64) {
	for i, t := range high {
		s.high[i] = max(s.high[i], t)
	}
}
