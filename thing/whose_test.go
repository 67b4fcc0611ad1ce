package thing

import (
	"strings"
	"testing"
	"time"

	"carnet"
	ident "carnet/identity"
)

// addFor adds a thing of an owner's.
func (h *hub) addFor(owner string) *device {
	h.tb.Helper()
	id, password, err := h.agent.AddThing(h.tb.Context(), "", owner, quick())
	if err != nil {
		h.tb.Fatal(err)
	}
	return h.session(id, password)
}

// maps has an owner map a thing to an avatar.
func (h *hub) maps(d *device, to *carnet.AvatarID) (MappingInfo, error) {
	return h.agent.Map(h.tb.Context(), "whoever", d.id, "arena", to, "", view(h.tb, `{"properties":{"heart_rate":{}}}`))
}

// Several things speak about one avatar, and all of them are its owner's: to others
// it is as though it weren't there, and the world isn't even asked.
func TestAnAvatarIsOfOneOwner(t *testing.T) {
	h := newHub(t)
	ann, second, mallory := h.addFor("ann"), h.addFor("ann"), h.addFor("mallory")
	m, err := h.maps(ann, nil)
	if err != nil {
		t.Fatal(err)
	}
	h.world.avatar = &m.Avatar // what the world gives from now on
	for range 2 {
		asked, unknown := len(h.world.maps), carnet.NewAvatarID()
		_, hidden := h.maps(mallory, &m.Avatar)
		_, absent := h.maps(mallory, &unknown)
		if carnet.CodeOf(hidden) != carnet.NotFound || strings.ReplaceAll(hidden.Error(), m.Avatar.String(), "X") != strings.ReplaceAll(absent.Error(), unknown.String(), "X") {
			t.Errorf("another's avatar: %v\none that isn't there: %v", hidden, absent)
		}
		if len(h.world.maps) != asked {
			t.Error("the world was asked")
		}
		if _, err := h.maps(second, &m.Avatar); err != nil {
			t.Errorf("another thing of the same owner: %v", err)
		}
		h.restart()
	}
	if _, err := h.agent.Unmap(t.Context(), "ann", m.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := h.maps(mallory, &m.Avatar); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("another's avatar, whose first mapping has ended: %v", err)
	}
	if _, err := h.maps(ann, &m.Avatar); err != nil {
		t.Errorf("one's own again, after its mapping ended: %v", err)
	}
}

// A mapping to another's avatar that an older program made pins no key with it.
func TestOnlyItsOwnerPinsAKey(t *testing.T) {
	h := newHub(t)
	h.connect()
	m, err := h.maps(h.addFor("ann"), nil)
	if err != nil {
		t.Fatal(err)
	}
	h.world.avatar = &m.Avatar
	hers, err := h.maps(h.addFor("mallory"), nil) // the world gives her ann's
	if err != nil {
		t.Fatal(err)
	}
	word := func() string {
		token, err := ident.SignOwnership(newKey(), ident.Ownership{Audience: "arena", Avatar: m.Avatar, Issued: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	if _, err := h.agent.Own(t.Context(), hers.ID, word()); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("mallory's key: %v", err)
	}
	if n := h.world.calls[carnet.CallOwn]; n != 0 {
		t.Errorf("the world was asked to pin a key %d times", n)
	}
	if _, err := h.agent.Own(t.Context(), m.ID, word()); err != nil {
		t.Errorf("ann's key: %v", err)
	}
}

// An avatar that has moved is its owner's at its new home, too.
func TestAnAvatarThatMovedIsOfTheSameOwner(t *testing.T) {
	h := newMovable(t)
	mallory := h.addFor("mallory")
	_, m, v := h.moved(`{"properties":{"heart_rate":{}}}`, nil)
	to := func(d *device, avatar *carnet.AvatarID) (MappingInfo, error) {
		return h.agent.Map(t.Context(), "whoever", d.id, "citadel", avatar, "", view(t, `{"properties":{"heart_rate":{}}}`))
	}
	// As an older program let it be: mallory is there before ann's mapping goes on.
	if hers, err := to(mallory, nil); err != nil || hers.Avatar != v.terms.To {
		t.Fatalf("mallory's is %s, not %s: %v", hers.Avatar, v.terms.To, err)
	}
	h.connectNext()
	h.untilThen(m)
	if _, err := to(mallory, &v.terms.To); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("another's: %v", err)
	}
	if _, err := to(h.addFor("ann"), &v.terms.To); err != nil {
		t.Errorf("another thing of its owner: %v", err)
	}
}
