package capsule_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/capsule"
	"carnet/dpm"
	"carnet/identity"
	"carnet/job"
	"carnet/policy"
	"carnet/test/wait"
)

var vaultKey = newKey()

// bound sets the policy of the world's avatar.
func (w *customer) bound(version uint64, document string) {
	w.t.Helper()
	b, err := policy.ParseBounds([]byte(document))
	must(w.t, err)
	b.Version = version
	w.bounds.Store(&b)
	w.agent.Recheck()
}

// What an avatar's policy forbids isn't computed: the plan says so of each place, and the
// order is refused, with the member.
func TestAJobThatThePolicyForbids(t *testing.T) {
	c := &clock{}
	forge, arena := newOffice(t, c, "forge").withWorkers(1), newCustomer(t, c, "arena", 2)
	arena.ordersFrom(forge, nil)
	key := identity.DID(public(forge.key))
	for document, member := range map[string]struct{ here, there string }{
		`{"use":{"purposes":["care"]}}`:             {"use.purposes", "use.purposes"},
		`{"use":{"purposes":["fitness"]}}`:          {},
		`{"use":{"engines":["wasm"]}}`:              {"use.engines", "use.engines"},
		`{"use":{"engines":["script"]}}`:            {},
		`{"use":{"modules":["zones"]}}`:             {"use.modules", "use.modules"},
		`{"use":{"dpms":[]}}`:                       {"", "use.dpms"},
		fmt.Sprintf(`{"use":{"dpms":[%q]}}`, key):   {},
		`{"transmit":{"sensitivity":"personal"}}`:   {"", "transmit.sensitivity"},
		`{"transmit":{"worlds":[],"onward":false}}`: {},
	} {
		arena.bound(6, document)
		p, err := arena.agent.Plan(t.Context(), arena.spec("", "script", "count"))
		must(t, err)
		for _, place := range p.Places {
			want := member.there
			if place.Here {
				want = member.here
			}
			if place.Can != (want == "") || !strings.Contains(place.Why, want) {
				t.Errorf("%s: the plan says of %s: %v, %s; want %q", document, place.At, place.Can, place.Why, want)
			}
		}
		for at, want := range map[carnet.PartyID]string{"": member.here, "forge": member.there} {
			i, err := arena.agent.Order(t.Context(), arena.spec(at, "script", "count"))
			switch {
			case want == "":
				must(t, err)
				arena.done(i.ID, arena.counts())
			case carnet.CodeOf(err) != carnet.Forbidden || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "version 6"):
				t.Errorf("%s: ordered at %q: %v, want %s", document, at, err, want)
			}
		}
	}
}

// An order names the versions of the policies that it was held against, so that who was
// given it and who audits it can say under which word of the owner's it was.
func TestAnOrderNamesItsPolicies(t *testing.T) {
	c := &clock{}
	forge, arena := newOffice(t, c, "forge").withWorkers(1), newCustomer(t, c, "arena", 2)
	arena.ordersFrom(forge, nil)
	named := func(i job.Info) []capsule.Policy {
		t.Helper()
		o, err := capsule.OpenOrder(i.Order, public(arena.key))
		must(t, err)
		if !slices.Equal(o.Policies, i.Policies) {
			t.Errorf("the job has the policies %v, its order %v", i.Policies, o.Policies)
		}
		arena.done(i.ID, arena.counts())
		return o.Policies
	}
	for _, at := range []carnet.PartyID{"", "forge"} {
		arena.bound(0, `{}`)
		if p := named(arena.order(arena.spec(at, "script", "count"))); p != nil {
			t.Errorf("at %q: without a policy the order names %v", at, p)
		}
		arena.bound(6, `{"use":{"engines":["script"]}}`)
		first := arena.order(arena.spec(at, "script", "count"))
		if p := named(first); !slices.Equal(p, []capsule.Policy{{Avatar: "a1", Version: 6}}) {
			t.Errorf("at %q: the order names the policies %v", at, p)
		}
		arena.bound(7, `{}`)
		again, err := arena.agent.Repeat(t.Context(), first.ID, at, time.Minute)
		must(t, err)
		if p := named(again); !slices.Equal(p, []capsule.Policy{{Avatar: "a1", Version: 7}}) {
			t.Errorf("at %q: the repetition names the policies %v", at, p)
		}
	}
}

// A job that is under way ends with the policy that forbids it: at a DPM, which destroys
// its keys, and in the world itself.
func TestAPolicyWithdrawsJobs(t *testing.T) {
	c := &clock{}
	forge, arena := newOffice(t, c, "forge").withWorkers(1), newCustomer(t, c, "arena", 2)
	arena.ordersFrom(forge, nil)
	j := arena.order(arena.spec("forge", "script", "hang"))
	arena.is(j.ID, "under way", func(i job.Info) bool { return i.Progress.Parts == 1 || i.Progress.State == string(dpm.Ready) })
	set := time.Now()
	arena.bound(1, `{"use":{"dpms":[]}}`)
	j = arena.ended(j.ID)
	if j.Stand.Outcome != capsule.Withdrawn || !strings.Contains(j.Stand.Why, "use.dpms") || len(forge.jobKeys()) > 0 {
		t.Errorf("the job is %s: %s; forge has the keys %v", j.Stand.Outcome, j.Stand.Why, forge.jobKeys())
	}
	if took := time.Since(set); took > time.Second {
		t.Errorf("that took %v", took)
	}
	j = arena.order(arena.spec("", "script", "hang"))
	arena.is(j.ID, "running", func(i job.Info) bool { return i.Progress.State == "running" })
	arena.bound(2, `{"use":{"purposes":[]}}`)
	if j = arena.ended(j.ID); j.Stand.Outcome != capsule.Withdrawn || !strings.Contains(j.Stand.Why, "use.purposes") {
		t.Errorf("the job here is %s: %s", j.Stand.Outcome, j.Stand.Why)
	}
}

