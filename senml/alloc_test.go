package senml_test

import (
	"testing"

	"carnet"
	"carnet/senml"
)

// TestNoAllocation: a pack like the one before takes no memory, either way.
func TestNoAllocation(t *testing.T) {
	ms := append(watch(99), carnet.Measurement{Name: "state", Time: now, Value: carnet.String("asleep")},
		carnet.Measurement{Name: "worn", Time: now, Value: carnet.Bool(true)},
		carnet.Measurement{Name: "raw", Time: now, Value: carnet.Bytes([]byte{1, 2, 3, 4})})
	d := senml.NewDecoder(senml.Limits{})
	for _, f := range []senml.Format{senml.JSON, senml.CBOR, senml.Columns} {
		pack, err := senml.Append(nil, f, ms)
		if err != nil {
			t.Fatal(err)
		}
		var out []carnet.Measurement
		if n := testing.AllocsPerRun(20, func() { out, _ = d.Decode(out[:0], f, pack, now) }); n != 0 {
			t.Errorf("%s: a decode allocates %v times", f, n)
		}
		if n := testing.AllocsPerRun(20, func() { pack, _ = senml.Append(pack[:0], f, ms) }); n != 0 {
			t.Errorf("%s: an append allocates %v times", f, n)
		}
	}
	pack := senml.AppendColumns(nil, ms)
	if n := testing.AllocsPerRun(20, func() {
		if _, _, _, err := d.CheckColumns(pack); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("a check of columns allocates %v times", n)
	}
}

// TestManyNames: a sender that makes up names doesn't fill the decoder, and its
// names come out right.
func TestManyNames(t *testing.T) {
	d := senml.NewDecoder(senml.Limits{})
	for i := range 5000 {
		want := []carnet.Measurement{num("n"+string(rune('a'+i%26))+"/"+string(rune('a'+i/26%26))+string(rune('a'+i/676)), "m", now, 1)}
		pack, _ := senml.Append(nil, senml.JSON, want)
		if got, err := d.Decode(nil, senml.JSON, pack, now); err != nil || !same(got, want) {
			t.Fatalf("got %v (%v), want %v", got, err, want)
		}
	}
}
