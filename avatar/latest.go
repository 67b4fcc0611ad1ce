package avatar

import (
	"cmp"
	"math"
	"slices"

	"carnet"
	"carnet/policy"
)

// latest is the newest measurement of a property, with what its batch said of
// it. A million avatars have some each: it is no larger than the measurement.
type latest struct {
	name, unit string
	time       int64
	num        float64
	str        string
	kind       carnet.Kind
	class      classID
}

func (l *latest) measurement() carnet.Measurement {
	return carnet.Measurement{Name: l.name, Unit: l.unit, Time: l.time, Value: carnet.Value{Num: l.num, Str: l.str, Kind: l.kind}}
}

// take keeps a measurement.
func (l *latest) take(m *carnet.Measurement, class classID) {
	*l = latest{m.Name, m.Unit, m.Time, m.Value.Num, m.Value.Str, m.Value.Kind, class}
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
}

// mostSensitive is what nothing is known of.
var mostSensitive = policy.Class{Label: carnet.Label{Sensitivity: carnet.AllSensitive}, Retention: carnet.Keep}

func newClasses() classes {
	return classes{all: []policy.Class{mostSensitive}, ids: map[policy.Class]classID{mostSensitive: 0}}
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

// Properties describes what an avatar has shown so far, in order of names: each
// property's unit and kind, and the label and retention class of its newest
// measurement.
func (a *Agent) Properties(id carnet.AvatarID) ([]policy.Property, error) {
	v, err := a.avatar(id)
	if err != nil {
		return nil, err
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	v.mu.Lock()
	defer v.mu.Unlock()
	all := make([]policy.Property, 0, len(v.latest))
	for i := range v.latest {
		l := &v.latest[i]
		c := a.classes.all[l.class]
		all = append(all, policy.Property{Name: l.name, Unit: l.unit, Kind: l.kind, Label: c.Label, Retention: c.Retention})
	}
	slices.SortFunc(all, func(p, q policy.Property) int { return cmp.Compare(p.Name, q.Name) })
	return all, nil
}
