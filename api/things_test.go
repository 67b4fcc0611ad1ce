package api_test

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"

	"carnet"
	"carnet/api"
	"carnet/api/client"
)

func TestAnOwnerSeesWhatBecameOfItsThings(t *testing.T) {
	s := newServed(t)
	ctx := t.Context()
	d, m := s.watch("watch-7", `{"properties":{"heart_rate":{"round":5}},"retention":"day"}`)
	d.mustSend(heart(0, 72), heart(1, 73))
	if o := d.send(carnet.Measurement{Name: "mood", Time: heart(2, 0).Time, Value: carnet.Float(1)}); o.Refused == nil {
		t.Fatal("an unknown property was accepted")
	}
	s.arrived(m.Avatar, 2)
	alice := s.hub("alice-token")

	things, err := alice.Things(ctx)
	if err != nil || len(things) != 1 || things[0].ID != "watch-7" || things[0].Owner != "alice" {
		t.Fatalf("the things are %+v, %v", things, err)
	}
	one, err := alice.Thing(ctx, "watch-7")
	if err != nil || len(one.Mappings) != 1 || one.Refused[carnet.UnknownProperty] != 1 {
		t.Errorf("the thing is %+v, %v", one, err)
	}
	description, err := alice.Description(ctx, "watch-7")
	if err != nil || !bytes.Equal(compact(t, []byte(watchDescription)), description) { // the client sends JSON compact
		t.Errorf("the description is %s, %v", description, err)
	}
	refusals, err := alice.Refusals(ctx, "watch-7", 10)
	if err != nil || len(refusals) != 1 || refusals[0].Code != carnet.UnknownProperty {
		t.Errorf("the refusals are %+v, %v", refusals, err)
	}
	mapping, err := alice.Mapping(ctx, m.ID)
	if err != nil || mapping.Avatar != m.Avatar || mapping.Got[0].Sent != 2 || mapping.Stopped {
		t.Errorf("the mapping is %+v, %v", mapping, err)
	}
	changed, err := alice.SetView(ctx, m.ID, view(t, `{"properties":{}}`))
	if err != nil || changed.PolicyVersion != m.PolicyVersion+1 || len(changed.View.Properties) != 0 {
		t.Errorf("the changed mapping is %+v, %v", changed, err)
	}
	lines, err := alice.Explain(ctx, m.ID)
	if err != nil || len(lines) == 0 {
		t.Errorf("the explanation is %q, %v", lines, err)
	}
	views, err := alice.Views(ctx, m.ID)
	if err != nil || len(views) != 2 || views[0].By != "alice" || views[1].Version != changed.PolicyVersion {
		t.Errorf("the views are %+v, %v", views, err)
	}
	report, err := alice.Owner(ctx, "alice")
	if err != nil || len(report.Things) != 1 || len(report.Things[0].Worlds) != 1 {
		t.Fatalf("the report is %+v, %v", report, err)
	}
	share := report.Things[0].Worlds[0]
	if share.World != "arena" || !share.Since.Equal(views[0].Time) || !share.Decided.Equal(views[1].Time) || share.By != "alice" ||
		share.PolicyVersion != changed.PolicyVersion || share.Got[0].Sent != 2 || share.Got[0].Why == "" {
		t.Errorf("the share is %+v", share)
	}
	stopped, err := alice.Unmap(ctx, m.ID)
	if err != nil || !stopped.Stopped {
		t.Errorf("the stopped mapping is %+v, %v", stopped, err)
	}
}

