package api_test

import (
	"slices"
	"testing"

	"carnet"
	"carnet/api"
	"carnet/api/client"
	"carnet/identity"
)

// object maps another thing to an avatar, whose heart_rate is an object.
func (s *served) object(m carnet.AvatarID) *device {
	s.t.Helper()
	added, err := s.hub("operator-token").AddThing(s.t.Context(), api.NewThing{Owner: "alice", Description: api.Description(`{
	"@context": ["https://www.w3.org/2022/wot/td/v1.1", {"carnet": "urn:carnet:td#"}],
	"title": "x", "securityDefinitions": {"none": {"scheme": "nosec"}}, "security": "none",
	"properties": {"heart_rate": {"type": "object", "carnet:sensitivity": "public", "carnet:linger": "PT0S", "forms": [{"href": "d"}],
			"properties": {"x": {"type": "number"}}}}}`)})
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.hub("alice-token").Map(s.t.Context(), added.ID, api.NewMapping{World: "arena", Avatar: &m, View: view(s.t, `{"properties":{"heart_rate":{}}}`)}); err != nil {
		s.t.Fatal(err)
	}
	return s.device(added.ID, added.Password)
}

// A sender that says a field of what is a number already ends no grant about the avatar,
// and keeps none from being given.
func TestANameBesideAnotherEndsNoGrant(t *testing.T) {
	s := newServed(t)
	ctx := t.Context()
	d, m := s.watch("watch-7", `{"properties":{"heart_rate":{},"steps":{}}}`)
	d.mustSend(heart(1, 71))
	s.arrived(m.Avatar, 1)
	p, app := s.application()
	s.give(terms(s, p, m.Avatar, `{"properties":{"heart_rate":{"round":5},"steps":{}}}`, identity.ActionRead))
	s.object(m.Avatar).mustSend(carnet.Measurement{Name: "heart_rate/x", Time: heart(0, 0).Time, Value: carnet.Float(1)})
	s.arrived(m.Avatar, 2)
	d.mustSend(heart(9, 76))
	s.arrived(m.Avatar, 3)
	if ms, _, err := app.History(ctx, m.Avatar, client.HistoryQuery{}); err != nil || !slices.Equal(numbers(ms), []string{"heart_rate=70", "heart_rate=75"}) {
		t.Errorf("history %v, %v", numbers(ms), err)
	}
	if ms, err := app.State(ctx, m.Avatar); err != nil || !slices.Equal(numbers(ms), []string{"heart_rate=75"}) {
		t.Errorf("state %v, %v", numbers(ms), err)
	}
	if r, err := s.arena("operator-token").Assess(ctx, terms(s, p, m.Avatar, `{"properties":{"heart_rate":{}}}`, identity.ActionRead)); err != nil || r.Shown != 1 {
		t.Errorf("another grant: %+v, %v", r, err)
	}
}
