package policy

import (
	"math/big"
	"strings"
	"testing"
	"time"

	"carnet"

	"pgregory.net/rapid"
)

// model is docs/design/policy.md sections 3 to 5 said once more, slowly: a
// history of what was admitted instead of a State, and exact fractions instead
// of float64.
type model struct {
	view    View
	history map[string][]admission // by leaf or object, in order of arrival
	open    map[string]*admission  // what still has fields to come
}

type admission struct {
	at     int64
	shown  float64
	fields map[string]bool
}

func (w *model) apply(p Property, at int64, v float64) (Verdict, float64) {
	pv, key, ok := w.view.property(p.Name)
	if !ok {
		return NotInView, v
	}
	if !calendarOpen(pv.Windows, at) {
		return OutsideWindow, v
	}
	object := key != p.Name
	open := w.open[key]
	follows := object && open != nil && open.at == at && !open.fields[p.Name]
	if pv.Rate != 0 && !follows {
		for _, a := range w.history[key] {
			if interval(at, pv.Rate) <= interval(a.at, pv.Rate) {
				return RateExceeded, v
			}
		}
	}
	shown := v
	if pv.Round != 0 {
		shown = nearest(v, pv.Round)
	}
	if past := w.history[key]; pv.Deadband != 0 && len(past) > 0 {
		change := shown - past[len(past)-1].shown
		if max(change, -change) < pv.Deadband.Float() {
			return WithinDeadband, v
		}
	}
	if !follows {
		w.history[key] = append(w.history[key], admission{at: at, shown: shown})
		open = &admission{at: at, fields: map[string]bool{}}
		w.open[key] = open
	}
	if object {
		open.fields[p.Name] = true
	}
	return Admitted, shown
}

func interval(at int64, rate time.Duration) int64 {
	q := new(big.Int)
	q.Div(big.NewInt(at), big.NewInt(int64(rate))) // Euclidean: floor, as rate > 0
	return q.Int64()
}

// nearest rounds the shortest decimal of v, not its binary fraction.
func nearest(v float64, step Decimal) float64 {
	exact, _ := new(big.Rat).SetString(big.NewFloat(v).Text('g', -1))
	q := exact.Quo(exact, big.NewRat(int64(step), int64(One)))
	half := big.NewRat(int64(q.Sign()), 2)
	q.Add(q, half)
	k := new(big.Int).Quo(q.Num(), q.Denom()) // towards zero
	shown, _ := new(big.Rat).Mul(new(big.Rat).SetInt(k), big.NewRat(int64(step), int64(One))).Float64()
	return shown
}

// calendarOpen asks each zone's stretches minute by minute of its week.
func calendarOpen(w Windows, at int64) bool {
	for _, z := range w.zones {
		local := time.Unix(0, at).In(z.loc)
		weekday := strings.ToLower(local.Weekday().String()[:3])
		clock, open := local.Format("15:04"), false
		for _, stretch := range z.stretches() {
			dayText, times, _ := strings.Cut(stretch, " ")
			first, last, _ := strings.Cut(strings.Replace(dayText, "daily", "mon-sun", 1), "-")
			if last == "" {
				last = first
			}
			const order = "montuewedthufrisatsun"
			day := strings.Index(order, weekday)
			if day >= strings.Index(order, first) && day <= strings.Index(order, last) && clock >= times[:5] && clock < times[6:] {
				open = true
			}
		}
		if !open {
			return false
		}
	}
	return true
}

func TestApplyAgreesWithTheModel(t *testing.T) {
	judge, err := NewJudge(map[string][]byte{"open.cedar": []byte(openDoor)})
	if err != nil {
		t.Fatal(err)
	}
	anybody := Reader{"anybody", carnet.Clearance{Sensitivity: carnet.AllSensitive}}
	rapid.Check(t, func(t *rapid.T) {
		drawn := anyView(t, "view")
		v := View{Properties: map[string]PropertyView{}}
		for name, pv := range drawn.Properties {
			pv.PrecisionM = 0
			if name == "accel" {
				pv.Deadband = 0
			}
			v.Properties[name] = pv
		}
		table, err := Compile(judge, watch, v, anybody, 1)
		if err != nil {
			t.Fatal(err)
		}
		var state State
		w := model{v, map[string][]admission{}, map[string]*admission{}}
		at := rapid.Int64Range(-86400, 7*86400).Draw(t, "start") * 1e9
		for range rapid.IntRange(1, 60).Draw(t, "count") {
			at += rapid.SampledFrom([]int64{-2e9, -1, 0, 1, 3e8, 1e9, 7e9, 36e11}).Draw(t, "pause")
			for _, prop := range rapid.SampledFrom([][]int{{heartRate}, {steps}, {accelX, accelY, accelZ}, {accelZ, accelX}}).Draw(t, "properties") {
				m := carnet.Measurement{Time: at, Value: carnet.Float(float64(rapid.IntRange(-30000, 30000).Draw(t, "value")) / 100)}
				want, shown := w.apply(watch[prop], at, m.Value.Num)
				if got := table.Apply(&state, prop, &m); got != want || m.Value.Num != shown {
					t.Fatalf("%s at %d: %v %v, the model has %v %v", watch[prop].Name, at, got, m.Value.Num, want, shown)
				}
			}
		}
	})
}
