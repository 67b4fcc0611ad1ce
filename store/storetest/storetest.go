// Package storetest is the conformance suite of the stores: what every adapter
// must do alike, down to the order of rows and the last byte. An adapter's tests
// call Things, Worlds, Depot, Register, AnyRole and Keys with a function that makes databases.
//
// It owns no state. It must not know how an adapter works: it sees a store only
// through the interface that its consumer declares.
package storetest

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"carnet"
	"carnet/ledger"
)

// Database opens one database, as a process of its own would, and returns the
// store and what closes it. It may be open several times at once.
type Database[S any] func(t *testing.T) (store S, close func())

// Fresh makes a new, empty database.
type Fresh[S any] func(t *testing.T) Database[S]

// outside is the smallest number that stores refuse: positions, numbers, ids
// and versions stay below it.
const outside = uint64(math.MaxInt64) + 1

// seeds of the random operations; each is one run.
const seeds = 3

// open opens a database for the length of a test.
func open[S any](t *testing.T, db Database[S]) S {
	t.Helper()
	s, close := db(t)
	t.Cleanup(close)
	return s
}

func wantCode(t *testing.T, err error, code carnet.Code) {
	t.Helper()
	if got := carnet.CodeOf(err); got != code {
		t.Fatalf("got error %v (code %q), want code %q", err, got, code)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// get takes what a store returned: get(s.Totals(ctx))(t) fails t on an error.
func get[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		must(t, err)
		return v
	}
}

// same compares what a store holds with what it should. Nil and empty slices
// count as the same.
func same(t *testing.T, what string, have, want any) {
	t.Helper()
	if !equal(reflect.ValueOf(have), reflect.ValueOf(want)) {
		t.Fatalf("%s:\nhave %s\nwant %s", what, short(have), short(want))
	}
}

func equal(a, b reflect.Value) bool {
	if a.IsValid() != b.IsValid() || a.IsValid() && a.Type() != b.Type() {
		return false
	}
	switch a.Kind() {
	case reflect.Slice:
		if a.Type().Elem().Kind() == reflect.Uint8 {
			return bytes.Equal(a.Bytes(), b.Bytes())
		}
		if a.Len() != b.Len() {
			return false
		}
		for i := range a.Len() {
			if !equal(a.Index(i), b.Index(i)) {
				return false
			}
		}
		return true
	case reflect.Struct:
		if instant, ok := a.Interface().(time.Time); ok {
			return instant.Equal(b.Interface().(time.Time))
		}
		for i := range a.NumField() {
			if !equal(a.Field(i), b.Field(i)) {
				return false
			}
		}
		return true
	}
	return reflect.DeepEqual(a.Interface(), b.Interface())
}

func short(v any) string {
	s := fmt.Sprintf("%+v", v)
	if len(s) > 2000 {
		return s[:2000] + "…"
	}
	return s
}

// awkward are bytes that an adapter could damage: zeros, quotes, what isn't
// UTF-8, every byte there is.
func awkward() []byte {
	b := []byte("\x00'\"\\x00\xff\xfe\r\n\x1a")
	for i := range 256 {
		b = append(b, byte(i))
	}
	return b
}

// randomBytes draws up to n bytes, sometimes none.
func randomBytes(r *rand.Rand, n int) []byte {
	b := make([]byte, r.IntN(n+1))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// statement makes a statement that n tells apart from others.
func statement(n int) ledger.Item {
	text := fmt.Appendf(nil, "statement %d\x00", n)
	return ledger.Item{Entry: carnet.FingerprintOf(text), Statement: text, Salt: bytes.Repeat([]byte{byte(n)}, 32)}
}

func cancelled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}
