package demo

import (
	"fmt"
	"slices"
	"strings"

	"carnet"
)

// Check is one thing that a story is judged by.
type Check struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	// Detail says what was found, and of a check that isn't ok what was expected.
	Detail string `json:"detail"`
}

// check is how something is judged by what was seen in the parties' stores. Which of
// them is broken by what is in docs/design/stories.md.
type check struct {
	name string
	of   func(*seen) (ok bool, found, expected string)
}

// judged judges by the script's checks.
func (v *seen) judged(checks []check) (all []Check) {
	all = []Check{}
	for _, c := range checks {
		ok, found, expected := c.of(v)
		if !ok {
			found = fmt.Sprintf("found %s; expected %s", found, expected)
		}
		all = append(all, Check{c.name, ok, found})
	}
	return all
}

// none is a check that there is nothing to find fault with.
func none(name, expected string, faults func(*seen) []string) check {
	return check{name, func(v *seen) (bool, string, string) {
		found := faults(v)
		if len(found) == 0 {
			return true, expected, ""
		}
		slices.Sort(found)
		more := ""
		if len(found) > 3 {
			more = fmt.Sprintf(", and %d more", len(found)-3)
			found = found[:3]
		}
		return false, strings.Join(found, "; ") + more, expected
	}}
}

// counts is a check of how many there are.
func counts(name, what string, want int, n func(*seen) int) check {
	return check{name, func(v *seen) (bool, string, string) {
		got := n(v)
		return got == want, fmt.Sprintf("%d %s", got, what), fmt.Sprint(want)
	}}
}

// ofEvery are the checks of each story.
var ofEvery = []check{
	{"told-to-the-end", func(v *seen) (bool, string, string) {
		if v.told == "" {
			return true, "all acts were done", ""
		}
		return false, v.told, "that all acts are done"
	}},
	{"devices-acknowledged", func(v *seen) (bool, string, string) {
		d := v.report.Device
		found := fmt.Sprintf("%d of %d messages acknowledged, %d refused", d.Acknowledged, d.Published, d.Refused)
		return d.Published > 0 && d.Acknowledged == d.Published && d.Refused == 0, found, "all of at least one acknowledged, and none refused"
	}},
	{"passed-on", func(v *seen) (bool, string, string) {
		return v.report.Settled, map[bool]string{true: "everything had reached worlds and ledger", false: "something that was still under way: see findings"}[v.report.Settled], "that nothing is"
	}},
	counts("nothing-lost", "measurements lost", 0, func(v *seen) int { return v.report.Lost }),
	counts("nothing-doubled", "measurements doubled", 0, func(v *seen) int { return v.report.Doubled }),
	counts("nothing-extra", "measurements too many", 0, func(v *seen) int { return v.report.Extra }),
	counts("nothing-reordered", "orders that aren't the log's", 0, func(v *seen) int { return v.report.Reordered }),
	{"evidence-true", func(v *seen) (bool, string, string) {
		return v.report.Verified, map[bool]string{true: "every avatar's evidence is true", false: "evidence that isn't: see findings"}[v.report.Verified], "that every avatar's evidence is true"
	}},
	none("all-receipted", "a receipt for each statement of every party", func(v *seen) (faults []string) {
		for party, n := range v.pending {
			if n > 0 {
				faults = append(faults, fmt.Sprintf("%s without receipt at %s", number(n, "statement"), party))
			}
		}
		return faults
	}),
	none("nothing-half-done", "nothing half done at any party", func(v *seen) []string { return slices.Clone(v.half) }),
}

