package td

import (
	"regexp"
	"slices"
	"strings"
	"time"

	"carnet"
)

// TermsIRI is Carnet's vocabulary for Thing Descriptions. A description binds a
// prefix to it in its @context, {"carnet": "urn:carnet:td#"}, and uses
//
//	carnet:sensitivity  "public", "personal", "health", "location", or several,
//	                    joined by '+' or in an array
//	carnet:purposes     a word or an array of words: what the data may be used for
//	carnet:residency    a word or an array of words: where the data may be kept
//	carnet:linger       how long a batch may wait for more: seconds, or "PT1S"
//	carnet:retention    "hour", "day", "month", "year" or "keep"
//
// in a property or a field of an object property, and in the thing itself, where
// they hold for every property that says nothing. The first three also label an
// action or an event.
const TermsIRI = "urn:carnet:td#"

// MaxLinger is the longest linger.
const MaxLinger = 60 * time.Second

// role is what an object of a description is, as far as it decides which terms
// may stand in it.
type role int

const (
	ofNothing role = iota
	ofThing
	ofProperties // the names inside are properties' names, not terms
	ofProperty
	ofAffordances // as ofProperties, of actions and events
	ofAffordance
)

// inside returns the role of the member called name.
func (r role) inside(name string) role {
	switch {
	case r == ofThing && (name == "actions" || name == "events"):
		return ofAffordances
	case (r == ofThing || r == ofProperty) && name == "properties":
		return ofProperties
	case r == ofProperties:
		return ofProperty
	case r == ofAffordances:
		return ofAffordance
	}
	return ofNothing
}

func (r role) terms() []string {
	switch r {
	case ofThing, ofProperty:
		return []string{"sensitivity", "purposes", "residency", "linger", "retention"}
	case ofAffordance:
		return []string{"sensitivity", "purposes", "residency"}
	}
	return nil
}

// terms refuses a term of ours that is unknown, not well written, or in a place
// where it would mean nothing.
func (c *checker) terms(at *place, n *node, r role) error {
	for i, item := range n.items {
		if err := c.terms(at.index(i), item, ofNothing); err != nil {
			return err
		}
	}
	if r != ofProperties && r != ofAffordances {
		if err := c.termsHere(at, n, r); err != nil {
			return err
		}
	}
	for _, m := range n.members {
		if err := c.terms(at.at(m.name), m.node, r.inside(m.name)); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) termsHere(at *place, n *node, r role) error {
	ours := 0
	for _, m := range n.members {
		term, own := strings.CutPrefix(m.name, TermsIRI)
		if !own && c.prefix != "" {
			term, own = strings.CutPrefix(m.name, c.prefix)
		}
		switch {
		case !own && strings.HasPrefix(m.name, "carnet:"):
			return malformed(at.at(m.name), "the prefix is not bound, want {\"carnet\": %q} in @context", TermsIRI)
		case !own:
			continue
		case len(r.terms()) == 0:
			return malformed(at.at(m.name), "the term means nothing here; it belongs in the thing, a property, an action or an event")
		case !slices.Contains(r.terms(), term):
			return malformed(at.at(m.name), "the term is unknown here, want one of %s", strings.Join(r.terms(), ", "))
		}
		ours++
	}
	if ours == 0 {
		return nil
	}
	_, err := facts{}.with(at, n, c.prefix)
	return err
}

// facts are what our terms say of one property.
type facts struct {
	label     carnet.Label
	linger    time.Duration
	retention carnet.Retention
}

// with returns f with what n's terms say instead.
func (f facts) with(at *place, n *node, prefix string) (facts, error) {
	for _, m := range n.members {
		term, own := strings.CutPrefix(m.name, TermsIRI)
		if !own && prefix != "" {
			term, own = strings.CutPrefix(m.name, prefix)
		}
		if !own {
			continue
		}
		var err error
		at := at.at(m.name)
		switch term {
		case "sensitivity":
			f.label.Sensitivity, err = sensitivity(at, m.node)
		case "purposes":
			f.label.Purposes, err = wordSet(at, m.node)
		case "residency":
			f.label.Residency, err = wordSet(at, m.node)
		case "linger":
			f.linger, err = linger(at, m.node)
		case "retention":
			err = oneRetention(at, m.node, &f.retention)
		}
		if err != nil {
			return f, err
		}
	}
	return f, nil
}

func sensitivity(at *place, n *node) (carnet.Sensitivity, error) {
	words := n.text()
	if n.kind == isArray {
		var parts []string
		for _, item := range n.items {
			parts = append(parts, item.text())
		}
		words = strings.Join(parts, "+")
	}
	s, err := carnet.ParseSensitivity(words)
	if err != nil || words == "" {
		return 0, malformed(at, "want \"public\", or \"personal\", \"health\", \"location\", or several of these in an array or joined by '+'")
	}
	return s, nil
}

var word = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,63}$`)

func wordSet(at *place, n *node) (carnet.Set, error) {
	items := n.items
	if n.kind == isString {
		items = []*node{n}
	}
	var words []string
	for _, item := range items {
		if !word.MatchString(item.text()) {
			return "", malformed(at, "want words of a-z, 0-9 and '-'")
		}
		words = append(words, item.text())
	}
	if words == nil {
		return "", malformed(at, "want a word or an array of at least one; without the term nothing is restricted")
	}
	return carnet.NewSet(words...), nil
}

// seconds is the part of ISO 8601's durations that a linger needs.
var seconds = regexp.MustCompile(`^PT([0-9]{1,2}M)?([0-9]{1,2}(\.[0-9]{1,9})?S)?$`)

func linger(at *place, n *node) (time.Duration, error) {
	d := time.Duration(-1)
	if v, ok := n.number(); ok && v >= 0 && v <= MaxLinger.Seconds() {
		d = time.Duration(v * float64(time.Second))
	} else if s := n.text(); seconds.MatchString(s) && s != "PT" {
		d, _ = time.ParseDuration(strings.ToLower(s[2:]))
	}
	if d < 0 || d > MaxLinger {
		return 0, malformed(at, "want 0 to %d seconds, as a number or as in \"PT1S\"", MaxLinger/time.Second)
	}
	return d, nil
}

func oneRetention(at *place, n *node, r *carnet.Retention) error {
	if err := r.UnmarshalText([]byte(n.text())); err != nil {
		return malformed(at, "want hour, day, month, year or keep")
	}
	return nil
}
