package td

import (
	"math"
	"net/url"
	"slices"
	"strings"
)

// fields checks the members of an object that rules name, in their order in the
// text; members that it does not name are allowed (TD 1.1 §5.2), those in
// mandatory must be there.
func fields(rules map[string]rule, mandatory ...string) rule {
	return func(at *place, n *node) error {
		if n.kind != isObject {
			return malformed(at, "is %s, want an object", n.what())
		}
		for _, name := range mandatory {
			if n.get(name) == nil {
				return malformed(at, "%q is missing and mandatory", name)
			}
		}
		for _, m := range n.members {
			if r := rules[m.name]; r != nil {
				if err := r(at.at(m.name), m.node); err != nil {
					return err
				}
			}
		}
		return nil
	}
}

// mapOf wants an object of at least atLeast members that all follow r.
func mapOf(r rule, atLeast int) rule {
	return func(at *place, n *node) error {
		if n.kind != isObject {
			return malformed(at, "is %s, want an object", n.what())
		}
		if len(n.members) < atLeast {
			return malformed(at, "is empty, want at least %d member", atLeast)
		}
		for _, m := range n.members {
			if err := r(at.at(m.name), m.node); err != nil {
				return err
			}
		}
		return nil
	}
}

// listOf wants an array of at least atLeast items that all follow r.
func listOf(atLeast int, r rule) rule {
	return func(at *place, n *node) error {
		if n.kind != isArray {
			return malformed(at, "is %s, want an array", n.what())
		}
		if len(n.items) < atLeast {
			return malformed(at, "has %d items, want at least %d", len(n.items), atLeast)
		}
		for i, item := range n.items {
			if err := r(at.index(i), item); err != nil {
				return err
			}
		}
		return nil
	}
}

// oneOrMore wants a value that follows r, or a non-empty array of such.
func oneOrMore(r rule) rule { return oneOr(1, r) }

// oneOrList is oneOrMore with the empty array allowed.
func oneOrList(r rule) rule { return oneOr(0, r) }

func oneOr(atLeast int, r rule) rule {
	return func(at *place, n *node) error {
		if n.kind == isArray {
			return listOf(atLeast, r)(at, n)
		}
		return r(at, n)
	}
}

func stringOrList(atLeast int) rule { return oneOr(atLeast, wantString) }

func wantString(at *place, n *node) error {
	if n.kind != isString {
		return malformed(at, "is %s, want a string", n.what())
	}
	return nil
}

func wantBool(at *place, n *node) error {
	if n.kind != isBool {
		return malformed(at, "is %s, want true or false", n.what())
	}
	return nil
}

func wantNumber(at *place, n *node) error {
	if _, ok := n.number(); !ok {
		return malformed(at, "is %s, want a number that a double can hold", n.what())
	}
	return nil
}

func wantPositive(at *place, n *node) error {
	if v, ok := n.number(); !ok || v <= 0 {
		return malformed(at, "want a number above 0")
	}
	return nil
}

func wantCount(at *place, n *node) error {
	if v, ok := n.number(); !ok || v < 0 || v != math.Trunc(v) || v > math.MaxInt32 {
		return malformed(at, "want a whole number from 0 to %d", math.MaxInt32)
	}
	return nil
}

func wantOneOf(words ...string) rule {
	return func(at *place, n *node) error {
		if n.kind != isString || !slices.Contains(words, n.text()) {
			return malformed(at, "want one of %s", strings.Join(words, ", "))
		}
		return nil
	}
}

func wantURI(at *place, n *node) error {
	if u, err := url.Parse(n.text()); err != nil || u.Scheme == "" {
		return malformed(at, "want a URI as in \"urn:uuid:…\"")
	}
	return nil
}

func wantEnum(at *place, n *node) error {
	if n.kind != isArray || len(n.items) == 0 {
		return malformed(at, "want an array of at least one value")
	}
	if len(n.items) > maxEnum {
		return malformed(at, "has %d values, at most %d are accepted", len(n.items), maxEnum)
	}
	seen := make(map[string]bool, len(n.items))
	for i, value := range n.items {
		text := string(value.canonical(nil))
		if seen[text] {
			return malformed(at.index(i), "the value occurs twice")
		}
		seen[text] = true
	}
	return nil
}

// maxEnum keeps the search on the data path short.
const maxEnum = 256
