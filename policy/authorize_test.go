package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"carnet"
)

func authorizer(t testing.TB, files map[string][]byte, replace bool) *Authorizer {
	t.Helper()
	a, err := NewAuthorizer(files, replace)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// The built-in roles, as docs/design/access.md says them: y is permitted, o
// only what is one's own, g only under a grant, . nothing.
func TestRoles(t *testing.T) {
	a := authorizer(t, nil, false)
	who := []Principal{
		Bearer("u", User), Bearer("c", Creator), Bearer("a", Administrator), Bearer("d", Auditor), Bearer("s", Service),
		{Kind: Application, Name: "p"}, {Kind: AvatarSelf, Name: "v"}, {Kind: Device, Name: "t"}, {Kind: Foreign, Name: "f"}, {},
	}
	for _, line := range []string{
		"list-things     o o y y . . . . . .",
		"get-thing       o o y y . . . . . .",
		"list-refusals   o o y . . . . . . .",
		"add-thing       . o y . . . . . . .",
		"add-mapping     o o y . . . . . . .",
		"renew-password  o o y . . . . . . .",
		"set-view        o o y . . . . . . .",
		"get-owner       o o y y . . . . . .",
		"get-avatar      o o y y y g g . g .",
		"get-did         o o y y y g g . g .",
		"list-mandates   o o y y y . o . . .",
		"get-credential  o o y y y . o . . .",
		"list-avatar-shares o o y y y . o . . .",
		"list-avatar-grants o o y y y . o . . .",
		"get-state       o o y . y g g . g .",
		"watch-avatar    o o y . y g g . g .",
		"read-abroad     o o y . y . o . . .",
		"move-avatar     o o y . y . o . g .",
		"get-evidence    . . y . . . . . . .",
		"get-status      . . y y . . . . . .",
		"get-examination . . y y . . . . . .",
		"publish         . o y . . . . o . .",
		"hear            o o y . . . . o . .",
		"no-such-action  . . . . . . . . . .",
	} {
		fields := strings.Fields(line)
		action := Action(fields[0])
		use, _ := UseOf(action)
		for i, want := range fields[1:] {
			allow := func(f Facts) bool {
				return a.Decide(Question{who[i], action, Resource{use.Resource, "x"}, f}).Allow
			}
			plain, own, granted := allow(Facts{}), allow(Facts{Own: true}), allow(Facts{Granted: true})
			wantOwn := want == "y" || want == "o" || want == "g" && who[i].Kind == AvatarSelf // an avatar has itself, too
			if plain != (want == "y") || own != wantOwn || granted != (want == "y" || want == "g") {
				t.Errorf("%s by %s: %v, own %v, granted %v; want %s", action, who[i], plain, own, granted, want)
			}
		}
	}
}

// A grant permits what is named here, and nothing that is added later.
func TestWhatAGrantPermits(t *testing.T) {
	a := authorizer(t, nil, false)
	want := []Action{"get-avatar", "get-did", "get-history", "get-state", "list-avatars", "watch-avatar"}
	for _, who := range []Principal{{Kind: Application, Name: "p"}, {Kind: AvatarSelf, Name: "v"}} {
		var permitted []Action
		for action, use := range Actions() {
			q := Question{who, action, Resource{use.Resource, "x"}, Facts{}}
			without := a.Decide(q).Allow
			if q.Facts.Granted = true; !without && a.Decide(q).Allow {
				permitted = append(permitted, action)
			}
		}
		slices.Sort(permitted)
		if !slices.Equal(permitted, want) {
			t.Errorf("granted, %s may %v, want %v", who.Kind, permitted, want)
		}
	}
}

func TestEveryActionIsInAGroupAndAboutSomething(t *testing.T) {
	for action, use := range Actions() {
		if !slices.Contains(groups, use.Group) || !slices.Contains(resourceKinds, use.Resource) {
			t.Errorf("%s: %+v", action, use)
		}
	}
}

func TestARefusalNamesItsRule(t *testing.T) {
	a := authorizer(t, map[string][]byte{"house.cedar": []byte(`
		@id("nobody-at-night") forbid (principal == Person::"bob", action, resource);
		@id("errs") forbid (principal == Person::"eve", action, resource) when { context.nothing };`)}, false)
	for _, c := range []struct {
		who    Principal
		allow  bool
		policy string
		says   string
	}{
		{Bearer("ann", Administrator), true, "administrator-everything", "ann (administrator) may get-status of party hub: policy administrator-everything permits it"},
		{Bearer("bob", Administrator), false, "nobody-at-night", "forbids it"},
		{Bearer("eve", Administrator), false, "errs", "cannot be evaluated"},
		{Bearer("joe", User), false, "", "joe (user) may not get-status of party hub: no policy permits it"},
		{Bearer("odd", "admin"), false, "", "no such role"},
		{Principal{Person, "x", Service}, false, "", "isn't one of that kind"},
		{Principal{Application, "x", Administrator}, false, "", "isn't one of that kind"},
		{Principal{"King", "x", ""}, false, "", "no such kind"},
	} {
		for range 2 { // asked, then kept
			d := a.Decide(Question{c.who, "get-status", Resource{PartyResource, "hub"}, Facts{}})
			if d.Allow != c.allow || d.Policy != c.policy || !strings.Contains(d.Sentence, c.says) {
				t.Errorf("%s: %+v", c.who, d)
			}
		}
	}
	if d := a.Decide(Question{Bearer("ann", Administrator), "get-status", Resource{ThingResource, "hub"}, Facts{}}); d.Allow {
		t.Errorf("an action about something else: %+v", d)
	}
}

func TestFilesThatCantBe(t *testing.T) {
	for _, c := range []struct {
		name, text string
		replace    bool
		says       string
	}{
		{"house.cedar", "permit (principal, action, resource)", false, "house.cedar is not Cedar"},
		{"house.cedar", "\n\npermit (principal, action, resource)\nwhen { ( };", false, ":4:"},
		{"house.cedar", `@id("granted") permit (principal, action, resource);`, false, `"granted" stands twice`},
		{"roles.cedar", `permit (principal, action, resource);`, false, "called roles.cedar"},
		{"house.cedar", "\npermit (principal in Role::\"operator\", action, resource);", false, `house.cedar:2) names Role::"operator"`},
		{"house.cedar", `permit (principal, action in [Action::"see", Action::"destroy"], resource);`, false, `Action::"destroy"`},
		{"house.cedar", `permit (principal is Robot, action, resource);`, false, `names Robot`},
		{"house.cedar", `permit (principal, action, resource) when { principal in Role::"boss" };`, false, `Role::"boss"`},
		{"house.cedar", `permit (principal, action, resource) when { resource is Ship };`, false, `names Ship`},
		{"", "", true, "nobody could do anything"},
	} {
		files := map[string][]byte{c.name: []byte(c.text)}
		if c.name == "" {
			files = nil
		}
		if _, err := NewAuthorizer(files, c.replace); carnet.CodeOf(err) != carnet.Malformed || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q: %v, want %q", c.text, err, c.says)
		}
	}
}

