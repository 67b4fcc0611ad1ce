package audit_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/audit"
	"carnet/policy"

	"pgregory.net/rapid"
)

// sender is what an agent does with one mapping: lanes that fall behind, views
// that change between, restarts, and frames that never arrived and are decided
// again. It uses the view engine as the agent does.
type sender struct {
	description []policy.Property
	lingers     []time.Duration // by property
	judge       *policy.Judge
	reader      policy.Reader

	log     []audit.Message
	table   *policy.Table
	stopped bool
	version uint64
	views   []audit.ViewVersion
	durable moment // after the last frame that arrived
	now     moment
}

// moment is what goes back when a frame didn't arrive.
type moment struct {
	state   []byte
	cursors map[int64]uint64
	sent    []audit.Held
}

func (m moment) clone() moment {
	return moment{slices.Clone(m.state), maps.Clone(m.cursors), slices.Clone(m.sent)}
}

func newSender(t tester, d []policy.Property, lingers []time.Duration, cedar string, clearance carnet.Clearance) *sender {
	judge, err := policy.NewJudge(map[string][]byte{"test.cedar": []byte(cedar)})
	if err != nil {
		t.Fatal(err)
	}
	s := &sender{description: d, lingers: lingers, judge: judge, reader: policy.Reader{Party: "arena", Clearance: clearance}}
	s.now.cursors = make(map[int64]uint64)
	for _, l := range lingers {
		s.now.cursors[l.Milliseconds()] = 1
	}
	var state policy.State
	if s.now.state, err = state.MarshalBinary(); err != nil {
		t.Fatal(err)
	}
	s.durable = s.now.clone()
	return s
}

type tester interface {
	Fatal(...any)
	Fatalf(string, ...any)
	Helper()
}

// setView puts a view in force for what isn't decided yet. lenient is how the
// facts are recorded: what judge and clearance said, or whether the table admits
// the property at all. Both must do.
func (s *sender) setView(t tester, view []byte, stopped, lenient bool) bool {
	v, err := policy.ParseView(view)
	if err != nil {
		t.Fatal(err)
	}
	s.version++
	table, err := policy.Compile(s.judge, s.description, v, s.reader, s.version)
	if err != nil {
		s.version--
		if _, err := audit.New(audit.Config{Views: []audit.ViewVersion{s.record(view, nil, stopped, lenient)}}); err == nil {
			t.Fatalf("the oracle takes %s, the engine doesn't", view)
		}
		return false
	}
	s.table, s.stopped = table, stopped
	s.views = append(s.views, s.record(view, table, stopped, lenient))
	return true
}

func (s *sender) record(view []byte, table *policy.Table, stopped, lenient bool) audit.ViewVersion {
	v := audit.ViewVersion{Version: s.version, View: view, Stopped: stopped, Since: maps.Clone(s.now.cursors)}
	for i, p := range s.description {
		admit := true
		if table != nil {
			r := table.Result(i)
			admit = r.Admit || lenient && r.Reason != policy.ExceedsClearance && r.Reason != policy.DeniedByPolicy
		}
		v.Properties = append(v.Properties, audit.Property{Name: p.Name, Unit: p.Unit, Kind: p.Kind, Linger: s.lingers[i], Admit: admit})
	}
	return v
}

func (s *sender) receive(ms []carnet.Measurement) {
	s.log = append(s.log, audit.Message{Position: uint64(len(s.log)) + 1, Measurements: ms})
}

// decide sends what waits in a lane.
func (s *sender) decide(t tester, lane int64) {
	if s.stopped {
		return
	}
	var state policy.State
	if err := state.UnmarshalBinary(s.now.state); err != nil {
		t.Fatal(err)
	}
	for _, message := range s.log[s.now.cursors[lane]-1:] {
		for _, m := range message.Measurements {
			i := slices.IndexFunc(s.description, func(p policy.Property) bool { return p.Name == m.Name })
			if s.lingers[i].Milliseconds() != lane {
				continue
			}
			m.Unit = s.description[i].Unit
			if s.table.Apply(&state, i, &m) == policy.Admitted {
				s.now.sent = append(s.now.sent, audit.Held{Number: uint64(len(s.now.sent)), Measurement: m})
			}
		}
	}
	s.now.cursors[lane] = uint64(len(s.log)) + 1
	var err error
	if s.now.state, err = state.MarshalBinary(); err != nil {
		t.Fatal(err)
	}
}

// arrive makes what was sent durable; lose takes it back, and the views in
// force from where it goes on are corrected, as the agent does.
func (s *sender) arrive() { s.durable = s.now.clone() }

func (s *sender) lose() {
	s.now = s.durable.clone()
	for i := range s.views {
		for lane, at := range s.now.cursors {
			if i > 0 {
				s.views[i].Since[lane] = min(s.views[i].Since[lane], at)
			}
		}
	}
}

