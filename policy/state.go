package policy

import (
	"encoding/binary"
	"math"
	"slices"
	"strings"

	"carnet"
)

// State is what rates, deadbands and positions must remember of one mapping.
// The zero State remembers nothing. It follows the mapping from Table to Table
// by the properties' names, and is used by one goroutine at a time.
type State struct {
	table  *Table   // whose slots these are; nil after UnmarshalBinary
	names  []string // sorted; the table's own when there is one
	slots  []memory // by names
	forgot []string // sorted: what a new table has no memory for, since ClearDelta
}

// memory is what is remembered of a leaf, or of an object shown as a whole.
type memory struct {
	last  int64   // measured time of the last one that a rate admitted
	next  int64   // start of the first interval that is not used; from last
	time  int64   // measured time of the object that has fields to come
	sent  float64 // last one that a deadband admitted
	lat   float64 // middle of the row of the position that has fields to come
	taken uint32  // fields of it that were admitted
	has   flags

	// The stretch around the last measurement in which windows say the same.
	from, until int64
	inside      bool
}

// flags tell which fields of a memory hold something.
type flags uint8

const (
	hasLast flags = 1 << iota
	hasSent
	hasOpen
	touched // since ClearDelta; not written

	written = hasLast | hasSent | hasOpen
)

// use marks the interval of time t as used.
func (m *memory) use(t, rate int64) {
	m.last, m.next = t, nextInterval(t, rate)
	m.has |= hasLast | touched
}

// nextInterval is where the interval after t's begins: (floor(t/rate)+1)*rate.
func nextInterval(t, rate int64) int64 {
	start := t - floorMod(t, rate)
	if start > math.MaxInt64-rate {
		return math.MaxInt64
	}
	return start + rate
}

// open begins an object measured at t; its first field is taken next.
func (m *memory) open(t int64, lat float64) {
	m.time, m.lat, m.taken = t, lat, 0
	m.has |= hasOpen
}

// follows reports whether the field is still to come of the object measured
// at t.
func (m *memory) follows(bit uint32, t int64) bool {
	return m.has&hasOpen != 0 && m.time == t && m.taken&bit == 0
}

// take admits a field of the open object, and closes it after the last.
func (m *memory) take(bit, all uint32) {
	m.taken |= bit
	m.has |= touched
	if m.taken == all {
		m.close()
	}
}

func (m *memory) close() {
	if m.has&hasOpen != 0 {
		m.time, m.lat, m.taken = 0, 0, 0
		m.has = m.has&^hasOpen | touched
	}
}

// inWindow keeps the stretch in which the answer holds.
func (m *memory) inWindow(w *Windows, t int64) bool {
	if t < m.from || t >= m.until {
		m.inside, m.from, m.until = w.At(t)
	}
	return m.inside
}

// Part closes what is open: what comes next is another writer's.
func (s *State) Part() {
	for i := range s.slots {
		s.slots[i].close()
	}
}

// bind carries s over to table t. What t's properties do not include is
// forgotten.
func (s *State) bind(t *Table) {
	for i, name := range s.names {
		if _, kept := slices.BinarySearch(t.slots, name); !kept && s.slots[i].has&written != 0 {
			s.forgot = append(s.forgot, name)
		}
	}
	slices.Sort(s.forgot)
	s.forgot = slices.Compact(slices.DeleteFunc(s.forgot, func(name string) bool {
		_, known := slices.BinarySearch(t.slots, name)
		return known
	}))
	slots := make([]memory, len(t.slots))
	for i, name := range t.slots {
		if k, ok := slices.BinarySearch(s.names, name); ok {
			slots[i] = s.slots[k]
			slots[i].from, slots[i].until = 0, 0
		}
		if m := &slots[i]; m.has&hasLast != 0 && t.rates[i] != 0 {
			m.next = nextInterval(m.last, t.rates[i])
		}
	}
	s.table, s.names, s.slots = t, t.slots, slots
}

// CopyFrom makes s equal to o, so that a frame that was not sent can be taken
// back. It allocates only when their tables differ in size.
func (s *State) CopyFrom(o *State) {
	s.table, s.names = o.table, o.names
	s.slots = append(s.slots[:0], o.slots...)
	s.forgot = append(s.forgot[:0], o.forgot...)
}

// stateVersion begins every written State.
const stateVersion = 1

// MarshalBinary writes the whole State; equal States give equal bytes.
func (s *State) MarshalBinary() ([]byte, error) { return s.append(nil, written, nil), nil }

// AppendDelta appends what changed since ClearDelta, in the form that Merge
// reads.
func (s *State) AppendDelta(b []byte) []byte { return s.append(b, touched, s.forgot) }

// ClearDelta is called when the delta is durable, or replaced by the whole.
func (s *State) ClearDelta() {
	for i := range s.slots {
		s.slots[i].has &^= touched
	}
	s.forgot = s.forgot[:0]
}

