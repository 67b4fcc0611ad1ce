package ledger

import (
	"bytes"
	"testing"

	"carnet"
)

func FuzzFrameProof(f *testing.F) {
	p := FrameProof{Sign1: []byte("header"), Statement: []byte("statement"), Receipt: []byte("receipt"), Path: []carnet.Fingerprint{{1}, {2}}}
	f.Add(p.Append(nil))
	f.Add(make([]byte, 38))
	f.Fuzz(func(t *testing.T, data []byte) {
		var p FrameProof
		if p.Parse(data) && !bytes.Equal(p.Append(nil), data) {
			t.Errorf("%x is read as %x", data, p.Append(nil))
		}
	})
}
