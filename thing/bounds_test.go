package thing

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"carnet"
)

// One owner can't fill a world with avatars by mapping and ending, and others may
// still map.
func TestMappingsOfOneOwnerAreBounded(t *testing.T) {
	h := newHub(t)
	var ahead atomic.Int64
	h.now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	h.bounds = Bounds{Mappings: 3}
	h.restart()
	h.connect()
	d, other := h.addFor("mallory"), h.addFor("ann")
	refused := func(why string) {
		t.Helper()
		asked := len(h.world.maps)
		if _, err := h.maps(d, nil); carnet.CodeOf(err) != carnet.TooLarge || !strings.Contains(err.Error(), why) {
			t.Errorf("want a refusal with %q, got %v", why, err)
		}
		if len(h.world.maps) != asked {
			t.Error("the world was asked for an avatar")
		}
	}
	var all []MappingInfo
	for range 3 {
		m, err := h.maps(d, nil)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, m)
	}
	refused("3 mappings to arena in force")
	ahead.Store(int64(48 * time.Hour)) // when they were made doesn't count
	for _, m := range all {
		if _, err := h.agent.Unmap(t.Context(), "mallory", m.ID); err != nil {
			t.Fatal(err)
		}
	}
	refused("have ended within a day")
	h.restart()
	refused("have ended within a day")
	if _, err := h.maps(other, nil); err != nil {
		t.Errorf("another owner's: %v", err)
	}
	ahead.Add(int64(25 * time.Hour))
	if _, err := h.maps(d, nil); err != nil {
		t.Errorf("a day later: %v", err)
	}
}

// One owner can't fill log and store by changing views; others may, ending a mapping
// always may be done, and a day later it goes on.
func TestViewChangesOfOneOwnerAreBounded(t *testing.T) {
	h := newHub(t)
	var ahead atomic.Int64
	h.now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	h.bounds = Bounds{Views: 3}
	h.restart()
	h.connect()
	d, other := h.addFor("mallory"), h.addFor("ann")
	mapped := func(d *device) MappingInfo {
		m, err := h.maps(d, nil)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	first, second, anns := mapped(d), mapped(d), mapped(other)
	round := 1
	set := func(m MappingInfo) error {
		round++
		_, err := h.agent.SetView(t.Context(), "whoever", m.ID, view(t, fmt.Sprintf(`{"properties":{"heart_rate":{"round":%d}}}`, round)))
		return err
	}
	for _, m := range []MappingInfo{first, second, first} { // those of all mappings count
		if err := set(m); err != nil {
			t.Fatal(err)
		}
	}
	recorded := func() int {
		all, err := h.agent.Views(second.ID)
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	before := recorded()
	if err := set(second); carnet.CodeOf(err) != carnet.TooLarge || !strings.Contains(err.Error(), "limits.views_of_owner") {
		t.Errorf("a fourth change: %v", err)
	}
	if recorded() != before {
		t.Error("a refused change left a record")
	}
	if err := set(anns); err != nil {
		t.Errorf("another owner's: %v", err)
	}
	if _, err := h.agent.Unmap(t.Context(), "mallory", first.ID); err != nil {
		t.Errorf("ending one: %v", err)
	}
	ahead.Store(int64(24 * time.Hour))
	if err := set(second); err != nil {
		t.Errorf("a day later: %v", err)
	}
}

// One owner can't fill the agent with things.
func TestThingsOfOneOwnerAreBounded(t *testing.T) {
	h := newHub(t)
	h.bounds = Bounds{Things: 2, Descriptions: 3 * len(quick())}
	h.restart()
	add := func(owner string, description []byte) error {
		_, _, err := h.agent.AddThing(t.Context(), "", owner, description)
		return err
	}
	for range 2 {
		if err := add("mallory", quick()); err != nil {
			t.Fatal(err)
		}
	}
	h.restart()
	if err := add("mallory", quick()); carnet.CodeOf(err) != carnet.TooLarge || !strings.Contains(err.Error(), "limits.things_of_owner") {
		t.Errorf("a third: %v", err)
	}
	long := append(quick(), bytes.Repeat([]byte(" "), len(quick()))...)
	if err := add("ann", long); err != nil {
		t.Fatal(err)
	}
	h.restart()
	if err := add("ann", long); carnet.CodeOf(err) != carnet.TooLarge || !strings.Contains(err.Error(), "limits.descriptions_of_owner") {
		t.Errorf("a long one more: %v", err)
	}
}

// What a description says and measurements don't need isn't kept in memory, and is
// there when it is asked for.
func TestADescriptionRests(t *testing.T) {
	h := newHub(t)
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	const size, lamp = 400_000, `"@context":"https://www.w3.org/2022/wot/td/v1.1","title":"a lamp","securityDefinitions":{"none":{"scheme":"nosec"}},"security":["none"],` +
		`"properties":{"lit":{"type":"boolean","forms":[{"href":"lit"}]}}}`
	x := strings.Repeat("x", size)
	before := heap()
	for _, text := range []string{
		`{"x:blob":"` + x + `",`, `{"description":"` + x + `",`,
		`{"actions":{"a":{"input":{"x:blob":"` + x + `"},"forms":[{"href":"x"}]}},`, `{"events":{"e":{"data":{"x:blob":"` + x + `"},"forms":[{"href":"x"}]}},`,
	} {
		description := []byte(text + lamp)
		id, _, err := h.agent.AddThing(t.Context(), "", "ann", description)
		if err != nil {
			t.Fatal(err)
		}
		got, err := h.agent.Description(t.Context(), id)
		if err != nil || !bytes.Equal(got, description) {
			t.Errorf("the description is %d bytes, and not the %d given: %v", len(got), len(description), err)
		}
	}
	if _, err := h.agent.Description(t.Context(), "none"); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("of no thing: %v", err)
	}
	h.store.documents = nil // what rests isn't counted
	if grown := heap() - before; grown > size/2 {
		t.Errorf("descriptions of %d bytes keep %d", 4*size, grown)
	}
}
