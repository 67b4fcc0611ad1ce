package policy

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"carnet"
)

// Limits of a view.
const (
	maxViewBytes  = 64 << 10
	maxProperties = 1024
	maxPrecisionM = 1_000_000
	maxRate       = 366 * 24 * time.Hour
	maxWords      = 64
	maxZones      = 8
)

// View is what one party lets another have of a thing, as data: it grants
// nothing by itself. The zero View shows nothing.
type View struct {
	// Properties names what is shown: a leaf ("heart_rate", "accel/x"), or an
	// object property ("position") for all its fields together. What is not
	// named is withheld.
	Properties map[string]PropertyView
	// Purposes and Residency bind what is received to purposes and places;
	// zero adds nothing to what the data's label says.
	Purposes, Residency carnet.Set
	// Retention is how long the receiver may keep it; zero adds nothing to the
	// data's own class.
	Retention carnet.Retention
	// Store names where it may be kept: "world", "depot", "thing"; zero is
	// anywhere.
	Store carnet.Set
	// Send is when it may be transmitted, by the sender's clock.
	Send Windows
}

// PropertyView is how exactly a property is shown. The zero PropertyView shows
// it as it was measured.
type PropertyView struct {
	Round      Decimal       // nearest multiple, in the property's unit
	PrecisionM int           // for a position: cells at least so many metres wide
	Rate       time.Duration // at most one in each interval of measured time
	Deadband   Decimal       // withhold what differs by less from the last one sent
	Windows    Windows       // when, by measured time
}

// storePlaces are the words of Store.
var storePlaces = []string{"depot", "thing", "world"}

// MayStore reports whether v lets data be kept at place ("world", "depot",
// "thing").
func (v View) MayStore(place string) bool { return v.Store == "" || v.Store.Has(place) }

// Enforced refuses what a view can say and nobody acts upon yet: where data may be
// kept. Who lets it in force would promise what doesn't hold.
func (v View) Enforced() error {
	for _, place := range storePlaces {
		if !v.MayStore(place) {
			return carnet.Errorf(carnet.Malformed, "the view says where data may be kept, without %s, and nothing enforces that yet", place).
				WithFix("leave store out, and out of the view what may not be kept at the world; what may be at a depot is the avatar's policy: carnet owner policy set")
		}
	}
	return nil
}

// CheckPrecision refuses precision_m of what has no lat and lon: it would show
// nothing.
func (v View) CheckPrecision(props []Property) error {
	for _, name := range v.names() {
		if v.Properties[name].PrecisionM == 0 || hasNumber(props, name+"/lat") && hasNumber(props, name+"/lon") {
			continue
		}
		return carnet.Errorf(carnet.WrongType, "precision_m is for a position, an object with lat and lon, and %s is none", name).
			WithFix("use round for a number, and name a position by the object: {\"position\": {\"precision_m\": 1000}}")
	}
	return nil
}

func hasNumber(props []Property, name string) bool {
	return slices.ContainsFunc(props, func(p Property) bool { return p.Name == name && p.Kind == carnet.Number })
}

// Of returns what v says about a leaf, under its own name or its object's, and
// whether it says anything.
func (v View) Of(name string) (PropertyView, bool) {
	pv, _, ok := v.property(name)
	return pv, ok
}

// Whole reports whether v shows a leaf as it was measured, each time that it was.
func (v View) Whole(name string) bool {
	pv, ok := v.Of(name)
	return ok && pv.Round == 0 && pv.PrecisionM == 0 && pv.Rate == 0 && pv.Deadband == 0 && pv.Windows.Always()
}

// property returns what v says about the leaf name: under its own name, or
// under its object's.
func (v View) property(name string) (pv PropertyView, key string, ok bool) {
	if pv, ok = v.Properties[name]; ok {
		return pv, name, true
	}
	object, _, isField := strings.Cut(name, "/")
	if !isField {
		return PropertyView{}, "", false
	}
	pv, ok = v.Properties[object]
	return pv, object, ok
}