func (s *sender) oracle(t tester, from uint64, upto map[int64]uint64) *audit.Oracle {
	t.Helper()
	o, err := audit.New(audit.Config{From: from, Views: s.views, Upto: upto})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func (s *sender) messages(_ context.Context, from uint64, do func(audit.Message) error) error {
	for _, m := range s.log[min(uint64(len(s.log)), max(from, 1)-1):] {
		if err := do(m); err != nil {
			return err
		}
	}
	return nil
}

func holdings(held []audit.Held) audit.Holdings {
	return func(_ context.Context, do func(audit.Held) error) error {
		for _, h := range held {
			if err := do(h); err != nil {
				return err
			}
		}
		return nil
	}
}

// requireSame compares bit by bit, property by property.
func requireSame(t tester, o *audit.Oracle, log audit.Log, sent []audit.Held) {
	t.Helper()
	byName := func(name string, ms []carnet.Measurement) (lines []string) {
		for _, m := range ms {
			if m.Name == name {
				lines = append(lines, fmt.Sprintf("%s %d %v %016x %q", m.Unit, m.Time, m.Value.Kind, math.Float64bits(m.Value.Num), m.Value.Str))
			}
		}
		return lines
	}
	var want, got []carnet.Measurement
	names := make(map[string]bool)
	for _, h := range sent {
		want = append(want, h.Measurement)
		names[h.Measurement.Name] = true
	}
	err := o.Recompute(context.Background(), log, func(a audit.Admitted) error {
		if a.Due {
			got = append(got, a.Measurement)
			names[a.Measurement.Name] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if w, g := byName(name, want), byName(name, got); !slices.Equal(w, g) {
			t.Fatalf("%s: the engine sent\n%s\nthe oracle admits\n%s", name, strings.Join(w, "\n"), strings.Join(g, "\n"))
		}
	}
	result, err := o.Audit(context.Background(), log, holdings(sent))
	if err != nil || result.Faults() != 0 || result.Held != len(sent) || result.Expected != len(sent) {
		t.Fatalf("the oracle says of a faithful sender of %d: %+v, %v", len(sent), result, err)
	}
}

const openDoor = `@id("all") permit (principal, action, resource);`

var everything = carnet.Clearance{Sensitivity: carnet.AllSensitive, Purposes: "care", Residency: "eu"}

func property(name string, k carnet.Kind, s carnet.Sensitivity) policy.Property {
	return policy.Property{Name: name, Unit: "unit of " + name, Kind: k, Label: carnet.Label{Sensitivity: s}, Retention: carnet.Month}
}

// anyDescription draws a thing: some leaves, and objects with their fields in
// one lane.
func anyDescription(t *rapid.T) (d []policy.Property, lingers []time.Duration) {
	add := func(linger time.Duration, ps ...policy.Property) {
		for _, p := range ps {
			d, lingers = append(d, p), append(lingers, linger)
		}
	}
	linger := func(name string) time.Duration {
		return rapid.SampledFrom([]time.Duration{0, time.Second, 10 * time.Second}).Draw(t, "linger of "+name)
	}
	add(linger("heart_rate"), property("heart_rate", carnet.Number, carnet.Health))
	add(linger("note"), property("note", carnet.Text, 0))
	add(linger("worn"), property("worn", carnet.Boolean, 0))
	position := []policy.Property{property("position/lat", carnet.Number, carnet.Location), property("position/lon", carnet.Number, carnet.Location)}
	switch rapid.IntRange(0, 4).Draw(t, "position") {
	case 0:
		position = append(position, property("position/alt", carnet.Number, 0))
	case 1:
		position = slices.Insert(position, 0, property("position/alt", carnet.Number, 0))
	case 2:
		position = append(position, property("position/fix", carnet.Text, 0))
	case 3:
		position[0].Kind = carnet.Text
	}
	add(linger("position"), position...)
	add(linger("accel"), property("accel/x", carnet.Number, 0), property("accel/y", carnet.Number, carnet.Personal), property("accel/z", carnet.Number, 0))
	return d, lingers
}

var names = []string{"heart_rate", "note", "worn", "position", "position/lat", "position/lon", "position/alt", "accel", "accel/x", "accel/y", "steps"}

// anyView draws a view's JSON; the engine may refuse it.
func anyView(t *rapid.T) []byte {
	properties := make(map[string]any)
	for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom(names), 0, 6, rapid.ID[string]).Draw(t, "names") {
		object, _, field := strings.Cut(name, "/")
		_, whole := properties[object]
		if field && whole || !field && slices.ContainsFunc(slices.Collect(maps.Keys(properties)), func(n string) bool { return strings.HasPrefix(n, name+"/") }) {
			continue
		}
		properties[name] = anySettings(t, name)
	}
	view, err := json.Marshal(map[string]any{"properties": properties})
	if err != nil {
		t.Fatal(err)
	}
	return view
}

func anySettings(t *rapid.T, name string) map[string]any {
	s := make(map[string]any)
	often := func(what string, n int) bool { return rapid.IntRange(1, n).Draw(t, name+" has "+what) == 1 }
	exact := name == "note" || name == "worn"
	if often("rate", 2) {
		s["rate"] = rapid.SampledFrom([]string{"1s", "3s", "700ms", "1h", "1ns"}).Draw(t, "rate")
	}
	if !exact && often("round", 3) {
		s["round"] = json.Number(rapid.SampledFrom([]string{"5", "0.1", "0.25", "100", "0.000000001", "0.3", "9223372036.854775807", "7"}).Draw(t, "round"))
	}
	if name == "position" && often("precision", 2) || often("precision of a leaf", 30) {
		s["precision_m"] = rapid.SampledFrom([]int{1, 10, 1000, 25000, 1000000}).Draw(t, "precision")
	}
	if !exact && (name != "position" && name != "accel" || often("deadband of an object", 30)) && often("deadband", 3) {
		s["deadband"] = json.Number(rapid.SampledFrom([]string{"1", "0.1", "5.000000001", "1000"}).Draw(t, "deadband"))
	}
	if often("windows", 5) {
		s["windows"] = rapid.SampledFrom([]map[string][]string{
			{"UTC": {"daily 22:00-06:00"}}, {"Europe/Oslo": {"mon-fri 08:00-18:00", "sat-sun 10:00-11:30"}},
			{"UTC": {}}, {"America/New_York": {"daily 00:00-24:00"}, "Asia/Kathmandu": {"fri-mon 12:00-00:00"}},
		}).Draw(t, "windows")
	}
	return s
}

func anyValue(t *rapid.T, p policy.Property) carnet.Value {
	switch {
	case rapid.IntRange(1, 40).Draw(t, "of another kind") == 1:
		return rapid.SampledFrom([]carnet.Value{carnet.String("7"), carnet.Bool(true), carnet.Float(7)}).Draw(t, "odd value")
	case p.Kind == carnet.Text:
		return carnet.String(rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "text"))
	case p.Kind == carnet.Boolean:
		return carnet.Bool(rapid.Bool().Draw(t, "boolean"))
	case rapid.IntRange(1, 25).Draw(t, "special") == 1:
		return carnet.Float(rapid.SampledFrom([]float64{math.Copysign(0, -1), math.NaN(), math.Inf(1), 1e300, -1e16, 1 << 53, 90, -90, 180, -180, 200}).Draw(t, "special value"))
	case p.Name == "position/lat":
		return carnet.Float(rapid.Float64Range(-90, 90).Draw(t, "lat"))
	case p.Name == "position/lon":
		return carnet.Float(rapid.Float64Range(-180, 180).Draw(t, "lon"))
	}
	return carnet.Float(float64(rapid.IntRange(-30000, 30000).Draw(t, "value")) / 100)
}

// anyMessage draws what a device sends: fields of one object together, now and
// then without some (duplicates that the agent has dropped).
func anyMessage(t *rapid.T, d []policy.Property, at int64) (ms []carnet.Measurement) {
	for _, group := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"heart_rate", "note", "worn", "position", "accel"}), 1, 3, rapid.ID[string]).Draw(t, "groups") {
		for _, p := range d {
			if name, _, _ := strings.Cut(p.Name, "/"); name == group && rapid.IntRange(1, 12).Draw(t, "known already") != 1 {
				ms = append(ms, carnet.Measurement{Name: p.Name, Unit: p.Unit, Time: at, Value: anyValue(t, p)})
			}
		}
	}
	return ms
}

