package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"carnet"
	"carnet/access"
	"carnet/api"
	"carnet/api/client"
	"carnet/capsule"
	"carnet/identity"
	"carnet/job"
)

type jobCommands struct {
	Run    jobRun    `cmd:"" help:"Have something computed, and wait for it."`
	Plan   jobPlan   `cmd:"" help:"Say where a job could run, and what would leave for it."`
	List   jobList   `cmd:"" help:"List the jobs of the worlds, and your own at the things agent."`
	Show   jobShow   `cmd:"" help:"Show a job, or what came out of it, or what was signed of it."`
	Watch  jobWatch  `cmd:"" help:"Follow a job until it has ended."`
	Cancel jobCancel `cmd:"" help:"Withdraw a job: its DPM destroys the keys."`
	Repeat jobRepeat `cmd:"" help:"Run a job once more over the same inputs, and compare."`
}

// ofJobs is the way to the party whose jobs are meant: a world, or a things agent.
type ofJobs struct {
	reaching
	JSON bool `help:"As JSON."`
}

// place is the party that is to run a job, or plan one, with a token that may: a world's
// operator orders there, at a things agent the things' owner.
func (c ofJobs) place(ctx context.Context, w wanted) (*client.Client, error) {
	role, err := c.roleOf(identity.World)
	if err != nil {
		return nil, err
	}
	if c.Party == "" && len(w.Thing) > 0 {
		f, err := c.file()
		if err != nil {
			return nil, err
		}
		if len(f.Having(identity.Things)) > 0 {
			role = identity.Things
		}
	}
	switch {
	case role == identity.Things:
		return c.one(identity.Things, atJobs[identity.Things]...)
	case len(w.Avatar) > 0:
		cl, _, err := c.worldOf(ctx, w.Avatar[0], administrator)
		return cl, err
	}
	return c.one(identity.World, administrator)
}

// find finds a job.
func (c ofJobs) find(ctx context.Context, id carnet.JobID) (hit[api.Job], error) {
	return sought[api.Job]{"job " + id.String(), "carnet job list", atJobs, func(cl *client.Client) (api.Job, error) { return cl.Job(ctx, id, false) }}.first(c.reaching)
}

// wanted is what is to be computed.
type wanted struct {
	Module     string            `xor:"program" required:"" placeholder:"NAME@VERSION" help:"The signed module, as module list has it."`
	Program    string            `xor:"program" required:"" type:"existingfile" placeholder:"FILE" help:"A WebAssembly file that nobody signed: only where the operators of the world and of the place allow it."`
	Query      string            `xor:"program" required:"" placeholder:"SQL" help:"The query, over the table measurements."`
	Parameters string            `placeholder:"JSON" help:"An object for the module."`
	Avatar     []carnet.AvatarID `help:"In a world: whose measurements. May be given several times: the program is told a1, a2 and so on."`
	Thing      []carnet.ThingID  `placeholder:"ID" help:"At a things agent (--party): over the log of which thing of yours. May be given several times, likewise."`
	ViewOf     carnet.PartyID    `xor:"view" placeholder:"WORLD" help:"At a things agent: over what this world was shown of it. Default: the log as it is."`
	Mapping    *carnet.MappingID `xor:"view" placeholder:"ID" help:"Likewise, over what was shown under the views of this mapping."`
	From       time.Time         `placeholder:"TIME" help:"Measured from then on, as 2026-11-22T10:00:00Z."`
	To         time.Time         `placeholder:"TIME" help:"Measured before then. Default: now."`
	Property   []string          `placeholder:"NAME" help:"Only these. Default: all."`
	Memory     uint64            `placeholder:"MIB" help:"The program's memory at most. Default: 64."`
	Time       time.Duration     `placeholder:"DURATION" help:"How long it may run. Default: 1m."`
	Within     time.Duration     `placeholder:"DURATION" help:"By when the job must have ended. Default: 10m."`
}

// engines are named by what the program is.
const (
	engineWasm = "wasm"
	engineSQL  = "sql"
)

