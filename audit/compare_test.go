package audit_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"carnet"
	"carnet/audit"

	"pgregory.net/rapid"
)

// run is a sender that was faithful for an hour: heart rate to the nearest 5 at
// most once in 2 s, steps whenever they change by 3, the position to 1 km.
func run(t tester) *sender {
	d, lingers := watch()
	s := newSender(t, d, lingers, openDoor, everything)
	s.setView(t, []byte(arenaView), false, true)
	for i := range 3600 {
		at := int64(i) * 1e9
		ms := []carnet.Measurement{
			{Name: "heart_rate", Time: at, Value: carnet.Float(60 + float64(i*7919%90))},
			{Name: "steps", Time: at, Value: carnet.Float(float64(i * i % 101))},
		}
		if i%10 == 0 {
			ms = append(ms, carnet.Measurement{Name: "position/lat", Time: at, Value: carnet.Float(59 + float64(i)/1000)},
				carnet.Measurement{Name: "position/lon", Time: at, Value: carnet.Float(10 + float64(i)/1000)})
		}
		s.receive(ms)
		if i%5 == 4 {
			s.decide(t, 0)
		}
		if i%37 == 36 {
			s.decide(t, 1000)
		}
	}
	s.decide(t, 0)
	s.decide(t, 1000)
	return s
}

const arenaView = `{"properties":{"heart_rate":{"round":5,"rate":"2s"},"steps":{"deadband":3},"position":{"precision_m":1000}}}`