// ofJobs are the checks of every story with DPMs.
var ofJobs = []check{
	none("jobs-as-ordered", "of each job the world's signed order and the DPM's signed result at both", eachJob(func(j *Job) string { return j.atDPM })),
	none("times-recorded", "of each job that it was ordered, began and ended in this order", eachJob(func(j *Job) string {
		if j.Began.Before(j.Made.Add(-second)) || j.Ended.Before(j.Began.Add(-second)) || j.noted.Before(j.Ended.Add(-second)) || j.Began.IsZero() {
			return fmt.Sprintf("ordered %s, began %s, ended %s, noted %s", clock(j.Made), clock(j.Began), clock(j.Ended), clock(j.noted))
		}
		return ""
	})),
	none("content-recorded", "of each job a signed result that names order, program, inputs and measurements", eachJob(func(j *Job) string { return j.content })),
	{"modules-signed", func(v *seen) (bool, string, string) {
		faults, n := slices.Clone(v.unsigned), 0
		for i := range v.report.Jobs {
			if j := &v.report.Jobs[i]; j.unsigned != "" {
				faults = append(faults, fmt.Sprintf("of %s by %s at %s: %s", j.Program, j.World, j.At, j.unsigned))
			} else if j.module != "" {
				n++
			}
		}
		found := fmt.Sprintf("%d jobs of modules that their worlds signed", n)
		if len(faults) > 0 {
			found += "; " + strings.Join(faults, "; ")
		}
		return n > 0 && len(faults) == 0, found, "of each job of a module its world's record, in its order and at its DPM, the bytes at the vault, and no party that runs others"
	}},
	none("jobs-stated", "of each job that both parties stated it, with receipts", eachJob(func(j *Job) string { return j.stated })),
	{"repeated-alike", func(v *seen) (bool, string, string) {
		same, all := 0, 0
		for _, j := range v.report.Jobs {
			if j.Repeats == nil {
				continue
			}
			all++
			first := v.job(*j.Repeats)
			if first != nil && first.Output == j.Output && j.Comparison == sameOutput && !j.away() {
				same++
			}
		}
		return same == all && all == 2, fmt.Sprintf("%d of %d repetitions with the same output", same, all), "2 of 2"
	}},
	none("job-keys-destroyed", "no key and no content of a job at any DPM", func(v *seen) (faults []string) {
		for party, left := range v.left {
			for _, what := range left {
				faults = append(faults, fmt.Sprintf("%s at %s", what, party))
			}
		}
		return faults
	}),
	none("outputs-in-the-depot", "each output sealed at the vault", eachJob(func(j *Job) string {
		if j.Outcome == "done" && (!j.stored || j.outputFailed != "") {
			return "its output isn't there " + j.outputFailed
		}
		return ""
	})),
	none("depot-reads-nothing", "no name, title or output in any file of the vault", func(v *seen) []string { return slices.Clone(v.depot) }),
	none("dpm-knows-no-names", "no id of an avatar or thing, title or output in any file of a DPM", func(v *seen) []string { return slices.Clone(v.dpms) }),
	none("worlds-apart", "no job that another has than who ordered it and who computes it", func(v *seen) []string { return slices.Clone(v.foreign) }),
}

// eachJob looks for what is wrong with each job.
func eachJob(fault func(*Job) string) func(*seen) []string {
	return func(v *seen) (faults []string) {
		if len(v.report.Jobs) == 0 {
			return []string{"no job at all"}
		}
		for i := range v.report.Jobs {
			j := &v.report.Jobs[i]
			if why := fault(j); why != "" {
				faults = append(faults, fmt.Sprintf("of %s by %s at %s: %s", j.Program, j.World, j.At, why))
			}
		}
		return faults
	}
}

// job finds a job by its id; nil without one.
func (v *seen) job(id carnet.JobID) *Job {
	for i := range v.report.Jobs {
		if v.report.Jobs[i].ID == id {
			return &v.report.Jobs[i]
		}
	}
	return nil
}

// asked finds the first job of a world for a program; nil without one.
func (v *seen) asked(world carnet.PartyID, program string) *Job {
	for i := range v.report.Jobs {
		if j := &v.report.Jobs[i]; j.World == world && j.Program == program && j.Repeats == nil {
			return j
		}
	}
	return nil
}

// done counts the jobs of a world that a DPM did.
func (v *seen) done(world, at carnet.PartyID) (n int) {
	for i := range v.report.Jobs {
		if j := &v.report.Jobs[i]; j.away() && j.Outcome == "done" && (world == "" || j.World == world) && (at == "" || j.At == at) {
			n++
		}
	}
	return n
}
