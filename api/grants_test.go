package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/activity"
	"carnet/api"
	"carnet/api/client"
	"carnet/entity"
	"carnet/identity"
	"carnet/policy"
	"carnet/thing"
)

// application adds an application to the world, and returns the way for it.
func (s *served) application() (api.AddedPrincipal, *client.Client) {
	s.t.Helper()
	p, err := s.arena("operator-token").AddPrincipal(s.t.Context(), entity.NewPrincipal{
		Kind: entity.KindApplication, Name: "Coach", Purpose: "fitness", Clearance: entity.Clearance{Sensitivity: carnet.Personal},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return p, s.arena(p.Token)
}

func terms(s *served, p api.AddedPrincipal, avatar carnet.AvatarID, text string, actions ...identity.Action) entity.Terms {
	return entity.Terms{Avatar: avatar, To: entity.To{Application: p.ID}, Actions: actions, View: view(s.t, text), Purpose: "fitness", Expires: time.Now().Add(time.Hour).Truncate(time.Second)}
}

// give assesses and gives a grant.
func (s *served) give(t entity.Terms) entity.Grant {
	s.t.Helper()
	ops := s.arena("operator-token")
	report, err := ops.Assess(s.t.Context(), t)
	if err != nil {
		s.t.Fatal(err)
	}
	g, err := ops.Give(s.t.Context(), api.NewGrant{Terms: t, Assessment: report.Fingerprint})
	if err != nil {
		s.t.Fatal(err)
	}
	return g
}

// granting has the id and body of an operation about a principal or a grant.
func (s *served) granting(operation string, m thing.MappingInfo) (id, body string) {
	s.t.Helper()
	p, _ := s.application()
	t := terms(s, p, m.Avatar, `{"properties":{"heart_rate":{}}}`, identity.ActionRead)
	switch operation {
	case "remove-principal":
		return p.ID, ""
	case "assess-grant":
		return "", marshal(s.t, t)
	case "give-grant":
		report, err := s.arena("operator-token").Assess(s.t.Context(), t)
		if err != nil {
			s.t.Fatal(err)
		}
		return "", marshal(s.t, api.NewGrant{Terms: t, Assessment: report.Fingerprint})
	}
	return s.give(t).ID, ""
}

func numbers(ms []carnet.Measurement) (got []string) {
	for _, m := range ms {
		got = append(got, fmt.Sprint(m.Name, "=", m.Value.Num))
	}
	return got
}

// An outside application reads what a grant shows it and nothing else; without a
// grant the avatar is not there, and a grant that doesn't go so far is named.
func TestAnApplicationReadsUnderAGrant(t *testing.T) {
	s := newServed(t)
	ctx := t.Context()
	d, m := s.watch("watch-7", `{"properties":{"heart_rate":{},"steps":{}}}`)
	for i := range 10 {
		d.mustSend(heart(i, 71+float64(i)), carnet.Measurement{Name: "steps", Time: heart(i, 0).Time, Value: carnet.Float(float64(i))})
	}
	s.arrived(m.Avatar, 20)
	p, app := s.application()

	absent := s.arena(p.Token)
	unknown := carnet.NewAvatarID()
	_, err := absent.State(ctx, m.Avatar)
	_, nobody := absent.State(ctx, unknown)
	if carnet.CodeOf(err) != carnet.NotFound || neutral(err, m.Avatar.String()) != neutral(nobody, unknown.String()) {
		t.Errorf("without a grant the state is %v, of no avatar %v", err, nobody)
	}
	if list, err := app.Avatars(ctx); err != nil || len(list) != 0 {
		t.Errorf("without a grant it sees %+v, %v", list, err)
	}

	g := s.give(terms(s, p, m.Avatar, `{"properties":{"heart_rate":{"round":5,"rate":"5s"}}}`, identity.ActionRead))
	history := func(from int) []string {
		t.Helper()
		ms, _, err := app.History(ctx, m.Avatar, client.HistoryQuery{From: start.Add(time.Duration(from) * time.Second)})
		if err != nil {
			t.Fatal(err)
		}
		return numbers(ms)
	}
	whole := history(0)
	if want := shownEach(5, 71, 10); !slices.Equal(whole, want) {
		t.Errorf("the history is %v, want %v", whole, want)
	}
	if i, err := app.Avatar(ctx, m.Avatar); err != nil || !i.Uncounted || i.Measurements != 0 {
		t.Errorf("of the avatar it sees %+v, %v", i, err)
	}
	// The state is what a rate shows of the newest interval.
	ms, err := app.State(ctx, m.Avatar)
	if got := numbers(ms); err != nil || !slices.Equal(got, whole[len(whole)-1:]) {
		t.Errorf("the state is %v, %v, want the last of %v", got, err, whole)
	}
	// Asking from later on shows nothing that asking for all didn't.
	for from := range 10 {
		if got := history(from); len(got) > len(whole) || !slices.Equal(got, whole[len(whole)-len(got):]) {
			t.Errorf("the history from second %d is %v, and all of it %v", from, got, whole)
		}
	}
	i, err := app.Avatar(ctx, m.Avatar)
	if err != nil || !slices.Equal(i.Properties, []string{"heart_rate"}) || i.Measurements != 0 {
		t.Errorf("the avatar is %+v, %v", i, err)
	}
	for _, err := range app.Watch(ctx, m.Avatar, nil) {
		if carnet.CodeOf(err) != carnet.Forbidden || !strings.Contains(err.Error(), "watch-avatar") {
			t.Errorf("live, which the grant doesn't give, is %v", err)
		}
		break
	}
	for token, want := range map[string]int{p.Token: 403, "auditor-token": 403, "alice-token": 403} {
		if a := ask(t, "POST", s.arenaURL+"/v1/principals", token, `{"kind":"application","name":"x","purpose":"fitness","clearance":{"sensitivity":"public"}}`); a.status != want {
			t.Errorf("adding an application with %s is %d %s", token, a.status, a.body)
		}
	}

	// What it may, and why.
	c, err := app.Check(ctx, api.Check{Action: "get-state", Resource: policy.Resource{Kind: policy.AvatarResource, ID: m.Avatar.String()}})
	if err != nil || !c.Permitted || c.Rule != "granted" || c.Grant != g.ID || !c.Facts.Granted || c.Facts.Purpose != "fitness" {
		t.Errorf("may it read: %+v, %v", c, err)
	}
	c, err = s.arena("auditor-token").Check(ctx, api.Check{Principal: &policy.Principal{Kind: policy.Application, Name: p.ID}, Action: "watch-avatar",
		Resource: policy.Resource{Kind: policy.AvatarResource, ID: m.Avatar.String()}})
	if err != nil || c.Permitted || c.Hidden || !strings.Contains(c.Why, "no policy permits it; granted would, under a grant that gives it") {
		t.Errorf("may it watch: %+v, %v", c, err)
	}
	if w := c.Would; w == nil || w.Rule != "granted" || w.Of != "granted" || !slices.Equal(w.Roles, []policy.Role{policy.Administrator, policy.Service}) {
		t.Errorf("what would permit it: %+v", w)
	}
	for _, nobody := range []policy.Principal{{Kind: policy.Application, Name: p.ID + "0"}, {Kind: policy.AvatarSelf, Name: m.Avatar.String()}} {
		if _, err := s.arena("auditor-token").Check(ctx, api.Check{Principal: &nobody, Action: "watch-avatar",
			Resource: policy.Resource{Kind: policy.AvatarResource, ID: m.Avatar.String()}}); carnet.CodeOf(err) != carnet.NotFound {
			t.Errorf("may %+v, which isn't there: %v", nobody, err)
		}
	}
	if _, err := app.Check(ctx, api.Check{Principal: &policy.Principal{Kind: policy.Person, Name: "ops", Role: policy.Administrator}, Action: "get-status",
		Resource: policy.Resource{Kind: policy.PartyResource, ID: "arena"}}); carnet.CodeOf(err) != carnet.Forbidden {
		t.Errorf("it asks about others: %v", err)
	}

	if _, err := s.arena("operator-token").Revoke(ctx, g.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := app.State(ctx, m.Avatar); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("after the revocation the state is %v", err)
	}
	if got, err := app.Grants(ctx); err != nil || len(got) != 1 || got[0].Revoked == nil {
		t.Errorf("it sees its grants as %+v, %v", got, err)
	}
	if _, err := s.arena("operator-token").RemovePrincipal(ctx, p.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := app.Grants(ctx); carnet.CodeOf(err) != carnet.Unauthenticated {
		t.Errorf("with a token that was taken away: %v", err)
	}
}

// shownEach is a heart rate that rises by one a second from first on, rounded to
// 5, the first of each five seconds since 1970.
func shownEach(seconds int64, first float64, n int) (want []string) {
	last := int64(-1)
	for i := range n {
		if at := heart(i, 0).Time / 1e9 / seconds; at != last {
			last = at
			want = append(want, fmt.Sprint("heart_rate=", float64(int((first+float64(i)+2.5)/5)*5)))
		}
	}
	return want
}

// A subscription under a grant goes on after its cursor without loss or doubling,
// keeps to its rate whoever reconnects how often, takes no cursor but its own, and
// ends with its grant.
func TestLiveUnderAGrant(t *testing.T) {
	s := newServed(t)
	ctx := t.Context()
	d, m := s.watch("watch-7", `{"properties":{"heart_rate":{},"steps":{}}}`)
	for i := range 20 {
		d.mustSend(heart(i, 71+float64(i)), carnet.Measurement{Name: "steps", Time: heart(i, 0).Time, Value: carnet.Float(1)})
	}
	s.arrived(m.Avatar, 40)
	p, app := s.application()
	g := s.give(terms(s, p, m.Avatar, `{"properties":{"heart_rate":{"rate":"5s"}}}`, identity.ActionSubscribe))
	want := func() (all []string) {
		last := int64(-1)
		for i := range 20 {
			if at := heart(i, 0).Time / 5e9; at != last {
				last, all = at, append(all, fmt.Sprint("heart_rate=", 71+i))
			}
		}
		return all
	}()
	// Each connection takes one event, then breaks.
	var got []string
	cursor := ""
	for len(got) < len(want) {
		for e, err := range app.Watch(ctx, m.Avatar, &cursor) {
			if err != nil {
				t.Fatal(err)
			}
			got, cursor = append(got, numbers(e.Measurements)...), e.Cursor
			break
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("over reconnections it has %v, want %v", got, want)
	}
	// Who begins from now on again and again has one of an interval, and what has no rate each time.
	q, other := s.application()
	s.give(terms(s, q, m.Avatar, `{"properties":{"heart_rate":{"rate":"5s"},"steps":{}}}`, identity.ActionSubscribe))
	second := 20
	for heart(second, 0).Time%5e9 != 0 {
		second++
	}
	got = nil
	for i := range 4 {
		for e, err := range other.Watch(ctx, m.Avatar, nil) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, numbers(e.Measurements)...)
			if len(e.Measurements) > 0 {
				break
			}
			d.mustSend(heart(second+i, 99), carnet.Measurement{Name: "steps", Time: heart(second+i, 0).Time, Value: carnet.Float(float64(i))})
		}
	}
	if want := []string{"heart_rate=99", "steps=0", "steps=1", "steps=2", "steps=3"}; !slices.Equal(got, want) {
		t.Errorf("beginning four times in one interval it has %v, want %v", got, want)
	}
	plain := ""
	for e, err := range s.arena("reader-token").Watch(ctx, m.Avatar, nil) {
		if err != nil {
			t.Fatal(err)
		}
		plain = e.Cursor
		break
	}
	for name, c := range map[string]string{"another's": plain, "a changed one": "A" + cursor, "nonsense": "AAAA"} {
		for _, err := range app.Watch(ctx, m.Avatar, &c) {
			if carnet.CodeOf(err) != carnet.Conflict {
				t.Errorf("%s cursor is answered with %v", name, err)
			}
			break
		}
	}
	ended := make(chan error, 1)
	begun := make(chan struct{})
	go func() {
		for _, err := range app.Watch(ctx, m.Avatar, nil) {
			if err != nil {
				ended <- err
				return
			}
			close(begun)
		}
	}()
	<-begun
	s.records.take()
	if _, err := s.arena("operator-token").Revoke(ctx, g.ID); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "the grant is over") {
		t.Errorf("the subscription ends with %v", err)
	}
}

// Who acts as an avatar reads itself, gives of itself, and reads another under a
// grant (R3).
func TestAvatarsExchangeDataUnderGrants(t *testing.T) {
	s := newServed(t)
	ctx := t.Context()
	ops := s.arena("operator-token")
	var avatars []carnet.AvatarID
	var ways []*client.Client
	for i, id := range []carnet.ThingID{"watch-1", "watch-2"} {
		d, m := s.watch(id, `{"properties":{"heart_rate":{}}}`)
		d.mustSend(heart(0, 70+float64(i)))
		s.arrived(m.Avatar, 1)
		p, err := ops.AddPrincipal(ctx, entity.NewPrincipal{Kind: entity.KindAvatar, Avatar: &m.Avatar, Name: string(id), Purpose: "fitness", Clearance: entity.Clearance{Sensitivity: carnet.Public}})
		if err != nil {
			t.Fatal(err)
		}
		avatars, ways = append(avatars, m.Avatar), append(ways, s.arena(p.Token))
	}
	if ms, err := ways[0].State(ctx, avatars[0]); err != nil || !slices.Equal(numbers(ms), []string{"heart_rate=70"}) {
		t.Errorf("it reads itself as %v, %v", ms, err)
	}
	if _, err := ways[0].State(ctx, avatars[1]); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("it reads the other: %v", err)
	}
	offer := entity.Terms{Avatar: avatars[1], To: entity.To{Avatar: avatars[0].String()}, Actions: []identity.Action{identity.ActionRead}, View: view(t, `{"properties":{"heart_rate":{}}}`),
		Purpose: "fitness", Expires: time.Now().Add(time.Hour)}
	if _, err := ways[0].Assess(ctx, offer); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("it assesses what isn't its own: %v", err)
	}
	report, err := ways[1].Assess(ctx, offer)
	if err != nil || report.Shown != 1 {
		t.Fatalf("the other assesses: %+v, %v", report, err)
	}
	g, err := ways[1].Give(ctx, api.NewGrant{Terms: offer, Assessment: report.Fingerprint})
	if err != nil {
		t.Fatal(err)
	}
	if ms, err := ways[0].State(ctx, avatars[1]); err != nil || !slices.Equal(numbers(ms), []string{"heart_rate=71"}) {
		t.Errorf("under the grant it reads the other as %v, %v", ms, err)
	}
	if _, err := ways[0].Revoke(ctx, g.ID); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("who was given a grant revokes it: %v", err)
	}
	if _, err := ways[1].Revoke(ctx, g.ID); err != nil {
		t.Errorf("who gave it revokes it: %v", err)
	}
	if _, err := ways[0].State(ctx, avatars[1]); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("after that it reads the other: %v", err)
	}
}

