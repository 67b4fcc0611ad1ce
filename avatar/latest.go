package avatar

import (
	"cmp"
	"math"
	"slices"
	"time"
	"unique"

	"carnet"
	"carnet/policy"
	"carnet/seal"
)

// latest is an avatar's newest measurement of a property, with what says when it
// is to be forgotten and who may see it. There are millions: names and units are
// shared.
type latest struct {
	property unique.Handle[property]
	time     int64 // ns since 1970
	num      float64
	str      string
	ends     int64 // its retention, ns since 1970; 0: never
	epoch    carnet.EpochID
	slot     uint32 // of the batch that it came in
	place    uint16 // of the stream among the avatar's
	class    classID
	kind     carnet.Kind
}

type property struct{ name, unit string }

func (l latest) over(now int64) bool { return l.ends != 0 && now >= l.ends }

// under reports whether a key of the stream at a place opens the batch that the
// value came in.
func (l latest) under(place uint16, key seal.Path) bool {
	return l.place == place && l.epoch == key.Epoch && (key.Level == seal.EpochLevel || l.slot == key.Slot)
}

func (l latest) measurement() carnet.Measurement {
	p := l.property.Value()
	return carnet.Measurement{Name: p.name, Unit: p.unit, Time: l.time, Value: carnet.Value{Kind: l.kind, Num: l.num, Str: l.str}}
}

// valueEnds is when what came at a time, of a retention class, is to be forgotten; 0:
// never.
func valueEnds(class carnet.Retention, received int64) int64 {
	if life, ends := lives[class]; ends {
		return received + int64(life)
	}
	return 0
}

// maxProperties is how many properties an avatar's state has. What a sender says
// about more is in the history alone.
const maxProperties = 1024

// take keeps the newest measurement of each property, all from one batch: from has
// what is said of it. Batches hold their measurements by property, so that few of
// them are looked at twice. The caller holds v.mu.
func (v *Avatar) take(ms []carnet.Measurement, from latest, received int64) {
	for i := 0; i < len(ms); {
		newest := i
		j := i + 1
		for ; j < len(ms) && ms[j].Name == ms[i].Name; j++ {
			if ms[j].Time >= ms[newest].Time {
				newest = j
			}
		}
		v.takeOne(&ms[newest], from, received)
		i = j
	}
}

func (v *Avatar) takeOne(m *carnet.Measurement, l latest, received int64) {
	l.time, l.kind, l.num, l.str = m.Time, m.Value.Kind, m.Value.Num, m.Value.Str
	for i := range v.latest {
		last := &v.latest[i]
		p := last.property.Value()
		if p.name != m.Name {
			continue
		}
		if m.Time < last.time && !last.over(received) {
			return
		}
		if l.property = last.property; p.unit != m.Unit {
			l.property = unique.Make(property{m.Name, m.Unit})
		}
		*last = l
		return
	}
	if len(v.latest) < maxProperties {
		l.property = unique.Make(property{m.Name, m.Unit})
		v.latest = append(v.latest, l)
	}
}

// Latest returns an avatar's newest measurement of each property, in order of
// names. One whose retention has ended is none.
func (a *Agent) Latest(id carnet.AvatarID) ([]carnet.Measurement, error) {
	v, err := a.readable(id)
	if err != nil {
		return nil, err
	}
	now := a.now().UnixNano()
	v.mu.Lock()
	defer v.mu.Unlock()
	ms := make([]carnet.Measurement, 0, len(v.latest))
	for i := range v.latest {
		if l := v.latest[i]; !l.over(now) {
			ms = append(ms, l.measurement())
		}
	}
	slices.SortFunc(ms, func(p, q carnet.Measurement) int { return cmp.Compare(p.Name, q.Name) })
	return ms, nil
}

// newest returns the newest measurement of a property, and false if there is none.
func (v *Avatar) newest(property string) (latest, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	i := slices.IndexFunc(v.latest, func(l latest) bool { return l.property.Value().name == property })
	if i < 0 {
		return latest{}, false
	}
	return v.latest[i], true
}

// valuesEvery is how often it is looked at which values' retention has ended.
const valuesEvery = time.Minute

