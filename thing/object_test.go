package thing

import (
	"testing"
	"time"

	"carnet"
	"carnet/td"
)

func place(at time.Time, lat, lon float64) []carnet.Measurement {
	return []carnet.Measurement{
		{Name: "position/lat", Unit: "lat", Time: at.UnixNano(), Value: carnet.Float(lat)},
		{Name: "position/lon", Unit: "lon", Time: at.UnixNano(), Value: carnet.Float(lon)},
	}
}

// A message may hold something twice: it is stored once. A position whose fields
// are partly known is another position, and stays whole.
func TestDuplicatesInOneMessage(t *testing.T) {
	h := newHub(t)
	d := h.add(td.Watch())
	at := time.Now().Add(-time.Minute)
	pair := append(append(append([]carnet.Measurement{heart(at, 60), heart(at, 60)}, place(at, 55, 8)...), place(at, 55, 8)...), place(at, 55, 9)...)
	d.send(append(pair, heart(at, 60))...)
	logged := h.logged(d.id)
	want := append(append([]carnet.Measurement{heart(at, 60)}, place(at, 55, 8)...), place(at, 55, 9)...)
	if len(logged) != len(want) {
		t.Fatalf("the log holds %d measurements, want %d: %+v", len(logged), len(want), logged)
	}
	for i, m := range logged {
		if m.Name != want[i].Name || m.Value != want[i].Value {
			t.Errorf("measurement %d is %s %v, want %s %v", i, m.Name, m.Value.Num, want[i].Name, want[i].Value.Num)
		}
	}
}

// What a link reads from the log after a restart is what it would have taken from
// memory: the fields of positions together.
func TestPositionsOfOneMessageSurviveARestart(t *testing.T) {
	h := newHub(t)
	d := h.add(td.Watch())
	m := h.mapTo(d, `{"properties":{"position":{"precision_m":1000}}}`)
	h.world.disconnect()
	at := time.Now().Add(-time.Minute)
	var ms []carnet.Measurement
	for i := range 10 {
		ms = append(ms, place(at.Add(time.Duration(i)*time.Second), 55, 8+float64(i)/10)...)
	}
	d.send(ms...)
	h.restart()
	h.connect()
	h.world.untilHolds(len(ms))
	if n := len(h.world.values(m.Stream, "position/lon")); n != 10 {
		t.Errorf("the world holds %d longitudes, want 10", n)
	}
}

func TestAViewNamesWhatTheThingHas(t *testing.T) {
	h := newHub(t)
	d := h.add(td.Watch())
	m := h.mapTo(d, `{"properties":{"heart_rate":{},"position":{}}}`)
	for text, code := range map[string]carnet.Code{
		`{"properties":{"hart_rate":{}}}`:                      carnet.Malformed,
		`{"properties":{"heart_rate":{"precision_m":1000}}}`:   carnet.WrongType,
		`{"properties":{"position/lat":{"precision_m":1000}}}`: carnet.WrongType,
	} {
		if _, err := h.agent.SetView(t.Context(), "ann", m.ID, view(t, text)); carnet.CodeOf(err) != code {
			t.Errorf("a view %s: %v", text, err)
		}
	}
	info, err := h.agent.Mapping(m.ID)
	if err != nil || len(info.View.Properties) != 2 {
		t.Errorf("the view in force is %+v, %v", info.View, err)
	}
}