// State under a grant is made of history, and so has a place among those who ask for that.
func TestStateUnderAGrantIsAHistoryQuery(t *testing.T) {
	s := newServed(t)
	d, m := s.watch("watch-7", `{"properties":{"heart_rate":{}}}`)
	d.mustSend(heart(0, 71))
	s.arrived(m.Avatar, 1)
	p, _ := s.application()
	s.give(terms(s, p, m.Avatar, `{"properties":{"heart_rate":{"rate":"24h"}}}`, identity.ActionRead))
	state := func(token string, want int) {
		t.Helper()
		if a := ask(t, "GET", s.arenaURL+"/v1/avatars/"+m.Avatar.String()+"/state", token, ""); a.status != want || want == 429 && a.header.Get("Retry-After") == "" {
			t.Errorf("the state is answered %d %v %s, want %d", a.status, a.header, a.body, want)
		}
	}
	for token, want := range map[string]int{p.Token: 429, "operator-token": 200} {
		who, _ := s.tokens(token)
		giveBack := api.TakeQueries(s.handlers[s.arenaURL], who)
		state(token, want)
		giveBack()
		for range 20 { // more than there are places
			state(token, 200)
		}
	}
}

// An assessment, and so a grant, is made of history where shares flow in: each has a place
// among those who ask for that.
func TestAnAssessmentIsAHistoryQuery(t *testing.T) {
	s := newServed(t)
	_, m := s.watch("watch-7", `{"properties":{"heart_rate":{}}}`)
	p, _ := s.application()
	n := api.NewGrant{Terms: terms(s, p, m.Avatar, `{"properties":{"heart_rate":{}}}`, identity.ActionRead), Assessment: strings.Repeat("0", 64)}
	who, _ := s.tokens("operator-token")
	for path, free := range map[string]int{"/v1/assessments": 200, "/v1/grants": 409} {
		var body any = n.Terms
		if path == "/v1/grants" {
			body = n
		}
		text, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		call := func(want int) {
			t.Helper()
			if a := ask(t, "POST", s.arenaURL+path, "operator-token", string(text)); a.status != want {
				t.Errorf("%s is answered %d %s, want %d", path, a.status, a.body, want)
			}
		}
		giveBack := api.TakeQueries(s.handlers[s.arenaURL], who)
		call(429)
		giveBack()
		for range 20 { // more than there are places
			call(free)
		}
	}
}

