package shelf

import (
	"crypto/ed25519"
	"testing"
	"time"

	"carnet"
)

func key(of byte) ed25519.PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	seed[0] = of
	return ed25519.NewKeyFromSeed(seed)
}

func named(of byte) string { return Name(key(of).Public().(ed25519.PublicKey)) }

func object(n byte, last uint64) Object { return Object{carnet.FingerprintOf([]byte{n}), last} }

func sign(t *testing.T, change func(*Index), objects ...Object) (Signed, error) {
	t.Helper()
	i := Index{Taker: named(2), Incarnation: 4, Serial: 7, First: 18, Time: 100, Until: 200}
	if change != nil {
		change(&i)
	}
	return Sign(key(1), i, objects)
}

// What was signed is read by the taker that it names, of the giver that signed it, with
// the list that it signed.
func TestAnIndexIsReadAsItWasSigned(t *testing.T) {
	s, err := sign(t, nil, object(1, 19), object(2, 25))
	if err != nil {
		t.Fatal(err)
	}
	i, err := s.Open(named(1), named(2))
	if err != nil || i.Objects != 2 || i.Last != 25 || i.First != 18 || i.Serial != 7 {
		t.Errorf("%+v, %v", i, err)
	}
	for name, c := range map[string]struct {
		change       func(*Signed)
		giver, taker byte
		code         carnet.Code
	}{
		"another giver":         {nil, 3, 2, carnet.Malformed},
		"another taker":         {nil, 1, 3, carnet.Forbidden},
		"objects in other turn": {func(s *Signed) { s.Objects = []Object{s.Objects[1], s.Objects[0]} }, 1, 2, carnet.Tampered},
		"an object left out":    {func(s *Signed) { s.Objects = s.Objects[:1] }, 1, 2, carnet.Tampered},
		"another frame":         {func(s *Signed) { s.Objects = []Object{s.Objects[0], {s.Objects[1].Fingerprint, 26}} }, 1, 2, carnet.Tampered},
		"no objects":            {func(s *Signed) { s.Objects = nil }, 1, 2, carnet.TooLarge},
		"a changed signature":   {func(s *Signed) { s.Index = s.Index[:len(s.Index)-8] + "AAAAAAAA" }, 1, 2, carnet.Unauthenticated},
	} {
		changed := s
		if c.change != nil {
			c.change(&changed)
		}
		if _, err := changed.Open(named(c.giver), named(c.taker)); carnet.CodeOf(err) != c.code {
			t.Errorf("%s: %v, want %s", name, err, c.code)
		}
	}
	for name, change := range map[string]func(*Index){
		"no connection": func(i *Index) { i.Incarnation = 0 }, "no serial": func(i *Index) { i.Serial = 0 },
		"an end before its time": func(i *Index) { i.Until = 100 }, "no first frame": func(i *Index) { i.First = 0 },
		"a first frame behind the last": func(i *Index) { i.First = 20 }, "nobody to read it": func(i *Index) { i.Taker = "citadel" },
	} {
		if _, err := sign(t, change, object(1, 19)); err == nil {
			t.Errorf("%s is signed", name)
		}
	}
	if _, err := sign(t, nil, object(1, 25), object(2, 25)); err == nil {
		t.Error("an object without a frame is signed")
	}
}

func TestRulesOfIndexes(t *testing.T) {
	i := Index{Incarnation: 4, Serial: 7, First: 18, Last: 25, Until: 200}
	with := func(change func(*Index)) *Index {
		n := i
		change(&n)
		return &n
	}
	for name, c := range map[string]struct {
		before *Index
		ok     bool
	}{
		"none":                    {nil, true},
		"the same":                {with(func(*Index) {}), true},
		"the one before":          {with(func(i *Index) { i.Serial--; i.Last-- }), true},
		"another with its serial": {with(func(i *Index) { i.Last-- }), false},
		"a later one":             {with(func(i *Index) { i.Serial++ }), false},
		"of a connection before":  {with(func(i *Index) { i.Incarnation--; i.Serial = 99 }), true},
		"of a later connection":   {with(func(i *Index) { i.Incarnation++; i.Serial = 1 }), false},
	} {
		if err := i.Follows(c.before); (err == nil) != c.ok {
			t.Errorf("follows %s: %v", name, err)
		}
	}
	for name, c := range map[string]struct {
		known Known
		now   int64
		want  Use
	}{
		"it has more":             {Known{4, 20, 7}, 199, Read},
		"all is here":             {Known{4, 25, 0}, 199, Nothing},
		"the giver has connected": {Known{5, 20, 0}, 199, Superseded},
		"the taker was restored":  {Known{3, 20, 0}, 199, Unheard},
		"a newer one was seen":    {Known{4, 20, 8}, 199, Older},
		"its time has passed":     {Known{4, 20, 7}, 200, Over},
	} {
		if got := i.Judge(c.known, time.Unix(c.now, 0)); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
	first := Index{Incarnation: 4, Serial: 1, First: 18, Last: 25, Until: 200}
	for name, c := range map[string]struct {
		own, depot *Index
		want       Standing
	}{
		"the same":                     {&i, with(func(*Index) {}), GoOn},
		"the one before":               {&i, with(func(i *Index) { i.Serial--; i.Last = 20 }), PutAgain},
		"one before, and further":      {&i, with(func(i *Index) { i.Serial-- }), Withdraw},
		"a later one":                  {&i, with(func(i *Index) { i.Serial++ }), Withdraw},
		"two before":                   {&i, with(func(i *Index) { i.Serial -= 2 }), Withdraw},
		"none":                         {&i, nil, Withdraw},
		"none, before the first":       {&first, nil, PutAgain},
		"of another connection before": {&i, with(func(i *Index) { i.Incarnation--; i.Serial--; i.Last = 20 }), Withdraw},
	} {
		if got := c.own.Stands(c.depot); got != c.want {
			t.Errorf("%s at the depot: %d, want %d", name, got, c.want)
		}
	}
}
