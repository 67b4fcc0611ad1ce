package carnet

import (
	"fmt"
	"slices"
	"strings"
)

// Sensitivity is a set of the kinds of sensitive content that data has; the
// empty set is public.
type Sensitivity uint8

// The kinds of sensitive content. Absent means AllSensitive.
const (
	Personal Sensitivity = 1 << iota
	Health
	Location
	Public       Sensitivity = 0
	AllSensitive             = Personal | Health | Location
)

var sensitivityNames = []struct {
	bit  Sensitivity
	name string
}{{Personal, "personal"}, {Health, "health"}, {Location, "location"}}

// Set is a set of words (purposes, places of residency) in one canonical
// string: sorted, comma-separated. The zero Set names no restriction in a
// Label, and nothing at all in a Clearance. Sets compare with ==.
type Set string

// NewSet makes a Set of words.
func NewSet(words ...string) Set {
	words = slices.Clone(words)
	slices.Sort(words)
	return Set(strings.Join(slices.Compact(words), ","))
}

// Words lists the set's members in order.
func (s Set) Words() []string {
	if s == "" {
		return nil
	}
	return strings.Split(string(s), ",")
}

// Has reports whether word is in the set.
func (s Set) Has(word string) bool { return slices.Contains(s.Words(), word) }

// nowhere restricts a joined label to no purpose or place at all: the
// intersection of two sets that have nothing in common.
const nowhere Set = "-"

// Label says how data may flow: what it contains, for which purposes it may be
// used, and where it may be kept. Labels form a lattice under Join; they
// compare with ==.
type Label struct {
	Sensitivity Sensitivity
	Purposes    Set // zero: not restricted
	Residency   Set // zero: not restricted
}

// Clearance says what a party may receive: which sensitive content, for which
// purposes it uses data, and in which places it keeps it.
type Clearance struct {
	Sensitivity Sensitivity
	Purposes    Set
	Residency   Set
}

// Within reports whether whatever may flow to a reader with clearance c may flow to
// one with clearance d.
func (c Clearance) Within(d Clearance) bool {
	return c.Sensitivity&^d.Sensitivity == 0 && within(d.Purposes, c.Purposes) && within(d.Residency, c.Residency)
}

// within reports whether what is bound to all of outer is bound to all of inner; a
// clearance that states none gets nothing that is bound.
func within(inner, outer Set) bool {
	if outer == "" {
		return true
	}
	return inner != "" && !slices.ContainsFunc(inner.Words(), func(w string) bool { return !outer.Has(w) })
}

// Join returns the least label that is at least a and b: the union of what they
// contain, the intersection of what they allow.
func (a Label) Join(b Label) Label {
	return Label{a.Sensitivity | b.Sensitivity, restrict(a.Purposes, b.Purposes), restrict(a.Residency, b.Residency)}
}

func restrict(a, b Set) Set {
	switch {
	case a == "":
		return b
	case b == "" || a == b:
		return a
	}
	var both []string
	for _, w := range a.Words() {
		if b.Has(w) {
			both = append(both, w)
		}
	}
	if len(both) == 0 {
		return nowhere
	}
	return NewSet(both...)
}

// Exceeds says why data labelled a may not flow to a reader with clearance c,
// and returns "" when it may.
func (a Label) Exceeds(c Clearance) string {
	if over := a.Sensitivity &^ c.Sensitivity; over != 0 {
		return fmt.Sprintf("the data is %s and the reader is cleared for %s", over, c.Sensitivity)
	}
	if why := outside("purpose", a.Purposes, c.Purposes); why != "" {
		return why
	}
	return outside("residency", a.Residency, c.Residency)
}

func outside(what string, allowed, used Set) string {
	if allowed == "" {
		return ""
	}
	if allowed == nowhere {
		return fmt.Sprintf("the data is bound to no %s at all, or to some that have none in common", what)
	}
	if used == "" {
		return fmt.Sprintf("the data is bound to %s %s and the reader states none", what, allowed)
	}
	for _, w := range used.Words() {
		if !allowed.Has(w) {
			return fmt.Sprintf("the data is bound to %s %s and the reader's is %s", what, allowed, used)
		}
	}
	return ""
}

func (s Sensitivity) String() string {
	if s == Public {
		return "public"
	}
	var names []string
	for _, n := range sensitivityNames {
		if s&n.bit != 0 {
			names = append(names, n.name)
		}
	}
	return strings.Join(names, "+")
}

// ParseSensitivity reads "public", or kinds joined by '+' as String writes
// them. The empty string is AllSensitive: what is not said is taken as the most
// sensitive.
func ParseSensitivity(s string) (Sensitivity, error) {
	switch s {
	case "":
		return AllSensitive, nil
	case "public":
		return Public, nil
	}
	var set Sensitivity
next:
	for _, word := range strings.Split(s, "+") {
		for _, n := range sensitivityNames {
			if n.name == word {
				set |= n.bit
				continue next
			}
		}
		return 0, Errorf(Malformed, "sensitivity %q: want public, personal, health, location, or several joined by '+'", s)
	}
	return set, nil
}

// MarshalText and UnmarshalText use the forms of String and ParseSensitivity.
func (s Sensitivity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
func (s *Sensitivity) UnmarshalText(text []byte) (err error) {
	*s, err = ParseSensitivity(string(text))
	return err
}

// Retention is how long data is kept after its receipt; data of different
// classes never shares a batch, so that whole rows can be dropped.
type Retention uint8

// The retention classes, shortest first.
const (
	Hour Retention = iota + 1
	Day
	Month
	Year
	Keep
)

var retentionNames = [...]string{Hour: "hour", Day: "day", Month: "month", Year: "year", Keep: "keep"}

func (r Retention) String() string {
	if r < Hour || r > Keep {
		return fmt.Sprintf("retention %d", uint8(r))
	}
	return retentionNames[r]
}

// MarshalText and UnmarshalText use the names hour, day, month, year and keep.
func (r Retention) MarshalText() ([]byte, error) { return []byte(r.String()), nil }
func (r *Retention) UnmarshalText(text []byte) error {
	for i, name := range retentionNames {
		if name != "" && name == string(text) {
			*r = Retention(i)
			return nil
		}
	}
	return Errorf(Malformed, "retention %q: want hour, day, month, year or keep", text)
}