func (w wanted) job() (api.NewJob, error) {
	n := api.NewJob{Module: w.Module, Avatars: w.Avatar, Things: w.Thing, ViewOf: w.ViewOf, Mapping: w.Mapping, Properties: w.Property, Within: int(w.Within / time.Second)}
	switch {
	case w.Query != "":
		n.Engine, n.Program = engineSQL, []byte(w.Query)
	case w.Program != "":
		program, err := os.ReadFile(w.Program)
		if err != nil {
			return n, fmt.Errorf("read the program: %w", err)
		}
		n.Engine, n.Program = engineWasm, program
	}
	if w.Parameters != "" {
		if !json.Valid([]byte(w.Parameters)) {
			return n, carnet.Errorf(carnet.Malformed, "the parameters aren't JSON").WithFix(`such as --parameters '{"max": 190}'`)
		}
		n.Parameters = json.RawMessage(w.Parameters)
	}
	if !w.From.IsZero() {
		n.From = &w.From
	}
	if !w.To.IsZero() {
		n.To = &w.To
	}
	if w.Memory != 0 || w.Time != 0 {
		n.Limits = &capsule.Limits{Memory: w.Memory << 20, Milliseconds: w.Time.Milliseconds()}
	}
	return n, nil
}

// here is how the party itself is named as a place.
const here = "here"

type jobRun struct {
	ofJobs
	wanted
	At     string `default:"auto" placeholder:"PLACE" help:"A DPM's name, here for the party itself, or auto for what job plan would choose. Default: auto."`
	NoWait bool   `help:"Don't wait for its end."`
	Out    string `type:"path" placeholder:"FILE" help:"Where to write what comes out. Default: standard output."`
}

func (c jobRun) Run(ctx context.Context, s streams) error {
	party, err := c.place(ctx, c.wanted)
	if err != nil {
		return err
	}
	n, err := c.job()
	if err != nil {
		return err
	}
	switch c.At {
	case here:
	case "auto":
		p, err := party.PlanJob(ctx, n)
		if err != nil {
			return err
		}
		if p.Choice == "" {
			return carnet.Errorf(carnet.Unavailable, "no place can do it").WithFix("see why: carnet job plan")
		}
		if !p.Here {
			n.At = p.Choice
		}
		fmt.Fprintf(s.err, "It runs at %s: %s.\n", p.Choice, p.Why)
	default:
		n.At = carnet.PartyID(c.At)
	}
	j, err := party.RunJob(ctx, n)
	if err != nil {
		return err
	}
	fmt.Fprintf(s.err, "Job %s\n", j.ID)
	if c.NoWait {
		return c.shown(s, j)
	}
	if j, err = follow(ctx, s, party, j); err != nil {
		return err
	}
	if c.JSON {
		return c.shown(s, j)
	}
	return c.put(ctx, s, party, j)
}

// put writes what came out of a job, or fails as it did.
func (c jobRun) put(ctx context.Context, s streams, party *client.Client, j api.Job) error {
	if err := failure(j); err != nil {
		return err
	}
	out, err := party.JobOutput(ctx, j.ID)
	if err != nil {
		return err
	}
	if c.Out != "" {
		return os.WriteFile(c.Out, out, 0o600)
	}
	_, err = s.out.Write(out)
	return err
}

// failure is how a job ended that isn't done.
func failure(j api.Job) error {
	if j.State != job.Ended || j.Outcome == capsule.Done {
		return nil
	}
	code := j.Code
	if code == "" {
		code = carnet.Conflict
	}
	return carnet.Errorf(code, "the job %s is %s: %s", j.ID, j.Outcome, plain(j.Why)).WithFix("see all of it: carnet job show %s", j.ID)
}

// follow waits for the end of a job, and tells how far it is.
func follow(ctx context.Context, s streams, party *client.Client, j api.Job) (api.Job, error) {
	last := ""
	for j.State != job.Ended {
		if line := standing(j); line != last {
			fmt.Fprintln(s.err, " ", line)
			last = line
		}
		var err error
		if j, err = party.Job(ctx, j.ID, true); err != nil {
			return j, err
		}
	}
	fmt.Fprintln(s.err, " ", standing(j))
	return j, nil
}

// standing says on one line where a job stands.
func standing(j api.Job) string {
	text := string(j.State)
	if j.State == job.Ended {
		text += ": " + string(j.Outcome)
		if j.Why != "" {
			text += ", " + plain(j.Why)
		}
		return text
	}
	if p := j.Progress; p != nil {
		if p.Attempt > 0 {
			text += fmt.Sprintf(", attempt %d: %d.%d %%, %d measurements", p.Attempt, p.Permille/10, p.Permille%10, p.Measurements)
		} else if p.State != "" {
			text += ", " + p.State
		}
		if p.Trouble != "" {
			text += ", " + plain(p.Trouble)
		}
	}
	return text
}

