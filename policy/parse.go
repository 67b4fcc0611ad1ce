package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"carnet"
)

// ParseView reads a view's JSON. It refuses unknown fields, duplicate keys,
// wrong types and values out of range, naming the place (JSON pointer, RFC
// 6901) and what is allowed there.
func ParseView(b []byte) (View, error) {
	root, err := parseJSON("view", maxViewBytes, b)
	if err != nil {
		return View{}, err
	}
	var v View
	err = root.object(func(key string, n node) (err error) {
		switch key {
		case "properties":
			v.Properties, err = n.properties()
		case "purposes":
			v.Purposes, err = n.wordSet(nil)
		case "residency":
			v.Residency, err = n.wordSet(nil)
		case "retention":
			v.Retention, err = n.retention()
		case "store":
			v.Store, err = n.wordSet(storePlaces)
		case "send":
			v.Send, err = n.windows()
		default:
			err = n.refuse("unknown field: want properties, purposes, residency, retention, store or send")
		}
		return err
	})
	if err != nil {
		return View{}, err
	}
	if v.Properties == nil {
		return View{}, root.refuse(`the field properties is missing; "properties": {} shows nothing`)
	}
	if err := v.validate(); err != nil {
		return View{}, err
	}
	return v, nil
}

func (n node) properties() (map[string]PropertyView, error) {
	all := map[string]PropertyView{}
	err := n.object(func(name string, n node) (err error) {
		if err := checkName(name); err != nil {
			return n.refuse("%s", err)
		}
		all[name], err = n.propertyView()
		return err
	})
	return all, err
}

func (n node) propertyView() (pv PropertyView, err error) {
	err = n.object(func(key string, n node) (err error) {
		switch key {
		case "round":
			pv.Round, err = n.decimal()
		case "precision_m":
			pv.PrecisionM, err = n.metres()
		case "rate":
			pv.Rate, err = n.duration()
		case "deadband":
			pv.Deadband, err = n.decimal()
		case "windows":
			pv.Windows, err = n.windows()
		default:
			err = n.refuse("unknown field: want round, precision_m, rate, deadband or windows")
		}
		return err
	})
	return pv, err
}

func (n node) decimal() (Decimal, error) {
	text, ok := n.value.(json.Number)
	if !ok {
		return 0, n.refuse("want a number greater than 0")
	}
	d, err := ParseDecimal(text.String())
	if err != nil {
		return 0, n.refuse("%s", err)
	}
	return d, nil
}

func (n node) metres() (int, error) {
	text, _ := n.value.(json.Number)
	m, err := strconv.Atoi(text.String())
	if err != nil || m < 1 || m > maxPrecisionM {
		return 0, n.refuse("want whole metres, 1 to %d", maxPrecisionM)
	}
	return m, nil
}

func (n node) duration() (time.Duration, error) {
	text, _ := n.value.(string)
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 || d > maxRate {
		return 0, n.refuse("want a duration such as \"1s\", \"500ms\" or \"1h30m\", at most %s", maxRate)
	}
	return d, nil
}

func (n node) retention() (r carnet.Retention, err error) {
	text, _ := n.value.(string)
	if r.UnmarshalText([]byte(text)) != nil {
		return 0, n.refuse("want \"hour\", \"day\", \"month\", \"year\" or \"keep\"")
	}
	return r, nil
}

// wordSet reads an array of words, of allowed when that is not nil; [] allows
// none.
func (n node) wordSet(allowed []string) (carnet.Set, error) {
	list, err := n.strings()
	if err != nil {
		return "", err
	}
	for _, word := range list {
		if allowed != nil && !slices.Contains(allowed, word) {
			return "", n.refuse("%q is not known: want %s", word, strings.Join(allowed, ", "))
		}
		if len(word) < 1 || len(word) > 64 || word[0] < 'a' || word[0] > 'z' || strings.Trim(word, "abcdefghijklmnopqrstuvwxyz0123456789_.-") != "" {
			return "", n.refuse("%q: want 1 to 64 of a-z, 0-9, '_', '.' and '-', starting with a letter", word)
		}
	}
	set := carnet.NewSet(list...)
	if len(list) == 0 {
		return nothing, nil
	}
	if len(set.Words()) != len(list) {
		return "", n.refuse("a word stands twice")
	}
	return set, nil
}