// What a principal has open without a grant ends when it is removed, long before the
// next ping.
func TestARemovedPrincipalReadsOnNothing(t *testing.T) {
	s := newServed(t)
	soon, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	ops := s.arena("operator-token")
	d, m := s.watch("watch-1", `{"properties":{"heart_rate":{}}}`)
	d.mustSend(heart(0, 70))
	s.arrived(m.Avatar, 1)
	n := entity.NewPrincipal{Kind: entity.KindAvatar, Avatar: &m.Avatar, Name: "one", Purpose: "fitness", Clearance: entity.Clearance{Sensitivity: carnet.Public}}
	stays, err := ops.AddPrincipal(soon, n)
	if err != nil {
		t.Fatal(err)
	}
	goes, err := ops.AddPrincipal(soon, n)
	if err != nil {
		t.Fatal(err)
	}
	beginning, other := "", make(chan client.Event, 8)
	go func() {
		defer close(other)
		for e, err := range s.arena(stays.Token).Watch(soon, m.Avatar, &beginning) {
			if err == nil {
				other <- e
			}
		}
	}()
	<-other
	for _, err = range s.arena(goes.Token).Watch(soon, m.Avatar, &beginning) {
		if err != nil {
			break
		}
		if _, err := ops.RemovePrincipal(soon, goes.ID); err != nil {
			t.Fatal(err)
		}
	}
	if err == nil || !strings.Contains(err.Error(), "no longer valid") {
		t.Errorf("its subscription ends with %v", err)
	}
	d.mustSend(heart(1, 71))
	if e, ok := <-other; !ok || !slices.Equal(numbers(e.Measurements), []string{"heart_rate=71"}) {
		t.Errorf("another one's goes on with %v, %v", e, ok)
	}
}

func TestTheLogIsForAuditors(t *testing.T) {
	s := newServed(t)
	for n := range 3 {
		err := s.activity.Add(t.Context(), activity.Record{Who: policy.Bearer("alice", policy.User), Action: "get-thing", Resource: policy.Resource{Kind: policy.ThingResource, ID: fmt.Sprint(n)}, Via: activity.HTTP, Why: "so"})
		if err != nil {
			t.Fatal(err)
		}
	}
	first := uint64(1)
	list, err := s.arena("auditor-token").Activity(context.Background(), activity.Query{After: &first, Limit: 1})
	if err != nil || len(list.Records) != 1 || list.Records[0].ID != 2 || list.Next != 2 {
		t.Errorf("%+v, %v", list, err)
	}
	for token, want := range map[string]int{"operator-token": 200, "alice-token": 403, "reader-token": 403, "maker-token": 403} {
		if a := ask(t, "GET", s.arenaURL+"/v1/activity", token, ""); a.status != want {
			t.Errorf("%s is answered with %d %s", token, a.status, a.body)
		}
	}
}
