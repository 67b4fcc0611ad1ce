package demo

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"carnet"
	"carnet/job"
)

const (
	second     = time.Second
	sameOutput = job.Same
)

func clock(t time.Time) string { return t.UTC().Format("15:04:05.000") }

// sees is a check of which properties a world has.
func sees(name string, world carnet.PartyID, want ...string) check {
	return check{name, func(v *seen) (bool, string, string) {
		got := v.properties(world)
		return slices.Equal(got, want), fmt.Sprintf("%s has %s", world, strings.Join(got, ", ")), strings.Join(want, ", ")
	}}
}

// properties are those of all that a world holds, in order.
func (v *seen) properties(world carnet.PartyID) (all []string) {
	for _, h := range v.held[world] {
		if !slices.Contains(all, h.Measurement.Name) {
			all = append(all, h.Measurement.Name)
		}
	}
	slices.Sort(all)
	return all
}

// at is what is held of a property.
func (v *seen) at(world carnet.PartyID, property string) (all []carnet.Measurement) {
	for _, h := range v.held[world] {
		if h.Measurement.Name == property {
			all = append(all, h.Measurement)
		}
	}
	return all
}

// watchChecks are those of the story watch, beside those of every story.
var watchChecks = []check{
	{"several-sensors", func(v *seen) (bool, string, string) {
		return len(v.sensed["watch"]) >= 5, fmt.Sprintf("%d properties of one watch in hub's log", len(v.sensed["watch"])), "at least 5"
	}},
	sees("arena-sees-its-view", "arena", "cadence", "heart_rate", "speed", "steps"),
	sees("clinic-sees-its-view", "clinic", "heart_rate", "position/lat", "position/lon", "stress"),
	none("arena-heart-rate-rounded", "every heart rate in arena a multiple of 5", func(v *seen) (faults []string) {
		for _, m := range v.at("arena", "heart_rate") {
			if math.Mod(m.Value.Num, 5) != 0 {
				faults = append(faults, fmt.Sprintf("a heart rate of %v", m.Value.Num))
			}
		}
		return faults
	}),
	none("clinic-heart-rate-exact", "every heart rate in the clinic one that the watch told then", func(v *seen) (faults []string) {
		for _, m := range v.at("clinic", "heart_rate") {
			if !slices.ContainsFunc(v.logged, func(l carnet.Measurement) bool { return l.Name == m.Name && l.Time == m.Time && l.Value == m.Value }) {
				faults = append(faults, fmt.Sprintf("a heart rate of %v at %s", m.Value.Num, clock(time.Unix(0, m.Time))))
			}
		}
		return faults
	}),
	none("clinic-position-coarse", "no position in the clinic that the watch told", func(v *seen) (faults []string) {
		for _, m := range slices.Concat(v.at("clinic", "position/lat"), v.at("clinic", "position/lon")) {
			if slices.ContainsFunc(v.logged, func(l carnet.Measurement) bool { return l.Name == m.Name && l.Value == m.Value }) {
				faults = append(faults, fmt.Sprintf("%s %v, exactly", m.Name, m.Value.Num))
			}
		}
		return faults
	}),
	none("worlds-unlinked", "no id and no key that both worlds know", func(v *seen) (faults []string) {
		for _, id := range v.ids["arena"] {
			if slices.Contains(v.ids["clinic"], id) {
				faults = append(faults, id+" at both")
			}
		}
		return faults
	}),
	counts("arena-jobs-done", "jobs of arena that DPMs did", 3, func(v *seen) int { return v.done("arena", "") }),
	counts("clinic-jobs-done", "jobs of the clinic that DPMs did", 3, func(v *seen) int { return v.done("clinic", "") }),
	none("two-dpms", "jobs done at both forge and lab", func(v *seen) (faults []string) {
		for _, dpm := range []carnet.PartyID{"forge", "lab"} {
			if v.done("", dpm) == 0 {
				faults = append(faults, "none at "+string(dpm))
			}
		}
		return faults
	}),
	none("each-dpm-serves-both", "jobs of both worlds done at each DPM", func(v *seen) (faults []string) {
		for _, dpm := range []carnet.PartyID{"forge", "lab"} {
			for _, world := range []carnet.PartyID{"arena", "clinic"} {
				if v.done(world, dpm) == 0 {
					faults = append(faults, fmt.Sprintf("none of %s at %s", world, dpm))
				}
			}
		}
		return faults
	}),
	{"heart-zones-right", func(v *seen) (bool, string, string) {
		j := v.asked("arena", "heartzones")
		if j == nil {
			return false, "no such job", "heart zones of arena's"
		}
		var said struct {
			Measurements          int
			Least, Mean, Greatest float64
		}
		if err := json.Unmarshal(j.output, &said); err != nil {
			return false, err.Error(), "a line of JSON"
		}
		n, least, mean, greatest := summed(v.inputs[j.ID], "heart_rate")
		found := fmt.Sprintf("%d heart rates from %g to %g, %.3f in the mean", said.Measurements, said.Least, said.Greatest, said.Mean)
		return n > 0 && said.Measurements == n && said.Least == least && said.Greatest == greatest && math.Abs(said.Mean-mean) < 1e-6, found,
			fmt.Sprintf("%d from %g to %g, %.3f, as arena's store has them", n, least, greatest, mean)
	}},
	none("labels-kept", "no job at forge labelled with location", func(v *seen) (faults []string) {
		for _, j := range v.report.Jobs {
			if j.At == "forge" && j.label.Sensitivity&carnet.Location != 0 {
				faults = append(faults, fmt.Sprintf("the job %s of %s", j.ID, j.World))
			}
		}
		return faults
	}),
	{"place-refused", func(v *seen) (bool, string, string) {
		places := make(map[carnet.PartyID]int)
		for _, j := range v.report.Jobs {
			if j.Program == placesQuery {
				places[j.At]++
			}
		}
		refused := len(v.refused["clinic"]) > 0 && !slices.ContainsFunc(v.refused["clinic"], func(why string) bool { return !strings.HasPrefix(why, "forge may not have the data") })
		return places["forge"] == 0 && places["lab"] == 1 && refused, fmt.Sprintf("the places ordered %d times at lab and %d at forge; the clinic recorded that it refused %q", places["lab"], places["forge"], v.refused["clinic"]),
			"once at lab, never at forge, and a record that the order for forge was refused, since it may not have the data"
	}},
	{"withdrawn-signed", func(v *seen) (bool, string, string) {
		j := v.asked("clinic", endlessQuery)
		if j == nil {
			return false, "no query without end", "one that was withdrawn"
		}
		return j.Outcome == "withdrawn" && j.content == "", fmt.Sprintf("the query without end, signed by %s as %s", j.At, j.Outcome), "withdrawn"
	}},
}

// summed sums up the values of a property.
func summed(all []carnet.Measurement, property string) (n int, least, mean, greatest float64) {
	for _, m := range all {
		if m.Name != property {
			continue
		}
		if n == 0 {
			least, greatest = m.Value.Num, m.Value.Num
		}
		least, greatest = min(least, m.Value.Num), max(greatest, m.Value.Num)
		n, mean = n+1, mean+m.Value.Num
	}
	return n, least, mean / float64(max(n, 1)), greatest
}
