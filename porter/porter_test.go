package porter

import (
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"testing"
)

func from(ip string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: 1} }

// An address has so many places, and there are so many in all; none of them is left
// twice.
func TestPlaces(t *testing.T) {
	p := New(5, 2)
	enter := func(addr net.Addr, want bool) *Place {
		t.Helper()
		place, ok := p.Enter(addr, func() { t.Errorf("%v is put out", addr) })
		if ok != want {
			t.Errorf("%v is let in: %t", addr, ok)
		}
		if ok {
			place.Keep()
		}
		return place
	}
	first := enter(from("192.0.2.1"), true)
	enter(from("::ffff:192.0.2.1"), true) // the same address
	enter(from("192.0.2.1"), false)
	enter(from("2001:db8:1:1::1"), true)
	enter(from("2001:db8:1:1:ffff::1"), true) // the same subscriber
	enter(from("2001:db8:1:1::2"), false)
	last := enter(from("2001:db8:1:2::1"), true)
	enter(from("192.0.2.2"), false) // there is no place at all
	first.Leave()
	first.Leave() // gives one place back, not two
	first.Wait()
	first.Settle()
	enter(from("192.0.2.1"), true)
	enter(from("192.0.2.1"), false)
	last.Leave()
	pipe, other := net.Pipe()
	defer pipe.Close()
	defer other.Close()
	enter(pipe.RemoteAddr(), true)
	if p.inside != 5 || len(p.from) != 3 || len(p.crowds) != 0 {
		t.Errorf("%d are inside, from %v, and somebody waits at %v", p.inside, p.from, p.crowds)
	}
}

// Who has settled has a place, and counts for no address.
func TestWhoSettlesCountsForNoAddress(t *testing.T) {
	p := New(3, 1)
	var settled []*Place
	for range 3 {
		place, ok := p.Enter(from("192.0.2.1"), func() { t.Error("somebody who has settled is put out") })
		if !ok {
			t.Fatal("who comes after those who have settled isn't let in")
		}
		place.Settle()
		place.Settle()
		place.Wait() // is no way back
		settled = append(settled, place)
	}
	if _, ok := p.Enter(from("192.0.2.2"), nil); ok {
		t.Error("there are more than there are places")
	}
	for _, place := range settled {
		place.Leave()
		place.Leave()
	}
	if p.inside != 0 || len(p.from) != 0 || len(p.crowds) != 0 {
		t.Errorf("%d are inside, from %v, and somebody waits at %v", p.inside, p.from, p.crowds)
	}
}

// Those who only wait keep out nobody of another address, nor of their own.
func TestWhoWaitsLongestMakesRoom(t *testing.T) {
	p := New(4, 2)
	var out []string
	enter := func(name, ip string) *Place {
		t.Helper()
		place, ok := p.Enter(from(ip), func() { out = append(out, name) })
		if !ok {
			t.Errorf("%s isn't let in", name)
		}
		return place
	}
	gone := func(want ...string) {
		t.Helper()
		if !slices.Equal(out, want) {
			t.Errorf("put out are %q, want %q", out, want)
		}
	}
	first := enter("first", "192.0.2.1")
	enter("second", "192.0.2.2")
	third := enter("third", "192.0.2.2")
	enter("fourth", "192.0.2.1")
	gone()
	enter("fifth", "192.0.2.3")
	gone("first")
	enter("sixth", "192.0.2.4")
	gone("first", "second")
	first.Leave() // has left long since
	first.Keep()
	enter("seventh", "192.0.2.4") // which has most of all with it
	gone("first", "second", "sixth")
	third.Keep()
	third.Wait() // from now on
	enter("eighth", "192.0.2.5")
	gone("first", "second", "sixth", "fourth")
	enter("ninth", "192.0.2.6")
	gone("first", "second", "sixth", "fourth", "fifth")
	if p.inside != 4 || len(p.from) != 4 || len(p.crowds) != 4 {
		t.Errorf("%d are inside, from %v, and somebody waits at %v", p.inside, p.from, p.crowds)
	}
}

// One who comes where an address has all that it may have takes the place of who has
// waited longest there, and of nobody elsewhere.
func TestAnAddressMakesRoomForItself(t *testing.T) {
	p := New(8, 2)
	var out []string
	for _, name := range []string{"a", "b", "c", "d"} {
		if _, ok := p.Enter(from("192.0.2.1"), func() { out = append(out, name) }); !ok {
			t.Errorf("%s isn't let in", name)
		}
		p.Enter(from("192.0.2.2"), func() {})
	}
	if !slices.Equal(out, []string{"a", "b"}) || p.inside != 4 {
		t.Errorf("put out are %q, and %d are inside", out, p.inside)
	}
}

// The place goes to the right one among many, whatever they do: a plain count finds the
// same one.
func TestWhoMakesRoomAmongMany(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	p := New(40, 9)
	type one struct {
		ip    string
		place *Place
		since int // 0: doesn't wait
	}
	var inside []*one
	for step := 1; step < 20_000; step++ {
		if n := len(inside); n > 0 && random.IntN(3) == 0 {
			i := random.IntN(n)
			switch o := inside[i]; random.IntN(3) {
			case 0:
				o.place.Leave()
				inside = slices.Delete(inside, i, i+1)
			case 1:
				o.place.Keep()
				o.since = 0
			case 2:
				o.place.Wait()
				if o.since == 0 {
					o.since = step
				}
			}
			continue
		}
		came := &one{ip: fmt.Sprintf("192.0.2.%d", random.IntN(9)), since: step}
		inside = append(inside, came)
		waiting, own := map[string]int{}, 0
		for _, o := range inside {
			if o.since > 0 {
				waiting[o.ip]++
			}
			if o.ip == came.ip {
				own++
			}
		}
		most, of := 0, func(*one) bool { return false }
		for _, n := range waiting {
			most = max(most, n)
		}
		switch {
		case own > 9:
			of = func(o *one) bool { return o.ip == came.ip }
		case len(inside) > 40:
			of = func(o *one) bool { return waiting[o.ip] == most }
		}
		var want *one
		for _, o := range inside {
			if o.since > 0 && of(o) && (want == nil || o.since < want.since) {
				want = o
			}
		}
		var put *one
		place, ok := p.Enter(from(came.ip), func() {})
		came.place = place
		if !ok {
			put = came
		}
		for _, o := range inside {
			if o.place != nil && o.place.left {
				put = o
			}
		}
		if put != want {
			t.Fatalf("step %d: %+v is put out, want %+v", step, put, want)
		}
		inside = slices.DeleteFunc(inside, func(o *one) bool { return o == want })
	}
}