func anyPolicy(t *rapid.T) string {
	return rapid.SampledFrom([]string{openDoor, openDoor, openDoor +
		`@id("no y") forbid (principal, action, resource) when { resource.name == "accel/y" };`, openDoor +
		`@id("no lon") forbid (principal, action, resource) when { resource.name == "position/lon" };`}).Draw(t, "policy")
}

func TestOracleAgreesWithTheEngine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		clearance := everything
		if rapid.IntRange(1, 5).Draw(t, "clearance") == 1 {
			clearance.Sensitivity = rapid.SampledFrom([]carnet.Sensitivity{carnet.Health, carnet.Location | carnet.Personal}).Draw(t, "sensitivity")
		}
		d, lingers := anyDescription(t)
		s := newSender(t, d, lingers, anyPolicy(t), clearance)
		for !s.setView(t, anyView(t), false, rapid.Bool().Draw(t, "lenient")) {
		}
		lanes := slices.Sorted(maps.Keys(s.now.cursors))
		at := rapid.SampledFrom([]int64{-5e9, 0, 1_774_746_000e9 /* before the clocks change */}).Draw(t, "start")
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(1, 16).Draw(t, "step") {
			default:
				at += rapid.SampledFrom([]int64{-2e9, -1, 0, 0, 1, 3e8, 1e9, 7e9, 36e11}).Draw(t, "pause")
				s.receive(anyMessage(t, d, at))
			case 11, 12, 13:
				s.decide(t, rapid.SampledFrom(lanes).Draw(t, "lane"))
			case 14:
				s.arrive()
			case 15:
				s.lose()
			case 16:
				s.setView(t, anyView(t), rapid.IntRange(1, 6).Draw(t, "stopped") == 1, rapid.Bool().Draw(t, "lenient"))
			}
		}
		upto := s.now.cursors
		if !s.stopped && rapid.Bool().Draw(t, "nothing waits") {
			upto = nil
			for _, lane := range lanes {
				s.decide(t, lane)
			}
		}
		requireSame(t, s.oracle(t, 1, upto), s.messages, s.now.sent)
	})
}