func (s *sender) audit(t tester, held []audit.Held) audit.Result {
	t.Helper()
	r, err := s.oracle(t, 1, nil).Audit(context.Background(), s.messages, holdings(held))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// renumber gives what a sender sends its numbers.
func renumber(held []audit.Held) []audit.Held {
	for i := range held {
		held[i].Number = uint64(i)
	}
	return held
}

func heartRates(held []audit.Held) (at []int) {
	for i, h := range held {
		if h.Measurement.Name == "heart_rate" {
			at = append(at, i)
		}
	}
	return at
}

func TestUnfaithfulSendersAreCaught(t *testing.T) {
	type faults struct{ lost, doubled, extra, reordered int }
	for name, test := range map[string]struct {
		spoil func(t *testing.T, s *sender) []audit.Held
		want  faults
		says  string // in an example
	}{
		"faithful": {func(_ *testing.T, s *sender) []audit.Held { return s.now.sent }, faults{}, ""},
		"drops one and hides it": {func(_ *testing.T, s *sender) []audit.Held {
			return renumber(slices.Delete(s.now.sent, 1000, 1001))
		}, faults{lost: 1}, "is admitted and not held"},
		"drops the last ones": {func(_ *testing.T, s *sender) []audit.Held {
			return s.now.sent[:len(s.now.sent)-7]
		}, faults{lost: 7}, "is admitted and not held"},
		"sends nothing": {func(*testing.T, *sender) []audit.Held { return nil }, faults{lost: 5941}, "is admitted and not held"},
		"sends a batch twice": {func(_ *testing.T, s *sender) []audit.Held {
			return slices.Insert(s.now.sent, 1010, slices.Clone(s.now.sent[1000:1010])...)
		}, faults{doubled: 10}, "which is held already"},
		"sends measurements twice under new numbers": {func(_ *testing.T, s *sender) []audit.Held {
			return renumber(slices.Insert(s.now.sent, 1010, slices.Clone(s.now.sent[1000:1010])...))
		}, faults{doubled: 10}, "is held as number 1010 of the stream, but 1 times were admitted"},
		"gives two measurements one number": {func(_ *testing.T, s *sender) []audit.Held {
			s.now.sent[1001].Number = s.now.sent[1000].Number
			return s.now.sent
		}, faults{doubled: 1, lost: 1}, "which is held already"},
		"swaps two of a property, with their numbers": {func(_ *testing.T, s *sender) []audit.Held {
			at := heartRates(s.now.sent)[100:]
			s.now.sent[at[0]], s.now.sent[at[1]] = s.now.sent[at[1]], s.now.sent[at[0]]
			return s.now.sent
		}, faults{reordered: 4}, "after higher ones"},
		"swaps two of a property and numbers them anew": {func(_ *testing.T, s *sender) []audit.Held {
			at := heartRates(s.now.sent)[100:]
			s.now.sent[at[0]], s.now.sent[at[1]] = s.now.sent[at[1]], s.now.sent[at[0]]
			return renumber(s.now.sent)
		}, faults{reordered: 1}, "comes next in the log"},
		"changes a value by one bit of its fraction": {func(_ *testing.T, s *sender) []audit.Held {
			s.now.sent[1000].Measurement.Value.Num += 1e-9
			return s.now.sent
		}, faults{lost: 1, extra: 1}, "and not admitted"},
		"turns a number into a boolean": {func(_ *testing.T, s *sender) []audit.Held {
			i := slices.IndexFunc(s.now.sent, func(h audit.Held) bool { return h.Measurement.Name == "steps" && h.Measurement.Value.Num == 1 })
			s.now.sent[i].Measurement.Value = carnet.Bool(true)
			return s.now.sent
		}, faults{lost: 1, extra: 1}, "and not admitted"},
		"changes a time": {func(_ *testing.T, s *sender) []audit.Held {
			s.now.sent[1000].Measurement.Time++
			return s.now.sent
		}, faults{lost: 1, extra: 1}, "and not admitted"},
		"changes a unit": {func(_ *testing.T, s *sender) []audit.Held {
			s.now.sent[1000].Measurement.Unit = "K"
			return s.now.sent
		}, faults{lost: 1, extra: 1}, "and not admitted"},
		"sends a property that the view withholds": {func(_ *testing.T, s *sender) []audit.Held {
			alt := carnet.Measurement{Name: "position/alt", Unit: "m", Time: 5, Value: carnet.Float(9)}
			return append(s.now.sent, audit.Held{Number: uint64(len(s.now.sent)), Measurement: alt})
		}, faults{extra: 1}, "position/alt 9 of 1970-01-01T00:00:00.000000005Z"},
	} {
		t.Run(name, func(t *testing.T) {
			s := run(t)
			all := len(s.now.sent)
			r := s.audit(t, test.spoil(t, s))
			if got := (faults{r.Lost, r.Doubled, r.Extra, r.Reordered}); got != test.want || r.Expected != all {
				t.Errorf("%+v, want %+v of %d", r, test.want, all)
			}
			e := r.Examples
			said := slices.Concat(e.Lost, e.Doubled, e.Extra, e.Reordered)
			if test.says != "" && !slices.ContainsFunc(said, func(s string) bool { return strings.Contains(s, test.says) }) {
				t.Errorf("%q should say %q", said, test.says)
			}
		})
	}
}

// A sender that decides under another view than the recorded one, or not in the
// order of its log, holds the right numbers of the wrong measurements.
func TestSendersThatDecideOtherwiseAreCaught(t *testing.T) {
	for name, test := range map[string]struct {
		view    string
		reorder bool
		extra   bool
		lost    bool
	}{
		"a coarser rate":              {view: `{"properties":{"heart_rate":{"round":5,"rate":"4s"},"steps":{"deadband":3},"position":{"precision_m":1000}}}`, lost: true},
		"no rate":                     {view: `{"properties":{"heart_rate":{"round":5},"steps":{"deadband":3},"position":{"precision_m":1000}}}`, extra: true},
		"finer values":                {view: `{"properties":{"heart_rate":{"round":1,"rate":"2s"},"steps":{"deadband":3},"position":{"precision_m":1000}}}`, extra: true, lost: true},
		"finer places":                {view: `{"properties":{"heart_rate":{"round":5,"rate":"2s"},"steps":{"deadband":3},"position":{"precision_m":100}}}`, extra: true, lost: true},
		"a smaller deadband":          {view: `{"properties":{"heart_rate":{"round":5,"rate":"2s"},"steps":{"deadband":1},"position":{"precision_m":1000}}}`, extra: true},
		"one property more":           {view: `{"properties":{"heart_rate":{"round":5,"rate":"2s"},"steps":{"deadband":3},"position":{}}}`, extra: true, lost: true},
		"in another order than times": {view: arenaView, reorder: true, extra: true, lost: true},
	} {
		t.Run(name, func(t *testing.T) {
			faithful := run(t)
			d, lingers := watch()
			other := newSender(t, d, lingers, openDoor, everything)
			other.setView(t, []byte(test.view), false, true)
			other.log = slices.Clone(faithful.log)
			if test.reorder {
				for i := 0; i+1 < len(other.log); i += 2 {
					other.log[i], other.log[i+1] = other.log[i+1], other.log[i]
				}
			}
			other.decide(t, 0)
			other.decide(t, 1000)
			r := faithful.audit(t, other.now.sent)
			if r.Extra > 0 != test.extra || r.Lost > 0 != test.lost || r.Doubled != 0 {
				t.Errorf("%+v", r)
			}
			if len(r.Examples.Extra) > 5 || len(r.Examples.Lost) > 5 {
				t.Errorf("%d and %d examples, want 5 at most", len(r.Examples.Extra), len(r.Examples.Lost))
			}
		})
	}
}

func TestWhatIsNotDueIsNotMissed(t *testing.T) {
	s := run(t)
	half := make([]audit.Held, 0, len(s.now.sent))
	upto := map[int64]uint64{0: 1800, 1000: 1200}
	for _, h := range s.now.sent { // in this run a measurement's position is its second, plus one
		lane := map[bool]int64{true: 1000, false: 0}[strings.HasPrefix(h.Measurement.Name, "position")]
		if uint64(h.Measurement.Time/1e9)+1 < upto[lane]+90 {
			half = append(half, h)
		}
	}
	r, err := s.oracle(t, 1, upto).Audit(context.Background(), s.messages, holdings(renumber(half)))
	if err != nil || r.Faults() != 0 || r.Expected >= r.Held {
		t.Errorf("a world that is ahead of what is due: %+v, %v", r, err)
	}
	upto[0] += 100
	r, err = s.oracle(t, 1, upto).Audit(context.Background(), s.messages, holdings(half))
	if err != nil || r.Lost == 0 || r.Extra+r.Doubled+r.Reordered != 0 {
		t.Errorf("a world that is behind what is due: %+v, %v", r, err)
	}
}

// TestCompareCounts holds Compare against a multiset counted in the plain way,
// whichever side leads.
func TestCompareCounts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.IntRange(0, 6), 0, 25)
		may, have := values.Draw(t, "admitted"), values.Draw(t, "held")
		due := rapid.IntRange(0, len(may)).Draw(t, "due")
		count := func(vs []int) map[int]int {
			n := make(map[int]int)
			for _, v := range vs {
				n[v]++
			}
			return n
		}
		must, all, has := count(may[:due]), count(may), count(have)
		var lost, doubled, extra int
		for v := range 7 {
			lost += max(0, must[v]-has[v])
			if over := max(0, has[v]-all[v]); all[v] > 0 {
				doubled += over
			} else {
				extra += over
			}
		}
		measurement := func(v int) carnet.Measurement {
			return carnet.Measurement{Name: "p", Value: carnet.String(fmt.Sprint(v))}
		}
		admitted := func(_ context.Context, do func(audit.Admitted) error) error {
			for i, v := range may {
				if err := do(audit.Admitted{Position: uint64(i), Due: i < due, Measurement: measurement(v)}); err != nil {
					return err
				}
			}
			return nil
		}
		var held []audit.Held
		for _, v := range have {
			held = append(held, audit.Held{Measurement: measurement(v)})
		}
		r, err := audit.Compare(context.Background(), admitted, holdings(renumber(held)))
		if err != nil || r.Expected != due || r.Held != len(have) || r.Lost != lost || r.Doubled != doubled || r.Extra != extra {
			t.Fatalf("%+v, %v; want lost %d, doubled %d, extra %d", r, err, lost, doubled, extra)
		}
		inOrder := len(have) >= due && len(have) <= len(may) && slices.Equal(have, may[:len(have)])
		if lost+doubled+extra == 0 && inOrder && r.Reordered != 0 || !inOrder && r.Faults() == 0 {
			t.Fatalf("%+v; in order: %v", r, inOrder)
		}
	})
}

