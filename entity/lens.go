package entity

import (
	"encoding/base64"
	"encoding/binary"
	"maps"
	"math"
	"slices"
	"strings"

	"carnet"
	"carnet/policy"
)

// Lens is what a grant lets be seen of its avatar. It is for one goroutine.
type Lens struct {
	agent     *Agent
	grant     Grant
	reader    policy.Reader
	sight     *policy.Sight
	remembers policy.State // of what is live
	past      policy.State // of a reading

	trail  *trail // nil: the view has no deadband
	before bool   // what is live is before the trail's origin
}

// Lens opens a grant that holds now. Most bounds what is seen beside the grant, where
// it is to another world, and says where that keeps data; nil: the grant says all.
func (a *Agent) Lens(id string, most *carnet.Clearance) (*Lens, error) {
	g, err := a.Grant(id)
	if err != nil || !g.holds(a.cfg.Now()) {
		return nil, carnet.Errorf(carnet.Forbidden, "the grant %.64q is over", id)
	}
	if err := a.bounded(&g.Terms); err != nil {
		return nil, err
	}
	l := &Lens{agent: a, grant: g}
	if l.reader, _, err = a.reader(g.Terms); err != nil {
		return nil, carnet.Errorf(carnet.Forbidden, "the grant %s can't be used: %v", id, err)
	}
	if most != nil {
		if l.reader.Clearance, err = Within(*most, g); err != nil {
			return nil, err
		}
	}
	props, err := a.cfg.Avatars.Properties(g.Avatar)
	if err != nil {
		return nil, err
	}
	if l.sight, err = policy.NewSight(a.cfg.Judge, g.View, l.reader, g.Version, props...); err != nil {
		return nil, carnet.Errorf(carnet.Forbidden, "the grant %s can't be used: %v", id, err)
	}
	if hasDeadband(g.View) {
		l.trail = a.trailOf(g.ID)
	}
	return l, nil
}

// Within is the most that flows by a grant to another world to which only so much may
// flow, whatever is granted.
func Within(most carnet.Clearance, g Grant) (carnet.Clearance, error) {
	if g.Ceiling == nil || !most.Purposes.Has(g.Purpose) {
		return carnet.Clearance{}, carnet.Errorf(carnet.Forbidden, "the grant %s is for %s, and says no ceiling or another purpose than the call", g.ID, g.Purpose)
	}
	if why := g.Ceiling.elsewhere(most); why != "" {
		return carnet.Clearance{}, carnet.Errorf(carnet.Forbidden, "by the grant %s: %s", g.ID, why)
	}
	return carnet.Clearance{
		Sensitivity: most.Sensitivity & g.Ceiling.Sensitivity, Purposes: carnet.NewSet(g.Purpose), Residency: most.Residency,
	}, nil
}

// Clearance is the most that may come to the lens: what is labelled above it is
// to be left out before. The avatar's owner may bound it since the lens was opened.
func (l *Lens) Clearance() carnet.Clearance {
	c := l.reader.Clearance
	c.Sensitivity &= l.agent.most(l.grant.Avatar)
	return c
}

// Reads reports whether a property that is labelled so is shown at all: an avatar may
// have it by other labels, too. What of it is shown first becomes what is known of it.
func (l *Lens) Reads(p policy.Property) bool {
	if p.Label.Exceeds(l.Clearance()) != "" {
		return false
	}
	if l.sight.Has(p) {
		return l.sight.Shows(p.Name)
	}
	if !l.sight.Permits(p) {
		return false
	}
	return l.sight.Shows(p.Name) || l.sight.Learn(p) == nil
}

// Shows reports whether measurements of a property are shown.
func (l *Lens) Shows(name string) bool { return l.sight.Shows(name) }

// apply shows of ms what the view admits, with a memory. The measurements are in
// the order of policy.InOrder, and read.
func (l *Lens) apply(s *policy.State, ms []carnet.Measurement, may func(string) bool) []carnet.Measurement {
	shown := ms[:0]
	for i := range ms {
		m := ms[i]
		if (may == nil || may(m.Name)) && l.sight.Apply(s, &m) == policy.Admitted {
			shown = append(shown, m)
		}
	}
	return shown
}

// Begin is where a reading has to begin so that what it shows from a time on
// doesn't depend on how it is asked for: where the first of the intervals begins that
// the rates have around that time.
func (l *Lens) Begin(from int64) int64 {
	begin := from
	for _, pv := range l.grant.View.Properties {
		if rate := int64(pv.Rate); rate > 0 && from > math.MinInt64+rate {
			begin = min(begin, startOf(from, rate))
		}
	}
	return begin
}