// endValues forgets the values whose retention has ended. What the store has of
// them goes with the states that are saved next.
func (a *Agent) endValues() {
	now := a.now()
	if !isDue(now, a.valuesDue, valuesEvery) {
		return
	}
	a.valuesDue = now.Add(valuesEvery)
	for _, v := range a.all() {
		a.forget(v, func(l latest) bool { return l.over(now.UnixNano()) })
	}
}

// isDue reports whether what is done every so often is to be done now. A clock that
// was set back doesn't put it off.
func isDue(now, due time.Time, every time.Duration) bool {
	return !now.Before(due) || due.Sub(now) > every
}

// forgetUnder forgets the values that came under keys.
func (a *Agent) forgetUnder(keys []seal.Path) {
	for _, key := range keys {
		streams := a.formerly(key.Stream)
		if s := a.stream(key.Stream); s != nil {
			streams = append(streams, s)
		}
		for _, s := range streams {
			a.forget(s.avatar, func(l latest) bool { return l.under(s.place, key) })
		}
	}
}

// forget forgets those of an avatar's values that are gone. Who folds waits only
// if there are any.
func (a *Agent) forget(v *Avatar, gone func(latest) bool) {
	v.mu.Lock()
	some := slices.ContainsFunc(v.latest, gone)
	v.mu.Unlock()
	if !some {
		return
	}
	a.foldMu.Lock()
	defer a.foldMu.Unlock()
	v.mu.Lock()
	defer v.mu.Unlock()
	v.latest = slices.DeleteFunc(v.latest, gone)
	a.changed(v)
	a.pending.forgot = true
}

// classID stands for a label and retention class. 0 is the most sensitive and
// longest: what nothing is known of.
type classID uint16

// classes are the labels and retention classes that were seen. They are few; of
// more than there are numbers the rest counts as the most sensitive. Guarded by
// Agent.mu.
type classes struct {
	all []policy.Class
	ids map[policy.Class]classID
	of  map[carnet.PartyID]int // how many each sender has brought since the start
}

// maxClassesOf is how many labels and retention classes one sender may bring: one
// that brings more doesn't use up the numbers of others.
const maxClassesOf = 1024

// mostSensitive is what nothing is known of.
var mostSensitive = policy.Class{Label: carnet.Label{Sensitivity: carnet.AllSensitive}, Retention: carnet.Keep}

func newClasses() classes {
	return classes{all: []policy.Class{mostSensitive}, ids: map[policy.Class]classID{mostSensitive: 0}, of: make(map[carnet.PartyID]int)}
}

// classOf is the number of a label and retention class.
func (a *Agent) classOf(c policy.Class) classID {
	a.mu.RLock()
	id, known := a.classes.ids[c]
	a.mu.RUnlock()
	if known {
		return id
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if id, known = a.classes.ids[c]; known || len(a.classes.all) > math.MaxUint16 {
		return id
	}
	id = classID(len(a.classes.all))
	a.classes.all, a.classes.ids[c] = append(a.classes.all, c), id
	return id
}

// bring takes up a class that a sender's batch has, or refuses it when the sender has
// brought too many.
func (a *Agent) bring(sender carnet.PartyID, c policy.Class) error {
	a.mu.RLock()
	_, known := a.classes.ids[c]
	brought := a.classes.of[sender]
	a.mu.RUnlock()
	if known {
		return nil
	}
	if brought >= maxClassesOf {
		return carnet.Errorf(carnet.TooLarge, "%s has brought %d labels already, which is all that one sender may", sender, brought)
	}
	a.classOf(c)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.classes.of[sender]++
	return nil
}

// Properties describes what an avatar has shown so far, in the order in which it was
// shown first: each property's unit and kind, and the label and retention class of its
// newest measurement. One whose retention has ended is none.
func (a *Agent) Properties(id carnet.AvatarID) ([]policy.Property, error) {
	v, err := a.readable(id)
	if err != nil {
		return nil, err
	}
	now := a.now().UnixNano()
	a.mu.RLock()
	defer a.mu.RUnlock()
	v.mu.Lock()
	defer v.mu.Unlock()
	all := make([]policy.Property, 0, len(v.latest))
	for i := range v.latest {
		l := &v.latest[i]
		if l.over(now) {
			continue
		}
		p, c := l.property.Value(), a.classes.all[l.class]
		all = append(all, policy.Property{Name: p.name, Unit: p.unit, Kind: l.kind, Label: c.Label, Retention: c.Retention})
	}
	return all, nil
}
