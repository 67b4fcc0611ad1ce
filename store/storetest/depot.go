package storetest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"carnet"
	"carnet/depot"
	"carnet/ledger"
)

// Depot is the suite for depot.Store.
func Depot(t *testing.T, fresh Fresh[depot.Store]) {
	t.Run("Objects", func(t *testing.T) { testObjects(t, fresh) })
	t.Run("Delete", func(t *testing.T) { testDeleteObject(t, fresh) })
	t.Run("Index", func(t *testing.T) { testIndex(t, fresh) })
	t.Run("Random", func(t *testing.T) {
		for seed := range uint64(seeds) {
			t.Run(fmt.Sprint(seed), func(t *testing.T) { randomDepot(t, fresh(t), rand.New(rand.NewPCG(seed, 3))) })
		}
	})
}

func object(owner carnet.PartyID, n int) depot.Object {
	f := carnet.FingerprintOf([]byte{byte(n), byte(n >> 8)})
	f[0] = byte(n) // the order of fingerprints is that of numbers, 0x80 and above included
	return depot.Object{Fingerprint: f, Owner: owner, Size: int64(n) << 32, Time: time.UnixMicro(1_700_000_000_123_456 + int64(n)), Retention: carnet.Day}
}

func testObjects(t *testing.T, fresh Fresh[depot.Store]) {
	ctx := t.Context()
	db := fresh(t)
	s, close := db(t)
	for _, n := range []int{200, 3, 127, 128, 0} {
		must(t, s.PutObject(ctx, object("arena", n)))
	}
	must(t, s.PutObject(ctx, object("clinic", 3)))
	later := object("arena", 3)
	later.Time, later.Retention = later.Time.Add(time.Hour), carnet.Year
	must(t, s.PutObject(ctx, later))
	shorter := object("arena", 127)
	shorter.Retention = carnet.Hour
	must(t, s.PutObject(ctx, shorter))
	if s.PutObject(cancelled(), object("arena", 9)) == nil {
		t.Fatal("a call whose context had ended said that it was done")
	}
	close()
	s = open(t, db)
	want := []depot.Object{object("arena", 0), object("arena", 3), object("arena", 127), object("arena", 128), object("arena", 200)}
	want[1].Retention = carnet.Year
	same(t, "objects", get(s.Objects(ctx, "arena", carnet.Fingerprint{}, 99))(t), want)
	same(t, "objects after the second, at most 2", get(s.Objects(ctx, "arena", want[1].Fingerprint, 2))(t), want[2:4])
	same(t, "no objects", get(s.Objects(ctx, "Arena", carnet.Fingerprint{}, 99))(t), want[5:])
	same(t, "object", get(s.Object(ctx, "clinic", want[1].Fingerprint))(t), object("clinic", 3))
	_, err := s.Object(ctx, "clinic", want[0].Fingerprint)
	wantCode(t, err, carnet.NotFound)
	_, err = s.Object(ctx, "Clinic", want[1].Fingerprint)
	wantCode(t, err, carnet.NotFound)
	same(t, "totals", get(s.Totals(ctx, "arena"))(t), depot.Totals{Objects: 5, Bytes: (200 + 3 + 127 + 128) << 32})
	same(t, "everybody's totals", get(s.Totals(ctx, ""))(t), depot.Totals{Objects: 6, Bytes: (200 + 3 + 127 + 128 + 3) << 32})
	same(t, "nobody's totals", get(s.Totals(ctx, "nobody"))(t), depot.Totals{})
}

func testDeleteObject(t *testing.T, fresh Fresh[depot.Store]) {
	ctx := t.Context()
	s := open(t, fresh(t))
	for _, owner := range []carnet.PartyID{"arena", "clinic", "citadel"} {
		must(t, s.PutObject(ctx, object(owner, 1)))
	}
	must(t, s.PutObject(ctx, object("arena", 2)))
	f := object("", 1).Fingerprint
	ask := []carnet.Fingerprint{object("", 3).Fingerprint, f, object("", 2).Fingerprint, {}}
	same(t, "unowned", get(s.Unowned(ctx, ask))(t), []carnet.Fingerprint{ask[0], ask[3]})
	same(t, "unowned of none", get(s.Unowned(ctx, nil))(t), []carnet.Fingerprint{})
	same(t, "others", get(s.DeleteObject(ctx, "clinic", f))(t), 2)
	_, err := s.DeleteObject(ctx, "clinic", f)
	wantCode(t, err, carnet.NotFound)
	same(t, "others", get(s.DeleteObject(ctx, "arena", f))(t), 1)
	same(t, "others", get(s.DeleteObject(ctx, "citadel", f))(t), 0)
	same(t, "unowned", get(s.Unowned(ctx, ask))(t), []carnet.Fingerprint{ask[0], ask[1], ask[3]})
	same(t, "totals", get(s.Totals(ctx, ""))(t), depot.Totals{Objects: 1, Bytes: 2 << 32})
}

