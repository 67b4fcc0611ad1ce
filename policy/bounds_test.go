package policy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"carnet"
)

const (
	didOfCitadel = "did:key:z6MkpTHR8VNsBxYAAWHut2Geadd9jSwuBV8xRoAnwWsdvktH"
	didOfClinic  = "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp"
	anID         = "00112233445566778899aabbccddeeff"
)

func bounds(t testing.TB, document string) Bounds {
	t.Helper()
	b, err := ParseBounds([]byte(document))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBoundsHaveOneForm(t *testing.T) {
	for text, want := range map[string]string{
		`{}`:           `{}`,
		`{"store":{}}`: `{}`,
		`{"cross":{"items":[]},"store":{"depots":[]}}`:                                         `{"store":{"depots":[]},"cross":{"items":[]}}`,
		fmt.Sprintf(`{"transmit": {"worlds": [%q, %q]}}`, didOfCitadel, didOfClinic):           fmt.Sprintf(`{"transmit":{"worlds":[%q,%q]}}`, didOfClinic, didOfCitadel),
		`{"cross":{"until":"2027-01-01T01:00:00+01:00","sensitivity":"location+health"}}`:      `{"cross":{"until":"2027-01-01T00:00:00Z","sensitivity":"health+location"}}`,
		`{"transmit":{"onward":false},"use":{"modules":["heart-zones@1.0","gaze"],"dpms":[]}}`: `{"use":{"dpms":[],"modules":["gaze","heart-zones@1.0"]},"transmit":{"onward":false}}`,
	} {
		got, err := bounds(t, text).Document()
		if err != nil || string(got) != want {
			t.Errorf("%s is written %s (%v), want %s", text, got, err, want)
		}
		again, err := bounds(t, string(got)).Document()
		if err != nil || string(again) != want {
			t.Errorf("%s read and written is %s (%v)", want, again, err)
		}
	}
}

func TestBoundsThatAreRefused(t *testing.T) {
	for text, place := range map[string]string{
		`{"stores":{}}`:                                                            `"/stores"`,
		`{"store":{"depot":[]}}`:                                                   `"/store/depot"`,
		`{"use":{"purpose":[]}}`:                                                   `"/use/purpose"`,
		`{"transmit":{"world":[]}}`:                                                `"/transmit/world"`,
		`{"cross":{"history":true}}`:                                               `"/cross/history"`,
		`{"store":{"depots":null}}`:                                                `"/store/depots"`,
		`{"store":{"depots":["vault"]}}`:                                           `"/store/depots"`,
		`{"store":{"depots":[]},"store":{}}`:                                       `"/store"`,
		`{"use":{"purposes":["care","care"]}}`:                                     `"/use/purposes"`,
		`{"use":{"purposes":["Care"]}}`:                                            `"/use/purposes"`,
		`{"use":{"modules":["a@b@c"]}}`:                                            `"/use/modules"`,
		`{"transmit":{"applications":["gym"]}}`:                                    `"/transmit/applications"`,
		`{"transmit":{"onward":"no"}}`:                                             `"/transmit/onward"`,
		`{"transmit":{"sensitivity":""}}`:                                          `"/transmit/sensitivity"`,
		`{"transmit":{"sensitivity":"secret"}}`:                                    `"/transmit/sensitivity"`,
		`{"cross":{"from":"2026-12-01"}}`:                                          `"/cross/from"`,
		`{"cross":{"from":"2026-12-01T00:00:00.5Z"}}`:                              `"/cross/from"`,
		`{"cross":{"from":"2026-12-02T00:00:00Z","until":"2026-12-01T00:00:00Z"}}`: `"/cross/until"`,
		`{"cross":[]}`:                                                             `"/cross"`,
		`[]`:                                                                       ``, // the whole
	} {
		_, err := ParseBounds([]byte(text))
		if carnet.CodeOf(err) != carnet.Malformed || !strings.Contains(err.Error(), map[bool]string{true: "avatar policy at " + place, false: "the avatar policy: "}[place != ""]) {
			t.Errorf("%s: %v, want the place %s", text, err, place)
		}
	}
	for _, text := range []string{``, `{`, `{}{}`, `"x"`} {
		if _, err := ParseBounds([]byte(text)); carnet.CodeOf(err) != carnet.Malformed {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := ParseBounds([]byte(`{"store":{}` + strings.Repeat(" ", MaxBounds) + `}`)); carnet.CodeOf(err) != carnet.TooLarge {
		t.Errorf("too long: %v", err)
	}
}

// Each member forbids what it says and nothing else; what lacks forbids nothing.
func TestWhatBoundsForbid(t *testing.T) {
	noon := time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)
	var item carnet.ItemID
	if err := item.UnmarshalText([]byte(anID)); err != nil {
		t.Fatal(err)
	}
	health := carnet.Label{Sensitivity: carnet.Health}
	decisions := map[string]func(Bounds) error{
		"store":           func(b Bounds) error { return b.MayStore(didOfCitadel) },
		"purpose":         func(b Bounds) error { return b.MayUseFor("care") },
		"query":           func(b Bounds) error { return b.MayRun("sql", "") },
		"module":          func(b Bounds) error { return b.MayRun("wasm", "zones@1.0") },
		"dpm":             func(b Bounds) error { return b.MayComputeAt(didOfCitadel, health) },
		"world":           func(b Bounds) error { return b.MayGiveWorld(didOfCitadel, "citadel") },
		"application":     func(b Bounds) error { return b.MayGiveApplication(anID) },
		"avatar":          func(b Bounds) error { return b.MayGiveAvatar(anID) },
		"onward":          func(b Bounds) error { return b.MayPassOn() },
		"cross":           func(b Bounds) error { return b.MayCross(didOfCitadel, "citadel", noon) },
		"history":         func(b Bounds) error { return b.MayTakeHistory(carnet.Health) },
		"item":            func(b Bounds) error { return b.MayTakeItem(item) },
		"what others get": func(b Bounds) error { return within(carnet.Health, b.Most()) },
		"what goes along": func(b Bounds) error { return within(carnet.Health, b.MostHistory()) },
	}
	for document, forbidden := range map[string]string{
		`{}`:                      ``,
		`{"store":{"depots":[]}}`: `store`,
		fmt.Sprintf(`{"store":{"depots":[%q]}}`, didOfClinic):     `store`,
		fmt.Sprintf(`{"store":{"depots":[%q]}}`, didOfCitadel):    ``,
		`{"use":{"purposes":["play"]}}`:                           `purpose`,
		`{"use":{"purposes":["care"]}}`:                           ``,
		`{"use":{"engines":["sql"]}}`:                             `module`,
		`{"use":{"engines":["wasm"]}}`:                            `query`,
		`{"use":{"modules":["zones"]}}`:                           `query`,
		`{"use":{"modules":["zones@1.0"]}}`:                       `query`,
		`{"use":{"modules":["zones@1.1"]}}`:                       `module query`,
		`{"use":{"modules":[]}}`:                                  `module query`,
		`{"use":{"dpms":[]}}`:                                     `dpm`,
		fmt.Sprintf(`{"use":{"dpms":[%q]}}`, didOfCitadel):        ``,
		`{"transmit":{"worlds":[]}}`:                              `world`,
		fmt.Sprintf(`{"transmit":{"worlds":[%q]}}`, didOfCitadel): ``,
		`{"transmit":{"applications":[]}}`:                        `application`,
		fmt.Sprintf(`{"transmit":{"applications":[%q]}}`, anID):   ``,
		`{"transmit":{"avatars":[]}}`:                             `avatar`,
		`{"transmit":{"sensitivity":"personal"}}`:                 `dpm what others get`,
		`{"transmit":{"sensitivity":"health"}}`:                   ``,
		`{"transmit":{"onward":false}}`:                           `onward`,
		`{"transmit":{"onward":true}}`:                            ``,
		`{"cross":{"worlds":[]}}`:                                 `cross`,
		`{"cross":{"from":"2026-12-01T12:00:01Z"}}`:               `cross`,
		`{"cross":{"from":"2026-12-01T12:00:00Z"}}`:               ``,
		`{"cross":{"until":"2026-12-01T12:00:00Z"}}`:              `cross`,
		`{"cross":{"until":"2026-12-01T12:00:01Z"}}`:              ``,
		`{"cross":{"sensitivity":"public"}}`:                      `history what goes along`,
		`{"cross":{"items":[]}}`:                                  `item`,
		fmt.Sprintf(`{"cross":{"items":[%q]}}`, anID):             ``,
	} {
		b := bounds(t, document)
		for name, decide := range decisions {
			err := decide(b)
			if want := strings.Contains(" "+forbidden+" ", " "+name+" "); (err != nil) != want {
				t.Errorf("%s: %s: %v", document, name, err)
			}
		}
		if lines := b.Explain(nil); len(lines) == 0 || lines[0] == "" {
			t.Errorf("%s: nothing is said of it", document)
		}
	}
}

func within(s, most carnet.Sensitivity) error {
	if s&^most != 0 {
		return carnet.Errorf(carnet.Forbidden, "%s is above %s", s, most)
	}
	return nil
}

func TestBoundsByName(t *testing.T) {
	b, err := ReadBounds([]byte(`{"cross":{"worlds":["citadel"]},"use":{"purposes":["citadel"]}}`), func(name string) string {
		return map[string]string{"citadel": didOfCitadel}[name]
	})
	if err != nil || b.Cross.Worlds[0] != didOfCitadel || b.Use.Purposes[0] != "citadel" {
		t.Errorf("%+v, %v", b, err)
	}
	if _, err := ReadBounds([]byte(`{"cross":{"worlds":["arena"]}}`), func(string) string { return "" }); carnet.CodeOf(err) != carnet.Malformed {
		t.Errorf("a name that nobody has: %v", err)
	}
}
