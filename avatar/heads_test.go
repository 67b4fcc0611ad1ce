package avatar

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unique"

	"carnet"
)

// pages asks for all of hub's stream heads, and counts the pages.
func (w *provenWorld) pages() (heads []carnet.StreamHead, n int) {
	w.t.Helper()
	for after := (carnet.StreamID{}); ; n++ {
		text, err := w.agent.heads(Sender{Party: "hub"}, after)
		if err != nil || len(text) > headsBytes+1<<10 {
			w.t.Fatalf("a page of %d bytes, %v", len(text), err)
		}
		var page carnet.HeadsPage
		if err := json.Unmarshal(text, &page); err != nil {
			w.t.Fatal(err)
		}
		for _, h := range page.Heads {
			if bytes.Compare(h.Stream[:], after[:]) <= 0 {
				w.t.Fatalf("%s comes after %s", h.Stream, after)
			}
			after = h.Stream
		}
		if heads = append(heads, page.Heads...); !page.More {
			return heads, n + 1
		}
	}
}

// A sender learns where its streams stand, however many there are and however much
// is known of them; each once, and no other sender's.
func TestHeads(t *testing.T) {
	w := newProvenWorld(t)
	w.receive(0, 1)
	const streams = 10_500
	for i := range streams {
		id, sender := carnet.NewStreamID(), carnet.PartyID("hub")
		if i%100 == 0 {
			sender = "other"
		}
		w.agent.streams[id] = &stream{id: id, sender: sender, avatar: &Avatar{id: carnet.NewAvatarID()}}
	}
	heads, n := w.pages()
	if want := streams - streams/100 + 2; len(heads) != want || n != (want+headsAtOnce-1)/headsAtOnce {
		t.Errorf("%d heads in %d pages, want %d", len(heads), n, want)
	}
}

func TestHeadsOfManyProperties(t *testing.T) {
	w := newProvenWorld(t)
	for i := range 20 {
		v := &Avatar{id: carnet.NewAvatarID()}
		for p := range maxProperties {
			v.latest = append(v.latest, latest{property: unique.Make(property{name: fmt.Sprintf("%s%04d", strings.Repeat("x", 124), p)}), time: 1e18, num: -1.2345678901234567e-300})
		}
		id := carnet.StreamID{byte(i + 1)}
		w.agent.streams[id] = &stream{id: id, sender: "hub", avatar: v}
	}
	heads, n := w.pages()
	if len(heads) != 22 || n < 7 {
		t.Errorf("%d heads in %d pages", len(heads), n)
	}
	whole := 0
	for _, h := range heads {
		if len(h.Latest) == maxProperties {
			whole++
		}
	}
	if whole != 20 {
		t.Errorf("%d streams come with all their properties, want 20", whole)
	}
}