func entries(from, to int) (list []ledger.Entry) {
	for i := from; i < to; i++ {
		list = append(list, ledger.Entry(carnet.FingerprintOf([]byte{byte(i), byte(i >> 8), 'e'})))
	}
	return list
}

func testIndex(t *testing.T, fresh Fresh[depot.Store]) {
	ctx := t.Context()
	db := fresh(t)
	s, close := db(t)
	same(t, "leaves of a new index", get(s.Indexed(ctx))(t), uint64(0))
	must(t, s.Record(ctx, 0, entries(0, 700)))
	must(t, s.Record(ctx, 700, append(entries(5, 6), entries(700, 702)...)))                                   // the first is known
	must(t, s.Record(ctx, 703, append(entries(800, 801), append(entries(801, 802), entries(800, 801)...)...))) // one twice
	must(t, s.Record(ctx, 706, nil))
	if s.Record(cancelled(), 706, entries(900, 901)) == nil {
		t.Fatal("a call whose context had ended said that it was done")
	}
	close()
	s = open(t, db)
	same(t, "leaves", get(s.Indexed(ctx))(t), uint64(706))
	want := make(map[ledger.Entry]uint64)
	for i, e := range entries(0, 700) {
		want[e] = uint64(i)
	}
	want[entries(700, 701)[0]], want[entries(701, 702)[0]] = 701, 702
	want[entries(800, 801)[0]], want[entries(801, 802)[0]] = 703, 704
	same(t, "found", get(s.Lookup(ctx, entries(0, 1000)))(t), want)
	same(t, "found of none", get(s.Lookup(ctx, nil))(t), map[ledger.Entry]uint64{})
	wantCode(t, s.Record(ctx, outside-1, entries(0, 1)), carnet.TooLarge)
	must(t, s.Record(ctx, outside-2, entries(950, 951)))
	same(t, "leaves", get(s.Indexed(ctx))(t), outside-1)
}

// randomDepot compares a store with a plain list of objects.
func randomDepot(t *testing.T, db Database[depot.Store], r *rand.Rand) {
	ctx := t.Context()
	s := open(t, db)
	owners := []carnet.PartyID{"arena", "clinic", "citadel"}
	var model []depot.Object
	for range 150 {
		o := object(owners[r.IntN(3)], r.IntN(20))
		at := slices.IndexFunc(model, func(m depot.Object) bool { return m.Owner == o.Owner && m.Fingerprint == o.Fingerprint })
		if r.IntN(3) > 0 {
			o.Retention = carnet.Hour + carnet.Retention(r.IntN(5))
			must(t, s.PutObject(ctx, o))
			if at < 0 {
				model = append(model, o)
			} else {
				model[at].Retention = max(model[at].Retention, o.Retention)
			}
		} else {
			others, err := s.DeleteObject(ctx, o.Owner, o.Fingerprint)
			if at < 0 {
				wantCode(t, err, carnet.NotFound)
				continue
			}
			model = slices.Delete(model, at, at+1)
			same(t, "others", get(others, err)(t), count(model, func(m depot.Object) bool { return m.Fingerprint == o.Fingerprint }))
		}
	}
	for _, owner := range owners {
		var want []depot.Object
		var n depot.Totals
		for _, o := range model {
			if o.Owner == owner {
				want = append(want, o)
				n.Objects++
				n.Bytes += o.Size
			}
		}
		slices.SortFunc(want, func(a, b depot.Object) int { return bytes.Compare(a.Fingerprint[:], b.Fingerprint[:]) })
		same(t, "objects", get(s.Objects(ctx, owner, carnet.Fingerprint{}, 99))(t), want)
		same(t, "totals", get(s.Totals(ctx, owner))(t), n)
	}
}

func count[T any](list []T, is func(T) bool) (n int) {
	for _, v := range list {
		if is(v) {
			n++
		}
	}
	return n
}