func TestReplacedRolesAreGone(t *testing.T) {
	a := authorizer(t, map[string][]byte{"roles.cedar": []byte(`permit (principal == Person::"ann", action, resource);`)}, true)
	q := Question{Bearer("root", Administrator), "get-status", Resource{PartyResource, "hub"}, Facts{}}
	if a.Decide(q).Allow {
		t.Error("the built-in roles still permit")
	}
	q.Principal.Name = "ann"
	if d := a.Decide(q); !d.Allow || d.Policy != "roles.cedar:1" {
		t.Errorf("%+v", d)
	}
	if a.Version() == authorizer(t, nil, false).Version() || len(a.Version()) != 16 {
		t.Errorf("version %s", a.Version())
	}
}

// What is kept is never another question's answer.
func TestKeptAnswersAreTheQuestions(t *testing.T) {
	a := authorizer(t, nil, false)
	for round := range 2 {
		for i := range 3 * keptAnswers {
			role := User
			if i%2 == 0 {
				role = Administrator
			}
			q := Question{Bearer(fmt.Sprint("n", i%1000), role), "get-thing", Resource{ThingResource, fmt.Sprint("t", i)}, Facts{Own: i%3 == 0}}
			if d := a.Decide(q); d.Allow != (role == Administrator || i%3 == 0) {
				t.Fatalf("round %d: %+v: %+v", round, q, d)
			}
			if i > 2000 && round == 1 {
				break
			}
		}
	}
}

func TestOldRolesSayWhatTheyAreCalledNow(t *testing.T) {
	for old, now := range map[string]string{"operator": "administrator", "owner": "user", "reader": "service"} {
		if _, err := ParseRole(old); carnet.CodeOf(err) != carnet.Malformed || !strings.Contains(err.Error(), "write "+now) {
			t.Errorf("%s: %v", old, err)
		}
	}
}

// BenchmarkDecide is a question that was asked before.
func BenchmarkDecide(b *testing.B) {
	a := authorizer(b, nil, false)
	q := Question{Principal{Kind: Application, Name: "00112233445566778899aabbccddeeff"}, "get-history",
		Resource{AvatarResource, "ffeeddccbbaa99887766554433221100"}, Facts{Granted: true, Purpose: "coaching"}}
	if !a.Decide(q).Allow {
		b.Fatal("refused")
	}
	b.ReportAllocs()
	for b.Loop() {
		if !a.Decide(q).Allow {
			b.Fatal("refused")
		}
	}
}

// BenchmarkDecideNew is a question that wasn't: what Cedar costs.
func BenchmarkDecideNew(b *testing.B) {
	a := authorizer(b, nil, false)
	q := Question{Principal{Kind: Application, Name: "00112233445566778899aabbccddeeff"}, "get-history",
		Resource{AvatarResource, "ffeeddccbbaa99887766554433221100"}, Facts{Granted: true, Purpose: "coaching"}}
	b.ReportAllocs()
	for b.Loop() {
		if !a.ask(q).Allow {
			b.Fatal("refused")
		}
	}
}

// Nobody is asked about who can't be.
func TestAPrincipalIsSomebodyWhoCanBe(t *testing.T) {
	for _, p := range []Principal{
		Bearer("alice", Auditor), Bearer("poller", Service), {Kind: Application, Name: "a"}, {Kind: Nobody},
	} {
		if err := p.Valid(); err != nil {
			t.Errorf("%+v: %v", p, err)
		}
	}
	for _, p := range []Principal{
		{}, {Kind: "Persona", Name: "alice", Role: User}, {Kind: Person, Name: "alice"}, {Kind: Person, Name: "alice", Role: "owner"},
		{Kind: Person, Name: "alice", Role: Service}, {Kind: Program, Name: "poller"}, {Kind: Program, Name: "poller", Role: Administrator},
		{Kind: Application, Name: "a", Role: Administrator},
	} {
		if err := p.Valid(); carnet.CodeOf(err) != carnet.Malformed {
			t.Errorf("%+v: %v", p, err)
		}
	}
}