func (c ofJobs) shown(s streams, j api.Job) error {
	if c.JSON {
		return writeJSON(s.out, j)
	}
	at := string(j.At)
	if at == "" {
		at = "in the world"
	}
	if j.Owner != "" {
		at = "at the things agent, for " + plain(j.Owner)
	}
	t := table{
		{"job", j.ID.String()}, {"at", at}, {"state", standing(j)}, {"made", clock(j.Made)}, {"until", clock(j.Until)},
		{"engine", j.Task.Engine}, {"program", fmt.Sprintf("%s, %d bytes", j.Task.Program.Fingerprint, j.Task.Program.Size)},
		{"inputs", fmt.Sprint(len(j.Task.Inputs))}, {"label", labelText(j.Label)},
	}
	for i, l := range j.Logs {
		of := fmt.Sprintf("the log of %s from %d to %d", l.Thing, l.From, max(l.End, 1)-1)
		if l.World != "" {
			of += fmt.Sprintf(", as %s was shown it", l.World)
		}
		t.add(fmt.Sprintf("a%d", i+1), of)
	}
	for _, p := range j.Policies {
		t.add("policy of "+plain(p.Avatar), fmt.Sprintf("version %d, as the owner signed it", p.Version))
	}
	if j.Module != "" {
		t.add("module", plain(j.Module))
	}
	if o := j.Output; o != nil {
		t.add("measurements", fmt.Sprint(o.Measurements))
		t.add("output", fmt.Sprintf("%s, %d bytes in %d parts", o.Fingerprint, o.Size, o.Parts))
	}
	if j.Object != "" {
		t.add("at the depot", j.Object)
	}
	if j.Repeats != nil {
		t.add("repeats", j.Repeats.String())
	}
	if j.Comparison != "" {
		t.add("found", plain(j.Comparison))
	}
	if j.Contradiction != "" {
		t.add("contradiction", plain(j.Contradiction))
	}
	return t.write(s.out)
}

// labelText says what a label is, on one line.
func labelText(l capsule.Label) string {
	text := l.Sensitivity.String()
	if len(l.Purposes) > 0 {
		text += fmt.Sprintf(", for %v", l.Purposes)
	}
	if len(l.Residency) > 0 {
		text += fmt.Sprintf(", in %v", l.Residency)
	}
	return text
}

type jobPlan struct {
	ofJobs
	wanted
}

func (c jobPlan) Run(ctx context.Context, s streams) error {
	party, err := c.place(ctx, c.wanted)
	if err != nil {
		return err
	}
	n, err := c.job()
	if err != nil {
		return err
	}
	p, err := party.PlanJob(ctx, n)
	if err != nil || c.JSON {
		return orJSON(s, p, err)
	}
	fmt.Fprintf(s.out, "It is given %d measurements", p.Measurements)
	for i, name := range p.Names() {
		fmt.Fprintf(s.out, "%s %s (%d)", map[bool]string{true: ":", false: ","}[i == 0], plain(name), p.Properties[name])
	}
	if p.Batches == 0 {
		fmt.Fprintf(s.out, ".\nNothing would leave. What comes out is labelled %s.\n\n", labelText(p.Label))
	} else {
		fmt.Fprintf(s.out, ".\nAt a DPM %d batches of %d bytes and %d keys would leave, labelled %s; it could read %d more measurements that are in these batches.\n\n",
			p.Batches, p.Bytes, p.Keys, labelText(p.Label), p.Along)
	}
	t := table{{"PLACE", "ROLE", "CAN", "WHY"}}
	for _, at := range p.Places {
		t.add(string(at.At), string(at.Role), map[bool]string{true: "yes", false: "no"}[at.Can], plain(at.Why))
	}
	if err := t.write(s.out); err != nil {
		return err
	}
	if p.Choice == "" {
		_, err = fmt.Fprintf(s.out, "\nBest: none, since %s.\n", plain(p.Why))
		return err
	}
	_, err = fmt.Fprintf(s.out, "\nBest: %s, since %s.\n", p.Choice, plain(p.Why))
	return err
}

type jobList struct{ ofJobs }

func (c jobList) Run(ctx context.Context, s streams) error {
	all := []jobOf{}
	err := c.each(s, atJobs, func(p access.Party, cl *client.Client) error {
		list, err := cl.Jobs(ctx)
		for _, j := range list {
			all = append(all, jobOf{p.Name, j})
		}
		return err
	})
	return answered(s, c.JSON, all, err, func() error {
		t := table{{"JOB", "PARTY", "AT", "MADE", "STATE"}}
		for _, j := range all {
			at := string(j.At)
			if at == "" {
				at = here
			}
			t.add(j.ID.String(), string(j.Party), at, clock(j.Made), standing(j.Job))
		}
		return t.list(s, "There are no jobs.")
	})
}