// validate checks what ParseView checks, for views made in Go.
func (v View) validate() error {
	if len(v.Properties) > maxProperties {
		return carnet.Errorf(carnet.TooLarge, "the view names %d properties, more than %d", len(v.Properties), maxProperties)
	}
	for name, pv := range v.Properties {
		if err := checkName(name); err != nil {
			return err
		}
		if object, _, isField := strings.Cut(name, "/"); isField {
			if _, both := v.Properties[object]; both {
				return carnet.Errorf(carnet.Malformed, "the view names both %s and its field %s", object, name).WithFix("name the object, or its fields one by one")
			}
		}
		if err := pv.validate(); err != nil {
			return fmt.Errorf("view of %s: %w", name, err)
		}
	}
	if v.Retention > carnet.Keep {
		return carnet.Errorf(carnet.Malformed, "the view's %s is not a retention class", v.Retention)
	}
	for _, place := range v.Store.Words() {
		if place != string(nothing) && !slices.Contains(storePlaces, place) {
			return carnet.Errorf(carnet.Malformed, "the view's place to store %q: want depot, thing or world", place)
		}
	}
	return nil
}

func (pv PropertyView) validate() error {
	switch {
	case pv.Round < 0, pv.Deadband < 0:
		return carnet.Errorf(carnet.Malformed, "round and deadband are not negative")
	case pv.PrecisionM < 0 || pv.PrecisionM > maxPrecisionM:
		return carnet.Errorf(carnet.Malformed, "precision_m is %d: want 1 to %d", pv.PrecisionM, maxPrecisionM)
	case pv.Rate < 0 || pv.Rate > maxRate:
		return carnet.Errorf(carnet.Malformed, "rate is %s: want at most %s", pv.Rate, maxRate)
	}
	return nil
}

// checkName checks the form of a property's name: that of RFC 8428 §4.5.1,
// with at most one '/'.
func checkName(name string) error {
	field := false
	for i, r := range []byte(name) {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
		case i > 0 && strings.IndexByte("-:._", r) >= 0:
		case i > 0 && i < len(name)-1 && r == '/' && !field:
			field = true
		default:
			return carnet.Errorf(carnet.Malformed, "property name %q: want letters, digits, '-', ':', '.', '_', starting with a letter or digit, and at most one '/' before a field", name)
		}
	}
	if name == "" || len(name) > 128 {
		return carnet.Errorf(carnet.Malformed, "property name %q: want 1 to 128 characters", name)
	}
	return nil
}

// nothing is the Set that allows no word at all: what Label.Join makes of two
// sets with nothing in common. JSON has [] for it.
const nothing carnet.Set = "-"

// MarshalJSON writes the canonical form: fields and names in one order, absent
// where nothing is said.
func (v View) MarshalJSON() ([]byte, error) {
	type doc struct {
		Properties map[string]PropertyView `json:"properties"`
		Purposes   []string                `json:"purposes,omitzero"`
		Residency  []string                `json:"residency,omitzero"`
		Retention  carnet.Retention        `json:"retention,omitzero"`
		Store      []string                `json:"store,omitzero"`
		Send       Windows                 `json:"send,omitzero"`
	}
	properties := v.Properties
	if properties == nil {
		properties = map[string]PropertyView{}
	}
	return json.Marshal(doc{properties, words(v.Purposes), words(v.Residency), v.Retention, words(v.Store), v.Send})
}

func words(s carnet.Set) []string {
	if s == nothing {
		return []string{}
	}
	return s.Words()
}

// MarshalJSON writes the canonical form.
func (pv PropertyView) MarshalJSON() ([]byte, error) {
	type doc struct {
		Round      Decimal `json:"round,omitzero"`
		PrecisionM int     `json:"precision_m,omitzero"`
		Rate       string  `json:"rate,omitzero"`
		Deadband   Decimal `json:"deadband,omitzero"`
		Windows    Windows `json:"windows,omitzero"`
	}
	d := doc{Round: pv.Round, PrecisionM: pv.PrecisionM, Deadband: pv.Deadband, Windows: pv.Windows}
	if pv.Rate != 0 {
		d.Rate = pv.Rate.String()
	}
	return json.Marshal(d)
}

// UnmarshalJSON is ParseView.
func (v *View) UnmarshalJSON(b []byte) (err error) {
	*v, err = ParseView(b)
	return err
}

// Hash is the fingerprint of v's canonical JSON.
func (v View) Hash() (carnet.Fingerprint, error) {
	b, err := v.MarshalJSON()
	if err != nil {
		return carnet.Fingerprint{}, fmt.Errorf("hash view: %w", err)
	}
	return carnet.FingerprintOf(b), nil
}

// names lists v's properties in order.
func (v View) names() []string { return slices.Sorted(maps.Keys(v.Properties)) }
