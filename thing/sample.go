package thing

import "carnet"

// sample is a measurement as groups and lanes hold it: a third of the size of a
// carnet.Measurement, and without pointers, since there are many at once. Its
// name and unit are its property's; its text lies beside it.
type sample struct {
	time     int64
	number   float64
	text     uint32 // place in texts, of a value that has one
	property uint16
	kind     carnet.Kind
}

func (s *sample) hasText() bool { return s.kind == carnet.Text || s.kind == carnet.Data }

// texts are the texts and data of samples.
type texts []string

// pack makes a sample of a measurement.
func (t *texts) pack(property uint16, m *carnet.Measurement) sample {
	s := sample{time: m.Time, number: m.Value.Num, property: property, kind: m.Value.Kind}
	if s.hasText() {
		s.text = t.put(m.Value.Str)
	}
	return s
}

// move makes a sample of one whose text lies elsewhere.
func (t *texts) move(s *sample, from texts) sample {
	moved := *s
	if s.hasText() {
		moved.text = t.put(from[s.text])
	}
	return moved
}

func (t *texts) put(text string) (place uint32) {
	*t = append(*t, text)
	return uint32(len(*t) - 1)
}

// value is a sample's value.
func (t texts) value(s *sample) carnet.Value {
	v := carnet.Value{Num: s.number, Kind: s.kind}
	if s.hasText() {
		v.Str = t[s.text]
	}
	return v
}

// weight is what a sample counts among the pending: long texts count more.
func (t texts) weight(s *sample) int {
	if s.hasText() {
		return 1 + len(t[s.text])/64
	}
	return 1
}
