package policy

import (
	"slices"
	"strings"
	"testing"

	"carnet"
)

// A line for each property says what becomes of it, and no line contradicts
// another: what the view shows and the clearance withholds is withheld.
func TestExplain(t *testing.T) {
	const view = `{"properties":{"heart_rate":{"round":5,"rate":"1s"},"position":{"precision_m":1000,"rate":"1h30m"},"note":{},
		"steps":{"deadband":10,"windows":{"Europe/Oslo":["mon-fri 08:00-18:00"]}},"accel/x":{"round":0.5}},
		"purposes":["care"],"retention":"day","send":{"UTC":[]}}`
	arena := Reader{"arena", carnet.Clearance{Sensitivity: carnet.Health, Purposes: "care", Residency: "eu"}}
	received := []string{
		"heart_rate: nearest 5 beat/min, at most one a second",
		"steps: only changes of 10 or more, measured mon-fri 08:00-18:00 (Europe/Oslo)",
		"position: to 1 km, at most one each 1h30m",
		"note: exact",
		"accel/x: nearest 0.5 m/s2",
		"accel/y: withheld: the view does not name it",
		"accel/z: withheld: the view does not name it",
		"purposes: care",
		"retention: day",
		"sent: never",
	}
	for _, row := range []struct {
		reader   Reader
		position string // what is said of it
	}{
		{clinic, received[2]},
		{arena, "position: withheld: arena may not receive position/lat: "},
	} {
		got := compile(t, openDoor, view, row.reader).Explain(watch)
		want := slices.Clone(received)
		if want[2] = row.position; row.reader.Party == "arena" && len(got) > 2 && strings.HasPrefix(got[2], row.position) {
			want[2] = got[2]
		}
		if !slices.Equal(got, want) {
			t.Errorf("for %s it explains\n%s\nwant\n%s", row.reader.Party, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// Degrees are shown as such.
func TestExplainDegrees(t *testing.T) {
	got := compile(t, openDoor, `{"properties":{"position/lat":{"round":0.5}}}`, clinic).Explain(watch)
	if !slices.Contains(got, "position/lat: nearest 0.5°") || !slices.Contains(got, "accel: withheld: the view does not name it") {
		t.Errorf("explains\n%s", strings.Join(got, "\n"))
	}
}

func TestPrecisionIsForPositions(t *testing.T) {
	for view, code := range map[string]carnet.Code{
		`{"properties":{"position":{"precision_m":100}}}`:     "",
		`{"properties":{"heart_rate":{"precision_m":100}}}`:   carnet.WrongType,
		`{"properties":{"accel":{"precision_m":100}}}`:        carnet.WrongType,
		`{"properties":{"position/lat":{"precision_m":100}}}`: carnet.WrongType,
	} {
		v, err := ParseView([]byte(view))
		if err != nil {
			t.Fatal(err)
		}
		if err := v.CheckPrecision(watch); carnet.CodeOf(err) != code {
			t.Errorf("%s: %v, want the code %q", view, err, code)
		}
	}
}
