package demo

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"

	"carnet"
	"carnet/crossing/move"
	"carnet/identity"
	"carnet/item"
)

// theMove is the story's one move; the zero Move without exactly one.
func (v *seen) theMove() Move {
	if len(v.report.Moves) != 1 {
		return Move{}
	}
	return v.report.Moves[0]
}

// carried finds an item by its issuer's kind; nil without exactly one.
func (v *seen) carried(kind string) (found *Item) {
	for i := range v.report.Items {
		if v.report.Items[i].Kind == kind {
			if found != nil {
				return nil
			}
			found = &v.report.Items[i]
		}
	}
	return found
}

// ofMove is a check of something that the move's both sides must have.
func ofMove(name, expected string, ok func(Move) bool, found func(Move) string) check {
	return check{name, func(v *seen) (bool, string, string) { m := v.theMove(); return ok(m), found(m), expected }}
}

// ofItem is a check of what an item is in citadel.
func ofItem(name, kind, as string, also func(*Item) bool) check {
	return check{name, func(v *seen) (bool, string, string) {
		i := v.carried(kind)
		if i == nil {
			return false, "not exactly one " + kind, "one"
		}
		return i.As == as && i.States["citadel"] == item.Here && also(i), fmt.Sprintf("the %s %q is %s in citadel, as %q", kind, i.Title, i.States["citadel"], i.As), "that it is here, as a " + as
	}}
}

