package evidence

import (
	"crypto/ed25519"
	"slices"
	"strings"
	"testing"

	"carnet"
)

// leftOutOf takes frames of one batch each out of a moved avatar's, and says that they
// were left out by its owner's order.
func leftOutOf(t *testing.T, home, former *stage, o *Options, frames ...int) Redaction {
	t.Helper()
	watch := former.courses[0].id
	slices.Reverse(frames)
	for _, at := range frames {
		home.frames = slices.Delete(home.frames, at, at+1)
	}
	r := Redaction{Version: 1, World: former.trust().Worlds[0], Stream: watch, Crossing: carnet.CrossingID{1}, Order: carnet.Fingerprint{2}, Ordered: home.options().Now.UTC()}
	run := Run{Class: carnet.Keep, Sensitivity: carnet.Health, From: 1 << 40}
	for _, f := range verify(t, home.write(*o), nil).Findings { // without a word they are missing
		if f.Stream != watch || f.Batches == nil || f.Measurements == nil || !strings.Contains(f.Text, "missing") {
			t.Fatalf("finding %s", f)
		}
		run.From, run.To = min(run.From, f.Batches.From), max(run.To, f.Batches.To)
		run.Batches += f.Batches.To - f.Batches.From + 1
		run.Measurements += f.Measurements.To - f.Measurements.From + 1
	}
	r.Runs = []Run{run}
	return r
}

func (r Redaction) words(t *testing.T, by byte) map[carnet.StreamID][][]byte {
	t.Helper()
	word, err := r.Sign(seed(by))
	if err != nil {
		t.Fatal(err)
	}
	return map[carnet.StreamID][][]byte{r.Stream: {word}}
}

// What was left out by an order, as the world that did has signed, leaves a bundle true
// and is said; everything beyond that is missing as ever.
func TestWhatWasLeftOutIsSaid(t *testing.T) {
	home, former, o := movedScene(t, 4)
	r := leftOutOf(t, home, former, &o, 3, 6)
	o.Left = r.words(t, 1)
	is := verify(t, home.write(o), nil)
	want(t, is, True)
	if len(is.LeftOut) != 1 || is.LeftOut[0].Batches != 2 || is.LeftOut[0].Measurements != r.Runs[0].Measurements || !strings.Contains(is.Summary(), "by its owner's order of") || !strings.Contains(is.Explain(), "names the order by its hash") {
		t.Errorf("left out: %+v\n%s", is.LeftOut, is.Summary())
	}
	for what, spoil := range map[string]func(*Redaction){
		"fewer batches":      func(r *Redaction) { r.Runs[0].Batches-- },
		"more batches":       func(r *Redaction) { r.Runs[0].Batches++ },
		"fewer measurements": func(r *Redaction) { r.Runs[0].Measurements-- },
		"more measurements":  func(r *Redaction) { r.Runs[0].Measurements++ },
		"others":             func(r *Redaction) { r.Runs[0].From++ },
	} {
		wrong := r
		wrong.Runs = slices.Clone(r.Runs)
		spoil(&wrong)
		o.Left = wrong.words(t, 1)
		if is := verify(t, home.write(o), nil); is.Verdict != False || len(is.LeftOut) != 0 && what != "others" {
			t.Errorf("%s said to be left out: %s\n%s", what, is.Verdict, is.Summary())
		}
	}
	// Of those that couldn't be opened nobody counted the measurements.
	closed := r
	closed.Runs = slices.Clone(r.Runs)
	closed.Runs[0].Closed, closed.Runs[0].Measurements = 1, r.Runs[0].Measurements/2
	o.Left = closed.words(t, 1)
	want(t, verify(t, home.write(o), nil), True)
	// The home leaves out one more, in the midst of what was left out.
	o.Left = r.words(t, 1)
	home.frames = slices.Delete(home.frames, 4, 5)
	want(t, verify(t, home.write(o), nil), False, "left out by the owner's order")
}

// A word that another key signed, of another stream, or of a world that isn't trusted,
// isn't believed.
func TestForgedRedactions(t *testing.T) {
	home, former, o := movedScene(t, 4)
	r := leftOutOf(t, home, former, &o, 3)
	own := r
	own.World = home.trust().Worlds[0]
	own.World.Party = "arena"
	pinned := home.trust()
	theirs := former.trust()
	pinned.Join(&theirs)
	alone, third := home.trust(), r
	third.World = World{Party: "forge", Key: PublicKey(seed(7).Public().(ed25519.PublicKey))}
	for what, c := range map[string]struct {
		words   map[carnet.StreamID][][]byte
		trust   *Trust
		verdict Verdict
		says    string
	}{
		"of the home's own, in the other's name": {own.words(t, 2), &pinned, False, "arena"},
		"of a world that isn't trusted":          {third.words(t, 7), &pinned, Unknown, "no key of the world forge"},
		"of the other, which isn't trusted":      {r.words(t, 1), &alone, Unknown, "no key of the world arena"},
		"of the other":                           {r.words(t, 1), nil, True, "so signed arena"},
	} {
		o.Left = c.words
		if is := verify(t, home.write(o), c.trust); is.Verdict != c.verdict || !strings.Contains(is.Summary(), c.says) {
			t.Errorf("%s: %s", what, is.Summary())
		}
	}
	word := r.words(t, 1)[r.Stream][0]
	for at := range word {
		bad := slices.Clone(word)
		bad[at] ^= 1
		if _, err := OpenRedaction(bad); err == nil {
			t.Fatalf("a word with another byte %d is read", at)
		}
	}
	if _, err := OpenRedaction(r.words(t, 2)[r.Stream][0]); err == nil {
		t.Error("a word by another key than it names is read")
	}
	o.Left = map[carnet.StreamID][][]byte{former.courses[2].id: {word}}
	if _, err := Write(t.Context(), t.TempDir(), home, o); carnet.CodeOf(err) != carnet.Tampered {
		t.Errorf("a word of another stream is written: %v", err)
	}
}

// Numbers that are missing are shared out between an order and retention.
func TestGaps(t *testing.T) {
	left := []*Redaction{{Runs: []Run{{From: 10, To: 19, Batches: 4, Measurements: 8}}}}
	over := []Over{{Class: carnet.Day, From: 15, To: 30}}
	for what, c := range map[string]struct {
		take    []Range
		ended   uint64
		missing int
		wrong   bool
	}{
		"all by the order":        {[]Range{{10, 13}}, 0, 0, false},
		"some by either":          {[]Range{{12, 16}}, 1, 0, false},
		"by retention, too":       {[]Range{{13, 14}, {18, 22}}, 3, 0, false},
		"beyond both":             {[]Range{{9, 13}}, 0, 1, false},
		"more than the order has": {[]Range{{10, 14}}, 0, 0, true},
		"less than it has":        {[]Range{{10, 12}}, 0, 0, true},
	} {
		g := NewGaps(over, left)
		missing := 0
		for _, r := range c.take {
			missing += len(g.Take(r, -1))
		}
		if n, _ := g.Ended(); n != c.ended || missing != c.missing || (g.Wrong() != "") != c.wrong {
			t.Errorf("%s: %d by retention, %d missing, %q; want %d, %d, %t", what, n, missing, g.Wrong(), c.ended, c.missing, c.wrong)
		}
	}
}