// What is another owner's looks in every call as if there were none.
func TestOthersThingsLookAbsent(t *testing.T) {
	s := newServed(t)
	_, m := s.watch("watch-7", `{"properties":{"heart_rate":{}}}`)
	absent := carnet.NewMappingID()
	v := view(t, `{"properties":{"heart_rate":{}}}`)
	calls := []struct {
		name string
		call func(ctx context.Context, c *client.Client, thing carnet.ThingID, mapping carnet.MappingID) error
	}{
		{"Thing", func(ctx context.Context, c *client.Client, id carnet.ThingID, _ carnet.MappingID) error {
			_, err := c.Thing(ctx, id)
			return err
		}},
		{"Description", func(ctx context.Context, c *client.Client, id carnet.ThingID, _ carnet.MappingID) error {
			_, err := c.Description(ctx, id)
			return err
		}},
		{"Refusals", func(ctx context.Context, c *client.Client, id carnet.ThingID, _ carnet.MappingID) error {
			_, err := c.Refusals(ctx, id, 1)
			return err
		}},
		{"Map", func(ctx context.Context, c *client.Client, id carnet.ThingID, _ carnet.MappingID) error {
			_, err := c.Map(ctx, id, api.NewMapping{World: "arena", View: v})
			return err
		}},
		{"Mapping", func(ctx context.Context, c *client.Client, _ carnet.ThingID, id carnet.MappingID) error {
			_, err := c.Mapping(ctx, id)
			return err
		}},
		{"SetView", func(ctx context.Context, c *client.Client, _ carnet.ThingID, id carnet.MappingID) error {
			_, err := c.SetView(ctx, id, v)
			return err
		}},
		{"Explain", func(ctx context.Context, c *client.Client, _ carnet.ThingID, id carnet.MappingID) error {
			_, err := c.Explain(ctx, id)
			return err
		}},
		{"Views", func(ctx context.Context, c *client.Client, _ carnet.ThingID, id carnet.MappingID) error {
			_, err := c.Views(ctx, id)
			return err
		}},
		{"Unmap", func(ctx context.Context, c *client.Client, _ carnet.ThingID, id carnet.MappingID) error {
			_, err := c.Unmap(ctx, id)
			return err
		}},
	}
	for _, call := range calls {
		for _, token := range []string{"bob-token", "nameless-token"} {
			c := s.hub(token)
			hidden := call.call(t.Context(), c, "watch-7", m.ID)
			none := call.call(t.Context(), c, "watch-8", absent)
			if carnet.CodeOf(hidden) != carnet.NotFound || carnet.CodeOf(none) != carnet.NotFound {
				t.Fatalf("%s by %s: hidden is %v, absent is %v", call.name, token, hidden, none)
			}
			h, n := neutral(hidden, "watch-7", m.ID.String()), neutral(none, "watch-8", absent.String())
			if h != n {
				t.Errorf("%s by %s tells hidden (%s) from absent (%s)", call.name, token, h, n)
			}
			if own := call.call(t.Context(), s.hub("operator-token"), "watch-8", absent); neutral(own, "watch-8", absent.String()) != n {
				t.Errorf("%s: what an operator hears of the absent is %v", call.name, own)
			}
		}
	}
	if after, err := s.agent.Mapping(m.ID); err != nil || after.PolicyVersion != m.PolicyVersion || after.Stopped {
		t.Errorf("the mapping is now %+v, %v", after, err)
	}
	for _, token := range []string{"bob-token", "nameless-token"} {
		if things, err := s.hub(token).Things(t.Context()); err != nil || len(things) != 0 {
			t.Errorf("%s lists %+v, %v", token, things, err)
		}
		if _, err := s.hub(token).Owner(t.Context(), "alice"); carnet.CodeOf(err) != carnet.NotFound {
			t.Errorf("%s: alice's report is %v", token, err)
		}
	}
	if r, err := s.hub("bob-token").Owner(t.Context(), "bob"); err != nil || len(r.Things) != 0 {
		t.Errorf("bob's own report is %+v, %v", r, err)
	}
	if _, err := s.hub("operator-token").Owner(t.Context(), "bob"); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("an owner of nothing is %v to the operator", err)
	}
}

// Whoever adds a thing hears which of its properties can't be measured, and so
// does who looks at it.
func TestWhatCantBeMeasuredIsSaid(t *testing.T) {
	s := newServed(t)
	operator := s.hub("operator-token")
	text := strings.Replace(watchDescription, `"properties": {`, `"properties": {"laps": {"type": "array", "forms": [{"href": "z"}]},`, 1)
	added, err := operator.AddThing(t.Context(), api.NewThing{ID: "lap-counter", Owner: "alice", Description: api.Description(text)})
	if err != nil || len(added.Unmeasured) != 1 || added.Unmeasured[0].Name != "laps" || added.Unmeasured[0].Why == "" || added.Password == "" {
		t.Fatalf("added %+v, %v", added, err)
	}
	info, err := operator.Thing(t.Context(), "lap-counter")
	if err != nil || !slices.Equal(info.Unmeasured, added.Unmeasured) {
		t.Errorf("shown %+v, %v", info.Unmeasured, err)
	}
}
