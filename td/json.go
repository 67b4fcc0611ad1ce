package td

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"carnet"
)

// node is a JSON value that keeps the order of an object's members, which
// encoding/json's maps lose, and where it stands in the text.
type node struct {
	value      any // string, json.Number, bool or nil; unused for objects and arrays
	kind       byte
	members    []member
	items      []*node
	start, end int
}

type member struct {
	name string
	node *node
}

// The kinds of nodes.
const (
	isObject = 'o'
	isArray  = 'a'
	isString = 's'
	isNumber = 'n'
	isBool   = 'b'
	isNull   = '0'
)

func (n *node) what() string {
	switch n.kind {
	case isObject:
		return "an object"
	case isArray:
		return "an array"
	case isString:
		return "a string"
	case isNumber:
		return "a number"
	case isBool:
		return "true or false"
	}
	return "null"
}

// get returns the member called name, and nil without one.
func (n *node) get(name string) *node {
	if n == nil {
		return nil
	}
	for i := range n.members {
		if n.members[i].name == name {
			return n.members[i].node
		}
	}
	return nil
}

// text returns a string's value, and "" for anything else.
func (n *node) text() string {
	if n == nil || n.kind != isString {
		return ""
	}
	return n.value.(string)
}

func (n *node) truth() bool { return n != nil && n.kind == isBool && n.value.(bool) }

// number returns a number's value; it is false for anything else, and for a
// number that a float64 can't hold.
func (n *node) number() (float64, bool) {
	if n == nil || n.kind != isNumber {
		return 0, false
	}
	f, err := n.value.(json.Number).Float64()
	return f, err == nil
}

// canonical appends a text that two values share if and only if they are equal as JSON
// values; 1 and 1.0 are.
func (n *node) canonical(b []byte) []byte {
	switch n.kind {
	case isObject:
		b = append(b, '{')
		byName := func(x, y member) int { return strings.Compare(x.name, y.name) }
		for _, m := range slices.SortedFunc(slices.Values(n.members), byName) {
			b = append(m.node.canonical(append(strconv.AppendQuote(b, m.name), ':')), ',')
		}
		return append(b, '}')
	case isArray:
		b = append(b, '[')
		for _, item := range n.items {
			b = append(item.canonical(b), ',')
		}
		return append(b, ']')
	case isNumber:
		f, _ := n.number()
		if f == 0 {
			f = 0 // -0 is 0
		}
		return strconv.AppendFloat(b, f, 'g', -1, 64)
	case isString:
		return strconv.AppendQuote(b, n.text())
	}
	return fmt.Append(b, n.value)
}

// place is a JSON pointer (RFC 6901), made into text only for an error.
type place struct {
	up   *place
	name string
}

func (p *place) at(name string) *place { return &place{p, name} }
func (p *place) index(i int) *place    { return &place{p, strconv.Itoa(i)} }

func (p *place) String() string {
	if p == nil {
		return "the root"
	}
	var s string
	for ; p != nil; p = p.up {
		s = "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(p.name) + s
	}
	return s
}

// parseJSON reads one JSON object (RFC 8259), refusing what is ambiguous: bytes
// that are not UTF-8 and names that occur twice.
func parseJSON(data []byte) (*node, error) {
	if !utf8.Valid(data) {
		return nil, carnet.Errorf(carnet.Malformed, "the thing description is not UTF-8").WithFix("save it as UTF-8")
	}
	var raw json.RawMessage
	if err := json.Unmarshal(data, &raw); err != nil {
		if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
			at := min(int(syntax.Offset), len(data))
			return nil, carnet.Errorf(carnet.Malformed, "the thing description is not JSON: line %d: %v",
				1+bytes.Count(data[:at], []byte{'\n'}), syntax)
		}
		return nil, carnet.Errorf(carnet.Malformed, "the thing description is not JSON: %v", err)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	n, err := readNode(dec, nil, 0)
	if err == nil && n.kind != isObject {
		err = malformed(nil, "is %s, want an object", n.what())
	}
	return n, err
}

func readNode(dec *json.Decoder, at *place, depth int) (*node, error) {
	t, err := dec.Token()
	if err != nil {
		return nil, malformed(at, "%v", err)
	}
	n := &node{value: t, end: int(dec.InputOffset())}
	n.start = n.end - 1 // right for objects and arrays, the only ones that are quoted
	switch v := t.(type) {
	case json.Delim:
		if depth == MaxDepth {
			return nil, carnet.Errorf(carnet.TooLarge, "thing description at %s: more than %d objects and arrays inside each other", at, MaxDepth)
		}
		n.value = nil
		if v == '[' {
			n.kind = isArray
			err = n.readItems(dec, at, depth)
		} else {
			n.kind = isObject
			err = n.readMembers(dec, at, depth)
		}
		n.end = int(dec.InputOffset())
		return n, err
	case string:
		n.kind = isString
	case json.Number:
		n.kind = isNumber
	case bool:
		n.kind = isBool
	default:
		n.kind = isNull
	}
	return n, nil
}

func (n *node) readItems(dec *json.Decoder, at *place, depth int) error {
	for i := 0; dec.More(); i++ {
		item, err := readNode(dec, at.index(i), depth+1)
		if err != nil {
			return err
		}
		n.items = append(n.items, item)
	}
	_, err := dec.Token()
	return err
}

func (n *node) readMembers(dec *json.Decoder, at *place, depth int) error {
	seen := make(map[string]bool)
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return malformed(at, "%v", err)
		}
		name := key.(string)
		if seen[name] {
			return malformed(at.at(name), "the name occurs twice in its object")
		}
		if len(seen) == MaxMembers {
			return carnet.Errorf(carnet.TooLarge, "thing description at %s: more than %d members", at, MaxMembers)
		}
		seen[name] = true
		value, err := readNode(dec, at.at(name), depth+1)
		if err != nil {
			return err
		}
		n.members = append(n.members, member{name, value})
	}
	_, err := dec.Token()
	return err
}