// What came out of a job isn't kept at a depot that may keep nothing of the avatar, and
// stays in the world; what was there goes.
func TestAPolicyKeepsOutputsHome(t *testing.T) {
	c := &clock{}
	arena := newCustomer(t, c, "arena", 2)
	stored := func() int {
		arena.mu.Lock()
		defer arena.mu.Unlock()
		return len(arena.objects)
	}
	first := arena.order(arena.spec("", "script", "count"))
	arena.done(first.ID, arena.counts())
	arena.is(first.ID, "stored", func(i job.Info) bool { return i.Stored != carnet.Fingerprint{} })
	arena.bound(1, `{"store":{"depots":[]}}`)
	arena.is(first.ID, "not stored any more", func(i job.Info) bool { return i.Stored == carnet.Fingerprint{} })
	if n := stored(); n != 0 {
		t.Errorf("the depot has %d objects", n)
	}
	arena.done(first.ID, arena.counts())
	second := arena.order(arena.spec("", "script", "count"))
	arena.done(second.ID, arena.counts())
	time.Sleep(time.Second) // the first was there at once
	if n := stored(); n != 0 {
		t.Errorf("the depot has %d objects of the second", n)
	}
	arena.bound(2, fmt.Sprintf(`{"store":{"depots":[%q]}}`, identity.DID(public(vaultKey))))
	third := arena.order(arena.spec("", "script", "count"))
	arena.is(third.ID, "stored where it may be", func(i job.Info) bool { return i.Stored != carnet.Fingerprint{} })
}

// An output that came to the depot, and the answer not here, leaves it by a policy, too.
func TestAPolicyFindsAnOutputThatNobodyKnowsOf(t *testing.T) {
	c := &clock{}
	arena := newCustomer(t, c, "arena", 2)
	deaf := func(is bool) {
		arena.mu.Lock()
		defer arena.mu.Unlock()
		arena.deaf = is
	}
	held := func() int {
		arena.mu.Lock()
		defer arena.mu.Unlock()
		return len(arena.objects)
	}
	deaf(true)
	i := arena.order(arena.spec("", "script", "count"))
	arena.done(i.ID, arena.counts())
	wait.Until(t, "it has come to the depot", func() bool { return held() == 1 })
	arena.bound(1, `{"store":{"depots":[]}}`)
	wait.Until(t, "it has left", func() bool { return held() == 0 })
	deaf(false)
	if i := arena.done(i.ID, arena.counts()); i.Stored != (carnet.Fingerprint{}) {
		t.Error("it counts as stored")
	}
	arena.bound(2, `{}`)
	arena.stop()
	arena.start()
	arena.is(i.ID, "stored where it may be", func(i job.Info) bool { return i.Stored != carnet.Fingerprint{} })
}

// What is lost of an output here comes back from the depot before a policy has it leave.
func TestAPolicyBringsHomeWhatIsLostOfAnOutput(t *testing.T) {
	c := &clock{}
	arena := newCustomer(t, c, "arena", 2)
	i := arena.order(arena.spec("", "script", "count"))
	arena.done(i.ID, arena.counts())
	arena.is(i.ID, "stored", func(i job.Info) bool { return i.Stored != carnet.Fingerprint{} })
	arena.mu.Lock()
	lost := 0
	for id := range arena.documents {
		if id[0] == "job-part" {
			delete(arena.documents, id)
			lost++
		}
	}
	arena.mu.Unlock()
	arena.bound(1, `{"store":{"depots":[]}}`)
	arena.is(i.ID, "not stored any more", func(i job.Info) bool { return i.Stored == carnet.Fingerprint{} })
	arena.mu.Lock()
	held := len(arena.objects)
	arena.mu.Unlock()
	if held > 0 || lost == 0 {
		t.Errorf("the depot has %d objects, and %d parts were lost here", held, lost)
	}
	arena.done(i.ID, arena.counts())
}

// An output of which parts are lost, or were put back, goes like any other with its avatar,
// whether that is gone or erased.
func TestADamagedOutputGoes(t *testing.T) {
	for _, damage := range []string{"lost", "put back"} {
		for _, end := range []string{"gone", "erased"} {
			t.Run(damage+", "+end, func(t *testing.T) {
				c := &clock{}
				arena := newCustomer(t, c, "arena", 2)
				id := arena.done(arena.order(arena.spec("", "script", "parts")).ID, "one\ntwo\nthree\n").ID
				arena.is(id, "stored", func(i job.Info) bool { return i.Stored != carnet.Fingerprint{} })
				arena.mu.Lock()
				parts := 0
				for at, d := range arena.documents {
					if at[0] != "job-part" {
						continue
					}
					if parts++; parts > 1 {
						break
					}
					if delete(arena.documents, at); damage == "put back" {
						d.Body = []byte("damaged")
						arena.documents[at] = d
					}
				}
				arena.mu.Unlock()
				if damage == "put back" {
					arena.bound(1, `{"store":{"depots":[]}}`)
					arena.is(id, "put back", func(i job.Info) bool { return i.Stored == carnet.Fingerprint{} })
					arena.done(id, "one\ntwo\nthree\n")
				}
				if end == "erased" {
					arena.erased(arena.erasing(), 1)
				} else {
					arena.mu.Lock()
					arena.gone = true
					arena.mu.Unlock()
				}
				arena.is(id, "that its output is destroyed", func(i job.Info) bool { return i.Output == nil })
				if n := arena.kept("job-part"); n > 0 {
					t.Errorf("%d parts of it are left", n)
				}
			})
		}
	}
}