// jobOf is a job with the party that was asked.
type jobOf struct {
	Party carnet.PartyID `json:"party"`
	api.Job
}

type jobShow struct {
	ofJobs
	ID      carnet.JobID `arg:"" help:"The job."`
	Output  bool         `xor:"what" help:"What came out of it."`
	Proof   bool         `xor:"what" help:"What was signed of it, as JSON."`
	Partial bool         `help:"With --output, of a job that hasn't ended: what it has put out so far, which nothing proves yet."`
}

func (c jobShow) Run(ctx context.Context, s streams) error {
	if c.Partial && !c.Output {
		return carnet.Errorf(carnet.Malformed, "--partial is of an output").WithFix("carnet job show %s --output --partial", c.ID)
	}
	h, err := c.find(ctx, c.ID)
	if err != nil {
		return err
	}
	party := h.cl
	switch {
	case c.Partial:
		p, err := party.JobPartial(ctx, c.ID)
		if err != nil || c.JSON {
			return orJSON(s, p, err)
		}
		return soFar(s, p)
	case c.Output:
		out, err := party.JobOutput(ctx, c.ID)
		if err == nil {
			_, err = s.out.Write(out)
		}
		return err
	case c.Proof:
		p, err := party.JobProof(ctx, c.ID)
		return orJSON(s, p, err)
	}
	return c.shown(s, h.is)
}

// soFar writes a partial output, and beside it what it is.
func soFar(s streams, p api.JobPartial) error {
	if p.Parts == 0 {
		fmt.Fprintln(s.err, "Nothing has been put out yet.")
		return nil
	}
	heard := "as of now"
	if p.Heard != nil {
		heard = "as its DPM gave it at " + clock(*p.Heard)
	}
	fmt.Fprintf(s.err, "Unproved: %d bytes in %d parts of attempt %d, %s. Only the result's signature, over the whole output, proves what comes out.\n", len(p.Output), p.Parts, p.Attempt, heard)
	_, err := s.out.Write(p.Output)
	return err
}

type jobWatch struct {
	ofJobs
	ID carnet.JobID `arg:"" help:"The job."`
}

func (c jobWatch) Run(ctx context.Context, s streams) error {
	h, err := c.find(ctx, c.ID)
	if err != nil {
		return err
	}
	j, err := follow(ctx, s, h.cl, h.is)
	if err != nil {
		return err
	}
	if err := c.shown(s, j); err != nil {
		return err
	}
	return failure(j)
}

type jobCancel struct {
	ofJobs
	ID carnet.JobID `arg:"" help:"The job."`
}

func (c jobCancel) Run(ctx context.Context, s streams) error {
	h, err := c.find(ctx, c.ID)
	if err != nil {
		return err
	}
	j, err := h.cl.CancelJob(ctx, c.ID)
	if err != nil {
		return err
	}
	return c.shown(s, j)
}

type jobRepeat struct {
	ofJobs
	ID     carnet.JobID  `arg:"" help:"The job."`
	At     string        `default:"here" placeholder:"PLACE" help:"A DPM's name, or here for the party itself: a world finds out so who lied. Default: here."`
	Within time.Duration `placeholder:"DURATION" help:"By when it must have ended. Default: 10m."`
}

func (c jobRepeat) Run(ctx context.Context, s streams) error {
	h, err := c.find(ctx, c.ID)
	if err != nil {
		return err
	}
	party, r := h.cl, api.Repetition{Within: int(c.Within / time.Second)}
	if c.At != here {
		r.At = carnet.PartyID(c.At)
	}
	j, err := party.RepeatJob(ctx, c.ID, r)
	if err != nil {
		return err
	}
	if j, err = follow(ctx, s, party, j); err != nil {
		return err
	}
	for j.Comparison == "" && (j.Outcome == capsule.Done || j.Outcome == capsule.Failed) { // it is stated in the next moment
		if j, err = party.Job(ctx, j.ID, false); err != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err := c.shown(s, j); err != nil {
		return err
	}
	switch j.Comparison {
	case job.Same, job.SameFault:
		return nil
	case "":
		return failure(j)
	}
	return carnet.Errorf(carnet.Tampered, "%s", plain(j.Comparison))
}
