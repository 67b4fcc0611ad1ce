package audit

import (
	"context"
	"testing"
	"time"

	"carnet"
)

// TestAMappingThatFollowsAnother goes on with the memory of the one before, from
// where it begins, under views that have a count of their own.
func TestAMappingThatFollowsAnother(t *testing.T) {
	const second = int64(time.Second)
	beat := []Property{{Name: "heart_rate", Unit: "beat/min", Kind: carnet.Number, Admit: true}}
	rate := func(version, since uint64, text string, stopped bool) ViewVersion {
		return ViewVersion{Version: version, View: []byte(text), Properties: beat, Since: map[int64]uint64{0: since}, Stopped: stopped}
	}
	measured := func(i int64) carnet.Measurement {
		return carnet.Measurement{Name: "heart_rate", Unit: "beat/min", Time: i * 4 * second, Value: carnet.Float(float64(i))}
	}
	log := func(_ context.Context, from uint64, do func(Message) error) error {
		for i := int64(0); i < 10; i++ {
			if p := uint64(i + 1); p >= from {
				if err := do(Message{p, []carnet.Measurement{measured(i)}}); err != nil {
					return err
				}
			}
		}
		return nil
	}
	holds := func(of ...int64) Holdings {
		return func(_ context.Context, do func(Held) error) error {
			for n, i := range of {
				if err := do(Held{uint64(n), measured(i)}); err != nil {
					return err
				}
			}
			return nil
		}
	}
	// Of 0 4 8 … 36 s one in 10 s is admitted: numbers 0, 3, 5, 8. The avatar moves
	// before position 5; its source decided on, under a wider view.
	ten := `{"properties":{"heart_rate":{"rate":"10s"}}}`
	before := Part{Moved: 2, Held: holds(0, 3), Config: Config{From: 1, Views: []ViewVersion{
		rate(7, 1, ten, false), rate(8, 6, `{"properties":{"heart_rate":{}}}`, false), rate(9, 5, ten, true),
	}}}
	after := func(of ...int64) Part {
		return Part{Held: holds(of...), Config: Config{From: 5, Views: []ViewVersion{rate(2, 5, ten, false)}}}
	}
	for name, c := range map[string]struct {
		parts []Part
		want  Result
	}{
		"as it should be":                 {[]Part{before, after(5, 8)}, Result{Expected: 4, Held: 4}},
		"one lost":                        {[]Part{before, after(8)}, Result{Expected: 4, Held: 3, Lost: 1}},
		"one that moved is sent again":    {[]Part{before, after(3, 5, 8)}, Result{Expected: 4, Held: 5, Doubled: 1}},
		"memory that begins anew":         {[]Part{before, after(4, 5, 8)}, Result{Expected: 4, Held: 5, Extra: 1}},
		"held beyond what moved":          {[]Part{{Moved: 1, Held: before.Held, Config: before.Config}, after(5, 8)}, Result{Expected: 4, Held: 4, Lost: 1, Doubled: 1}},
		"the first alone, to where it is": {[]Part{before}, Result{Expected: 2, Held: 2}},
	} {
		cfg, held, err := Chain(c.parts...)
		if err != nil {
			t.Fatal(err)
		}
		o, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		got, err := o.Audit(t.Context(), log, held)
		if err != nil {
			t.Fatal(err)
		}
		if got.Examples = (Examples{}); got.Expected != c.want.Expected || got.Held != c.want.Held || got.Lost != c.want.Lost || got.Doubled != c.want.Doubled || got.Extra != c.want.Extra {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
	if _, _, err := Chain(); err == nil {
		t.Error("nothing is chained")
	}
}