// append writes the slots that have any of which, and an empty one for each name
// of forgot; no slot has such a name.
func (s *State) append(b []byte, which flags, forgot []string) []byte {
	count := len(forgot)
	for i := range s.slots {
		if s.slots[i].has&which != 0 {
			count++
		}
	}
	b = binary.AppendUvarint(append(b, stateVersion), uint64(count))
	for i := range s.slots {
		m := &s.slots[i]
		if m.has&which == 0 {
			continue
		}
		for len(forgot) > 0 && forgot[0] < s.names[i] {
			b, forgot = appendForgotten(b, forgot[0]), forgot[1:]
		}
		b = append(append(b, byte(len(s.names[i]))), s.names[i]...)
		b = append(b, byte(m.has&written))
		if m.has&hasLast != 0 {
			b = binary.BigEndian.AppendUint64(b, uint64(m.last))
		}
		if m.has&hasSent != 0 {
			b = binary.BigEndian.AppendUint64(b, math.Float64bits(m.sent))
		}
		if m.has&hasOpen != 0 {
			b = binary.BigEndian.AppendUint64(b, uint64(m.time))
			b = binary.BigEndian.AppendUint64(b, math.Float64bits(m.lat))
			b = binary.BigEndian.AppendUint32(b, m.taken)
		}
	}
	for _, name := range forgot {
		b = appendForgotten(b, name)
	}
	return b
}

func appendForgotten(b []byte, name string) []byte {
	return append(append(append(b, byte(len(name))), name...), 0)
}

// UnmarshalBinary replaces s by what MarshalBinary wrote.
func (s *State) UnmarshalBinary(b []byte) error {
	*s = State{}
	return s.Merge(b)
}

// Merge brings s up to date with a delta; what the delta does not name stays.
// On an error s is as before.
func (s *State) Merge(delta []byte) error {
	names, slots, err := parseState(delta)
	if err != nil {
		return err
	}
	merged := State{}
	for i, k := 0, 0; i < len(s.names) || k < len(names); {
		switch {
		case k == len(names) || i < len(s.names) && s.names[i] < names[k]:
			merged.names, merged.slots = append(merged.names, s.names[i]), append(merged.slots, s.slots[i])
			i++
		default:
			if i < len(s.names) && s.names[i] == names[k] {
				i++
			}
			merged.names, merged.slots = append(merged.names, names[k]), append(merged.slots, slots[k])
			k++
		}
	}
	*s = merged
	return nil
}

// maxNamed is how many names a delta has: a view's, and those of another that it replaced.
const maxNamed = 2 * maxProperties

func parseState(b []byte) (names []string, slots []memory, err error) {
	malformed := carnet.Errorf(carnet.Malformed, "the state of a view is not in the form that version %d writes", stateVersion)
	if len(b) == 0 || b[0] != stateVersion {
		return nil, nil, malformed
	}
	count, n := binary.Uvarint(b[1:])
	if n <= 0 || n > 2 || count > maxNamed {
		return nil, nil, malformed
	}
	b = b[1+n:]
	for range count {
		name, m, rest, ok := parseMemory(b)
		if !ok || len(names) > 0 && strings.Compare(names[len(names)-1], name) >= 0 {
			return nil, nil, malformed
		}
		names, slots, b = append(names, name), append(slots, m), rest
	}
	if len(b) != 0 {
		return nil, nil, malformed
	}
	return names, slots, nil
}

func parseMemory(b []byte) (name string, m memory, rest []byte, ok bool) {
	if len(b) < 1 || len(b) < 2+int(b[0]) {
		return "", m, nil, false
	}
	size := int(b[0])
	name, m.has, b = string(b[1:1+size]), flags(b[1+size]), b[2+size:]
	if m.has&^written != 0 || checkName(name) != nil {
		return "", m, nil, false
	}
	need := 0
	for _, f := range []struct {
		flag flags
		size int
	}{{hasLast, 8}, {hasSent, 8}, {hasOpen, 20}} {
		if m.has&f.flag != 0 {
			need += f.size
		}
	}
	if len(b) < need {
		return "", m, nil, false
	}
	if m.has&hasLast != 0 {
		m.last, b = int64(binary.BigEndian.Uint64(b)), b[8:]
	}
	if m.has&hasSent != 0 {
		m.sent, b = math.Float64frombits(binary.BigEndian.Uint64(b)), b[8:]
	}
	if m.has&hasOpen != 0 {
		m.time, b = int64(binary.BigEndian.Uint64(b)), b[8:]
		m.lat, b = math.Float64frombits(binary.BigEndian.Uint64(b)), b[8:]
		m.taken, b = binary.BigEndian.Uint32(b), b[4:]
	}
	return name, m, b, true
}