// gameChecks are those of the story game, beside those of every story.
var gameChecks = []check{
	none("several-senses", "head, gaze and body temperature in hub's log", func(v *seen) (faults []string) {
		for thing, properties := range map[string][]string{"headset": {"head/x", "gaze/w"}, "band": {"body_temperature"}} {
			for _, p := range properties {
				if !slices.Contains(v.sensed[thing], p) {
					faults = append(faults, fmt.Sprintf("no %s of the %s", p, thing))
				}
			}
		}
		return faults
	}),
	{"one-avatar-of-two-things", func(v *seen) (bool, string, string) {
		m, none := v.theMove(), carnet.AvatarID{}
		before, after := [2]carnet.AvatarID{v.mapped["headset before"], v.mapped["band before"]}, [2]carnet.AvatarID{v.mapped["headset in citadel"], v.mapped["band in citadel"]}
		ok := before[0] == before[1] && after[0] == after[1] && before[0] == m.Avatar && after[0] == m.For && after[0] != none
		return ok, fmt.Sprintf("headset and band mapped to %s and %s before, to %s and %s since", short(before[0]), short(before[1]), short(after[0]), short(after[1])), "one avatar before and one since, those of the move"
	}},
	ofMove("one-home", "home and gone", func(m Move) bool { return m.State == move.Home && m.Leaving == move.Gone },
		func(m Move) string { return fmt.Sprintf("at citadel %q, at arena %q", m.State, m.Leaving) }),
	ofMove("registered-once", "one commit that both have", func(m Move) bool { return m.Outcome == identity.Commit },
		func(m Move) string { return fmt.Sprintf("the register's decision that both have is %q", m.Outcome) }),
	ofMove("ordered-by-the-owner", "one order by the registered key at both", func(m Move) bool { return m.State != "" && m.mandated == "" },
		func(m Move) string { return "the owner's order: " + orWell(m.mandated) }),
	ofMove("same-manifest", "that they are", func(m Move) bool { return m.manifests },
		func(m Move) string {
			return "release and acceptance " + map[bool]string{true: "are of one manifest", false: "aren't of one manifest"}[m.manifests]
		}),
	{"history-came", func(v *seen) (bool, string, string) {
		n, want := 0, v.theMove().Measurements
		for _, h := range v.held["citadel"] {
			if v.former[h.Stream] {
				n++
			}
		}
		return uint64(n) == want && n > 0, fmt.Sprintf("%d measurements of before in citadel", n), fmt.Sprintf("the %d of the manifest", want)
	}},
	none("state-came", "a newest value in citadel of all that the avatar had", func(v *seen) (faults []string) {
		for _, p := range []string{"body_temperature", "gaze/w", "gaze/x", "gaze/y", "gaze/z", "head/x", "head/y", "head/z", "temperature"} {
			if !slices.Contains(v.state["citadel"], p) {
				faults = append(faults, "none of "+p)
			}
		}
		return faults
	}),
	{"arena-emptied", func(v *seen) (bool, string, string) {
		m := v.theMove()
		return len(v.held["arena"]) == 0 && m.departed, fmt.Sprintf("%d measurements left in arena; its receipt for what it deleted is there: %v", len(v.held["arena"]), m.departed), "none, and the receipt"
	}},
	ofMove("frozen-shortly", "at most 2 s", func(m Move) bool { return m.State == move.Home && m.Frozen > 0 && m.Frozen <= 2 },
		func(m Move) string { return fmt.Sprintf("frozen for %.2f s", m.Frozen) }),
	none("plays-on", "measurements in citadel of both things since the move", func(v *seen) (faults []string) {
		n := make(map[string]int)
		for _, h := range v.held["citadel"] {
			n[v.current[h.Stream]]++
		}
		for _, thing := range []string{"headset", "band"} {
			if n[thing] == 0 {
				faults = append(faults, "none of the "+thing)
			}
		}
		return faults
	}),
	ofItem("sword-carried", "sword", "blade", func(i *Item) bool { p, ok := i.power.(float64); return ok && p <= powerMost }),
	ofItem("skin-carried", "skin", "coat", func(*Item) bool { return true }),
	none("items-once", "each of the two items here in citadel, and gone from arena", func(v *seen) (faults []string) {
		if len(v.report.Items) != 2 {
			faults = append(faults, number(len(v.report.Items), "item"))
		}
		for _, i := range v.report.Items {
			if i.States["citadel"] != item.Here || i.States["arena"] != item.Gone {
				faults = append(faults, fmt.Sprintf("the %s %v", i.Kind, i.States))
			}
		}
		return faults
	}),
	none("items-proved", "each item's chain proved, from arena's issue to citadel", func(v *seen) (faults []string) {
		for _, i := range v.report.Items {
			if !i.Proved || i.Issuer != "arena" || i.Entries < 2 {
				faults = append(faults, fmt.Sprintf("the %s of %s, in %d entries, proved: %v", i.Kind, i.Issuer, i.Entries, i.Proved))
			}
		}
		return faults
	}),
	none("move-stated", "statements with receipts of arena, citadel and hub", func(v *seen) (faults []string) {
		for _, p := range []string{"arena", "citadel", "hub"} {
			if !slices.Contains(v.moved, p) {
				faults = append(faults, "none of "+p)
			}
		}
		return faults
	}),
	counts("dpm-used", "jobs of citadel that forge did", 2, func(v *seen) int { return v.done("citadel", "forge") }),
	{"over-both-halves", func(v *seen) (bool, string, string) {
		before, since := 0, 0
		if j := v.asked("citadel", "gazemap"); j != nil {
			for _, s := range j.streams {
				if v.former[s] {
					before++
				} else if v.current[s] != "" {
					since++
				}
			}
		}
		return before > 0 && since > 0, fmt.Sprintf("inputs of the gaze map: %d of before the move, %d of since", before, since), "of both"
	}},
	{"gaze-map-right", func(v *seen) (bool, string, string) {
		j := v.asked("citadel", "gazemap")
		if j == nil {
			return false, "no such job", "a gaze map"
		}
		var said struct {
			Directions int
			Seconds    float64
			Cells      [][]float64
		}
		if err := json.Unmarshal(j.output, &said); err != nil {
			return false, err.Error(), "a line of JSON"
		}
		n, _, _, _ := summed(v.inputs[j.ID], "gaze/w")
		sum := 0.0
		for _, row := range said.Cells {
			for _, s := range row {
				sum += s
			}
		}
		return n > 0 && said.Directions == n && said.Seconds > 0 && math.Abs(sum-said.Seconds) < 0.01*said.Seconds, fmt.Sprintf("%d directions, %.2f s in all and %.2f s in the cells", said.Directions, said.Seconds, sum),
			fmt.Sprintf("the %d that citadel's store has, and the same time", n)
	}},
	{"temperature-right", func(v *seen) (bool, string, string) {
		j := v.asked("citadel", warmth)
		if j == nil {
			return false, "no such job", "a query about it"
		}
		lines := bytes.Split(bytes.TrimSpace(j.output), []byte("\n"))
		var row [4]float64
		if err := json.Unmarshal(lines[len(lines)-1], &row); err != nil {
			return false, err.Error(), "a line of JSON"
		}
		n, least, mean, most := summed(v.inputs[j.ID], "body_temperature")
		return n > 0 && int(row[0]) == n && row[1] == least && row[3] == most && math.Abs(row[2]-mean) < 1e-6, fmt.Sprintf("%g temperatures from %g to %g °C", row[0], row[1], row[3]),
			fmt.Sprintf("%d from %g to %g, as citadel's store has them", n, least, most)
	}},
}

func orWell(s string) string {
	if s == "" {
		return "one, by the registered key"
	}
	return s
}

func short(id carnet.AvatarID) string { return id.String()[:8] }
