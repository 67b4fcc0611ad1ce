package evidence

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"carnet"
	"carnet/seal"
)

// A bundle for one batch proves it, and holds no other's key, nor any other
// batch.
func TestOneBatch(t *testing.T) {
	s := scene(t)
	frame := s.frames[2]
	h, _, err := seal.ParseHeader(frame.Batches[1])
	if err != nil {
		t.Fatal(err)
	}
	o := s.options()
	o.Only = &Batch{h.Stream, h.Number}
	dir := s.write(o)
	r := verify(t, dir, nil)
	want(t, r, True)
	if r.Counts.Batches != 1 || r.Only == nil || *r.Only != *o.Only {
		t.Errorf("report %+v", r)
	}
	this := fmt.Sprintf("atch %d of stream %s", h.Number, h.Stream)
	if text := r.Summary(); !strings.Contains(text, "B"+this+" alone") || !strings.Contains(text, ": 1 frame, 1 batch,") {
		t.Errorf("the summary is of more than one batch:\n%s", text)
	}
	if text := r.Explain(); !strings.Contains(text, "that it had b"+this+", and nothing about the rest") || strings.Contains(text, "all of the avatar") || strings.Contains(text, "last batch") {
		t.Errorf("the explanation claims more than one batch:\n%s", text)
	}
	var all []byte
	for _, name := range append(dataFiles[:], FileManifest) {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, data...)
	}
	if !bytes.Contains(all, frame.Keys[1].Secret[:]) {
		t.Error("the batch's own key is not in the bundle")
	}
	for _, c := range s.courses {
		key := c.slot.Key()
		for _, secret := range [][32]byte{c.epoch.Secret, key.Secret} {
			if bytes.Contains(all, secret[:]) {
				t.Error("the bundle has the key of an epoch or slot")
			}
		}
	}
	for _, f := range s.frames {
		for i, k := range f.Keys {
			if f == frame && i == 1 {
				continue
			}
			if bytes.Contains(all, k.Secret[:]) || bytes.Contains(all, f.Batches[i]) {
				t.Errorf("the bundle has the key or bytes of %s", k.Path)
			}
		}
	}
	o.Only = &Batch{h.Stream, 1000}
	if _, err := Write(context.Background(), filepath.Join(t.TempDir(), "none"), s, o); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("a bundle of a batch that isn't there: %v", err)
	}
}

// The other avatar's batches and keys are in no bundle.
func TestOthersAreNotRevealed(t *testing.T) {
	s := newStage(t)
	watch, other := s.course(s.hub, true), s.course(s.hub, false)
	theirs := s.batch(other)
	s.sendBatches(s.hub, []*course{watch, other}, [][]byte{s.batch(watch), theirs})
	s.receipts()
	dir := s.write(s.options())
	named := func(data []byte, id carnet.StreamID) bool {
		return bytes.Contains(data, id[:]) || bytes.Contains(data, []byte(id.String()))
	}
	shown := false
	for _, name := range append(dataFiles[:], FileManifest) {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		f := carnet.FingerprintOf(theirs)
		if named(data, other.id) || bytes.Contains(data, theirs[100:]) || bytes.Contains(data, f[:]) {
			t.Errorf("%s tells of the other avatar", name)
		}
		shown = shown || named(data, watch.id)
	}
	if !shown {
		t.Error("the avatar's own stream isn't found: the search finds nothing")
	}
}