func (n node) windows() (Windows, error) {
	zones := map[string][]string{}
	err := n.object(func(zone string, n node) (err error) {
		zones[zone], err = n.strings()
		return err
	})
	if err != nil {
		return Windows{}, err
	}
	if len(zones) == 0 || len(zones) > maxZones {
		return Windows{}, n.refuse("want 1 to %d time zones; leave the field out for always", maxZones)
	}
	w, err := ParseWindows(zones)
	if err != nil {
		return Windows{}, n.refuse("%s", err)
	}
	return w, nil
}

// node is a JSON value and its place in what. value is a members, a []any, a string,
// a json.Number, a bool or nil.
type node struct {
	what, pointer string
	value         any
	did           func(name string) string // of a party; nil: names aren't taken
}

// members are an object's, in the order of the text.
type members []member

type member struct {
	key   string
	value any
}

func (n node) refuse(format string, args ...any) error {
	if n.pointer == "" { // RFC 6901: the whole document
		return carnet.Errorf(carnet.Malformed, "the %s: %s", n.what, fmt.Sprintf(format, args...))
	}
	return carnet.Errorf(carnet.Malformed, "%s at %q: %s", n.what, n.pointer, fmt.Sprintf(format, args...))
}

func (n node) object(each func(key string, n node) error) error {
	list, ok := n.value.(members)
	if !ok {
		return n.refuse("want an object")
	}
	seen := make(map[string]bool, len(list))
	for _, m := range list {
		child := node{n.what, n.pointer + "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(m.key), m.value, n.did}
		if seen[m.key] {
			return child.refuse("the key stands twice")
		}
		seen[m.key] = true
		if err := each(m.key, child); err != nil {
			return err
		}
	}
	return nil
}

func (n node) strings() ([]string, error) {
	list, ok := n.value.([]any)
	if !ok || len(list) > maxWords {
		return nil, n.refuse("want an array of at most %d strings", maxWords)
	}
	texts := make([]string, len(list))
	for i, item := range list {
		if texts[i], ok = item.(string); !ok {
			return nil, n.refuse("want strings only")
		}
	}
	return texts, nil
}

// parseJSON reads a document of at most so many bytes; what it is, for people.
func parseJSON(what string, most int, b []byte) (node, error) {
	if len(b) > most {
		return node{}, carnet.Errorf(carnet.TooLarge, "the %s has %d bytes, more than %d", what, len(b), most)
	}
	if !utf8.Valid(b) {
		return node{}, carnet.Errorf(carnet.Malformed, "the %s is not UTF-8", what)
	}
	var whole json.RawMessage
	if err := json.Unmarshal(b, &whole); err != nil { // one value, nothing after it
		return node{}, carnet.Errorf(carnet.Malformed, "the %s is not JSON: %s", what, err)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	value, err := parseValue(dec, 0)
	if err != nil {
		return node{}, carnet.Errorf(carnet.Malformed, "the %s is not one: %s (near byte %d)", what, err, dec.InputOffset())
	}
	return node{what: what, value: value}, nil
}

func parseValue(dec *json.Decoder, depth int) (any, error) {
	if depth > 8 {
		return nil, errors.New("it nests too deep")
	}
	token, err := dec.Token()
	if err != nil {
		return nil, err
	}
	switch token {
	case json.Delim('{'):
		object := members{}
		for dec.More() {
			key, err := dec.Token()
			if err != nil {
				return nil, err
			}
			value, err := parseValue(dec, depth+1)
			if err != nil {
				return nil, err
			}
			object = append(object, member{key.(string), value})
		}
		_, err = dec.Token()
		return object, err
	case json.Delim('['):
		array := []any{}
		for dec.More() {
			value, err := parseValue(dec, depth+1)
			if err != nil {
				return nil, err
			}
			array = append(array, value)
		}
		_, err = dec.Token()
		return array, err
	}
	return token, nil
}