// startOf is where the interval of a rate begins that a time is in.
func startOf(at, rate int64) int64 {
	r := at % rate
	if r < 0 {
		r += rate
	}
	return at - r
}

// always reports whether what is shown of a property doesn't depend on all that
// was shown before.
func (l *Lens) always(name string) bool {
	pv, _ := l.grant.View.Of(name)
	return pv.Deadband == 0
}

// Restart begins another reading.
func (l *Lens) Restart() { l.past = policy.State{} }

// History shows the next piece of a reading that began at Begin(from), in order
// of time. All of it is what the lens reads.
func (l *Lens) History(ms []carnet.Measurement, from int64) []carnet.Measurement {
	policy.InOrder(ms)
	shown := l.apply(&l.past, ms, l.always)
	return slices.DeleteFunc(shown, func(m carnet.Measurement) bool { return m.Time < from })
}

// Whole is what has to be read to show a property: of a field of an object that
// is shown as a whole, the object.
func (l *Lens) Whole(property string) string {
	if _, ok := l.grant.View.Properties[property]; ok {
		return property
	}
	if object, _, isField := strings.Cut(property, "/"); isField {
		if _, ok := l.grant.View.Properties[object]; ok {
			return object
		}
	}
	return property
}

// Names lists what the view names, in order.
func (l *Lens) Names() []string { return slices.Sorted(maps.Keys(l.grant.View.Properties)) }

// Interval is the stretch of time in which a rate shows one measurement of a
// property at most, around a time; the property has no rate: just that time.
func (l *Lens) Interval(name string, at int64) (from, to int64) {
	pv, _ := l.grant.View.Of(name)
	if pv.Rate == 0 {
		return at, at + 1
	}
	from = startOf(at, int64(pv.Rate))
	return from, from + int64(pv.Rate)
}

// Live shows what an avatar says at once, with the memory of this lens. Nothing
// is shown of what the lens doesn't read by its label.
func (l *Lens) Live(class policy.Class, ms []carnet.Measurement) []carnet.Measurement {
	read := make([]carnet.Measurement, 0, len(ms)) // they are other readers', too
	var of policy.Property                         // that was asked about last
	reads := false
	for i := range ms {
		m := &ms[i]
		if i == 0 || of.Name != m.Name || of.Unit != m.Unit || of.Kind != m.Value.Kind {
			of = policy.Property{Name: m.Name, Unit: m.Unit, Kind: m.Value.Kind, Label: class.Label, Retention: class.Retention}
			reads = l.Reads(of)
		}
		if reads {
			read = append(read, *m)
		}
	}
	policy.InOrder(read)
	var may func(string) bool
	if l.before {
		may = l.always
	}
	return l.apply(&l.remembers, read, may)
}

// FromNowOn has the memory begin with the newest interval used: who begins again
// and again isn't shown more than a rate shows.
func (l *Lens) FromNowOn(newest []carnet.Measurement) {
	for i := range newest {
		l.sight.Saw(&l.remembers, &newest[i])
	}
}

// Cursor seals where a subscription is together with the lens's memory.
func (l *Lens) Cursor(avatar string) (string, error) {
	memory, err := l.remembers.MarshalBinary()
	if err != nil {
		return "", err
	}
	if l.trail != nil && !l.before {
		l.trail.reach(l, mark{avatar, memory})
	}
	plain := binary.AppendUvarint(nil, uint64(len(avatar)))
	plain = append(append(plain, avatar...), memory...)
	sealed, err := l.agent.sealer.Seal(nil, l.cursorAAD(), plain)
	return base64.RawURLEncoding.EncodeToString(sealed), err
}

// Resume opens a cursor that this grant's subscriber was given, takes back the
// memory, and returns where the subscription was. The empty text is the
// beginning.
func (l *Lens) Resume(text string) (avatar string, err error) {
	if text == "" {
		return "", nil
	}
	refused := carnet.Errorf(carnet.Conflict, "the cursor is not one that was given out under this grant").
		WithFix("begin again: with an empty cursor from the beginning, with none from now on")
	sealed, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return "", refused
	}
	plain, err := l.agent.sealer.Open(nil, l.cursorAAD(), sealed)
	if err != nil {
		return "", refused
	}
	n, size := binary.Uvarint(plain)
	if size <= 0 || n > uint64(len(plain)-size) {
		return "", refused
	}
	if err := l.remembers.UnmarshalBinary(plain[size+int(n):]); err != nil {
		return "", refused
	}
	return string(plain[size : size+int(n)]), nil
}

func (l *Lens) cursorAAD() []byte { return []byte("cursor " + l.grant.ID) }