func TestErrorsOfEitherSideEndTheAudit(t *testing.T) {
	s := run(t)
	broken := errors.New("the disk is gone")
	log := func(ctx context.Context, from uint64, do func(audit.Message) error) error {
		if err := s.messages(ctx, from, do); err != nil {
			return err
		}
		return broken
	}
	held := func(ctx context.Context, do func(audit.Held) error) error {
		if err := holdings(s.now.sent[:2000])(ctx, do); err != nil {
			return err
		}
		return broken
	}
	o := s.oracle(t, 1, nil)
	if _, err := o.Audit(context.Background(), log, holdings(s.now.sent)); !errors.Is(err, broken) {
		t.Errorf("a broken log: %v", err)
	}
	if _, err := o.Audit(context.Background(), s.messages, held); !errors.Is(err, broken) {
		t.Errorf("broken holdings: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := o.Audit(ctx, s.messages, holdings(s.now.sent)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestLogsAndHistoriesThatCantBeAreRefused(t *testing.T) {
	good := run(t).views[0]
	for name, spoil := range map[string]func(*audit.Config){
		"no view":                   func(c *audit.Config) { c.Views = nil },
		"a version twice":           func(c *audit.Config) { c.Views = append(c.Views, good) },
		"a view that isn't one":     func(c *audit.Config) { c.Views[0].View = []byte(`{}`) },
		"no beginning for a lane":   func(c *audit.Config) { c.Views[0].Since = map[int64]uint64{0: 1} },
		"a property twice":          func(c *audit.Config) { c.Views[0].Properties[1].Name = "heart_rate" },
		"a property without a kind": func(c *audit.Config) { c.Views[0].Properties[1].Kind = 0 },
		"an object in two lanes":    func(c *audit.Config) { c.Views[0].Properties[3].Linger = 0 },
		"a view of something else": func(c *audit.Config) {
			other := good
			other.Version++
			other.Properties = good.Properties[1:]
			c.Views = append(c.Views, other)
		},
	} {
		cfg := audit.Config{From: 1, Views: []audit.ViewVersion{good}}
		cfg.Views[0].Properties = slices.Clone(good.Properties)
		spoil(&cfg)
		if _, err := audit.New(cfg); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	s := run(t)
	o := s.oracle(t, 1, nil)
	for name, log := range map[string][]audit.Message{
		"a position twice":    {s.log[0], s.log[0]},
		"backwards":           {s.log[1], s.log[0]},
		"an unknown property": {{Position: 1, Measurements: []carnet.Measurement{{Name: "speed"}}}},
	} {
		s.log = log
		if err := o.Recompute(context.Background(), s.messages, func(audit.Admitted) error { return nil }); err == nil {
			t.Errorf("a log with %s is taken", name)
		}
	}
}

func BenchmarkAudit(b *testing.B) {
	s := run(b)
	o := s.oracle(b, 1, nil)
	in := 0
	for _, m := range s.log {
		in += len(m.Measurements)
	}
	b.ReportAllocs()
	for b.Loop() {
		if r, err := o.Audit(context.Background(), s.messages, holdings(s.now.sent)); err != nil || r.Faults() != 0 {
			b.Fatal(r, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed())/float64(b.N)/float64(in), "ns/measurement")
}
