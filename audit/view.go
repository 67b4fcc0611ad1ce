package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math/big"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"carnet"
)

// view is what a view's JSON says about what is shown (policy.md section 1).
type view map[string]settings

// settings is how exactly a property is shown; zero says nothing.
type settings struct {
	round     int64 // in billionths
	deadband  float64
	precision int64
	rate      int64 // nanoseconds
	windows   windows
}

// Limits of policy.md section 1.
const (
	maxView       = 64 << 10
	maxProperties = 1024
	maxWords      = 64
	maxPrecision  = 1_000_000
	maxRate       = 8784 * time.Hour
	maxDepth      = 8
)

func parseView(data []byte) (view, error) {
	if len(data) > maxView {
		return nil, carnet.Errorf(carnet.TooLarge, "a view has %d bytes, at most %d are read", len(data), maxView)
	}
	root, err := parseJSON(data)
	if err != nil {
		return nil, err
	}
	fields, err := object(root, "properties", "purposes", "residency", "retention", "store", "send")
	if err != nil {
		return nil, err
	}
	shown, err := object(fields["properties"])
	if err != nil || len(shown) > maxProperties {
		return nil, malformed("properties must be an object of at most %d names", maxProperties)
	}
	v := make(view)
	for name, node := range shown {
		if !isName(name) {
			return nil, malformed("%.140q is no name of a property", name)
		}
		if v[name], err = parseSettings(node); err != nil {
			return nil, malformed("%s: %v", name, err)
		}
	}
	for name := range v {
		if property, _, field := strings.Cut(name, "/"); field {
			if _, both := v[property]; both {
				return nil, malformed("the view names %s and its field %s", property, name)
			}
		}
	}
	return v, checkRest(fields)
}

func malformed(format string, args ...any) error {
	return carnet.Errorf(carnet.Malformed, format, args...)
}

// checkRest refuses what is not in form in the fields that don't matter here:
// where and for what data is kept, and when it is sent.
func checkRest(fields map[string]any) error {
	for name, node := range fields {
		ok := true
		switch name {
		case "purposes", "residency":
			ok = areWords(node, func(w string) bool { return isWord(w) })
		case "store":
			ok = areWords(node, func(w string) bool { return w == "depot" || w == "thing" || w == "world" })
		case "retention":
			var r carnet.Retention
			text, isText := node.(string)
			ok = isText && r.UnmarshalText([]byte(text)) == nil
		case "send":
			if _, err := parseWindows(node); err != nil {
				return err
			}
		}
		if !ok {
			return malformed("%s is not as a view has it", name)
		}
	}
	return nil
}

func parseSettings(node any) (s settings, err error) {
	fields, err := object(node, "round", "precision_m", "rate", "deadband", "windows")
	if err != nil {
		return s, err
	}
	for name, f := range fields {
		switch name {
		case "round":
			s.round, err = billionths(f)
		case "deadband":
			if _, err = billionths(f); err == nil {
				s.deadband, err = strconv.ParseFloat(string(f.(json.Number)), 64)
			}
		case "precision_m":
			n, _ := f.(json.Number)
			if s.precision, err = strconv.ParseInt(string(n), 10, 64); err != nil || s.precision < 1 || s.precision > maxPrecision {
				err = malformed("precision_m must be a whole number from 1 to %d", maxPrecision)
			}
		case "rate":
			text, _ := f.(string)
			d, bad := time.ParseDuration(text)
			if s.rate = int64(d); bad != nil || d <= 0 || d > maxRate {
				err = malformed("rate must be a duration above 0, at most %v", maxRate)
			}
		case "windows":
			s.windows, err = parseWindows(f)
		}
		if err != nil {
			return s, err
		}
	}
	return s, nil
}

// billionths reads a decimal exactly.
func billionths(node any) (int64, error) {
	number, _ := node.(json.Number)
	whole, decimals, _ := strings.Cut(string(number), ".")
	exact, ok := new(big.Int).SetString(whole+decimals+strings.Repeat("0", max(0, 9-len(decimals))), 10)
	if !ok || len(decimals) > 9 || strings.Trim(whole+decimals, "0123456789") != "" || exact.Sign() <= 0 || !exact.IsInt64() {
		return 0, malformed("%q must be digits with at most 9 decimals, above 0, at most 9223372036.854775807", string(number))
	}
	return exact.Int64(), nil
}

// isName is policy.md: RFC 8428 section 4.5.1, with at most one slash inside.
func isName(s string) bool {
	const alnum = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	if len(s) < 1 || len(s) > 128 || strings.Trim(s, alnum+"-:._/") != "" {
		return false
	}
	property, field, slash := strings.Cut(s, "/")
	return property != "" && strings.Contains(alnum, s[:1]) && !strings.Contains(field, "/") && (!slash || field != "")
}

func isWord(s string) bool {
	return len(s) >= 1 && len(s) <= 64 && s[0] >= 'a' && s[0] <= 'z' && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789_.-") == ""
}

func areWords(node any, allowed func(string) bool) bool {
	list, ok := node.([]any)
	seen := make(map[string]bool)
	for _, item := range list {
		word, isText := item.(string)
		if !isText || !allowed(word) || seen[word] {
			return false
		}
		seen[word] = true
	}
	return ok && len(list) <= maxWords
}

// object takes a JSON object whose names are all allowed; without any, all are.
func object(node any, allowed ...string) (map[string]any, error) {
	o, ok := node.(map[string]any)
	if !ok {
		return nil, malformed("want an object")
	}
next:
	for name := range o {
		for _, a := range allowed {
			if a == name {
				continue next
			}
		}
		if len(allowed) > 0 {
			return nil, malformed("%.80q is not understood", name)
		}
	}
	return o, nil
}

// parseJSON reads one JSON value without null, of limited depth, each name once.
func parseJSON(data []byte) (any, error) {
	if !utf8.Valid(data) {
		return nil, malformed("the view is not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	root, err := parseNode(d, 0)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, malformed("the view goes on after its end")
	}
	return root, nil
}

func parseNode(d *json.Decoder, depth int) (any, error) {
	t, err := d.Token()
	switch {
	case err != nil:
		return nil, malformed("the view is not JSON: %v", err)
	case t == nil:
		return nil, malformed("the view has a null")
	case depth > maxDepth:
		return nil, malformed("the view is nested too deeply")
	case t == json.Delim('{'):
		return parseObject(d, depth)
	case t == json.Delim('['):
		list := []any{}
		for d.More() {
			item, err := parseNode(d, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, item)
		}
		_, err = d.Token()
		return list, err
	}
	return t, nil
}

func parseObject(d *json.Decoder, depth int) (any, error) {
	o := make(map[string]any)
	for d.More() {
		t, err := d.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			return nil, malformed("the view is not JSON")
		}
		if _, twice := o[name]; twice {
			return nil, malformed("the view has %.80q twice", name)
		}
		if o[name], err = parseNode(d, depth+1); err != nil {
			return nil, err
		}
	}
	_, err := d.Token()
	return o, err
}
