package api

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"carnet"
	"carnet/capsule"
	"carnet/dpm"
	"carnet/job"

	"github.com/danielgtaylor/huma/v2"
)

const jobsPath = "/v1/jobs"

// jobs is what the handler needs of a world's jobs: a *job.Agent.
type jobs interface {
	Jobs() []job.Info
	Job(ctx context.Context, id carnet.JobID, wait bool) (job.Info, error)
	Order(context.Context, job.Spec) (job.Info, error)
	Plan(context.Context, job.Spec) (job.Plan, error)
	Cancel(context.Context, carnet.JobID) (job.Info, error)
	Repeat(ctx context.Context, id carnet.JobID, at carnet.PartyID, within time.Duration) (job.Info, error)
	Output(context.Context, carnet.JobID) ([]byte, error)
	PartialOutput(context.Context, carnet.JobID) (job.PartialOutput, error)
	Traffic() []job.AtDPM
	modules
}

// computing is what the handler needs of a DPM: a *dpm.Agent.
type computing interface{ Counts() dpm.Counts }

// OfJob is the input of what concerns one job.
type OfJob struct {
	ID carnet.JobID `path:"id" doc:"The job's id." example:"00112233445566778899aabbccddeeff"`
}

// jobWait is how long a caller who waits for news of a job is held.
const jobWait = 20 * time.Second

func (s *server) jobRoutes(h huma.API) {
	tags := []string{atR6}
	serving(s, h, huma.Operation{
		OperationID: "list-jobs", Method: http.MethodGet, Path: jobsPath, Tags: tags,
		Summary: "All jobs that this world ordered, oldest first.",
	}, func(ctx context.Context, _ *struct{}) (*body[JobList], error) {
		return answer(JobList{showEach(worlds(ctx, s.jobs.Jobs), showJob)}, nil)
	})
	serving(s, h, huma.Operation{
		OperationID: "run-job", Method: http.MethodPost, Path: jobsPath, Tags: tags, DefaultStatus: http.StatusCreated,
		Summary: "Has something computed over what avatars said: by a module or a query, in this world or at a DPM.",
		Description: "The world chooses the batches that hold what is asked for, signs the order, and gives a DPM the keys of exactly their slots. When this answers, the job is stored, and it is seen to until it has ended. " +
			"POST /v1/jobs/plans says beforehand what would leave. The body has at most 24 MiB.",
		RequestBody: example(exampleJob()),
	}, func(ctx context.Context, in *struct{ Body NewJob }) (*body[Job], error) {
		spec, err := in.Body.spec()
		if err != nil {
			return nil, err
		}
		i, err := s.jobs.Order(ctx, spec)
		return s.orderedJob(ctx, i, err)
	})
	serving(s, h, huma.Operation{
		OperationID: "plan-job", Method: http.MethodPost, Path: jobsPath + "/plans", Tags: tags, DefaultStatus: http.StatusOK,
		Summary:     "Says where a job could run, which place is best and why, and what data would leave for it. Nothing is ordered.",
		RequestBody: example(exampleJob()),
	}, func(ctx context.Context, in *struct{ Body NewJob }) (*body[job.Plan], error) {
		spec, err := in.Body.spec()
		if err != nil {
			return nil, err
		}
		return answer(s.jobs.Plan(ctx, spec))
	})
	serving(s, h, huma.Operation{
		OperationID: "get-job", Method: http.MethodGet, Path: jobsPath + "/{id}", Tags: tags,
		Summary: "One job: where it stands, how far it is, how it ended and why.",
	}, s.waitedJob)
	serving(s, h, outputOperation("get-job-output", tags), s.jobOutput)
	serving(s, h, partialOperation("get-job-partial", tags), s.jobPartial)
	serving(s, h, huma.Operation{
		OperationID: "get-job-proof", Method: http.MethodGet, Path: jobsPath + "/{id}/proof", Tags: tags,
		Summary:     "What was signed of a job: the order, and the result.",
		Description: "The fingerprints of both are the objects of statements, in this world's ledger and in the DPM's: the DPM's are in its record, and all of it is in the avatar's evidence.",
	}, s.jobProof)
	serving(s, h, huma.Operation{
		OperationID: "repeat-job", Method: http.MethodPost, Path: jobsPath + "/{id}/repetitions", Tags: tags, DefaultStatus: http.StatusCreated,
		Summary:     "Has the same program run over the same inputs once more, here or at a DPM, and compares what comes out.",
		Description: "If the outputs differ and one of the two ran in this world, the other's DPM is named as the one that lied: its signed result is the proof.",
		RequestBody: example(Repetition{At: "forge"}),
	}, func(ctx context.Context, in *struct {
		OfJob
		Body Repetition
	}) (*body[Job], error) {
		i, err := s.jobs.Repeat(ctx, in.ID, in.Body.At, time.Duration(in.Body.Within)*time.Second)
		return s.orderedJob(ctx, i, err)
	})
	serving(s, h, huma.Operation{
		OperationID: "cancel-job", Method: http.MethodDelete, Path: jobsPath + "/{id}", Tags: tags, DefaultStatus: http.StatusOK,
		Summary:     "Withdraws a job that hasn't ended. A DPM is told to destroy its keys, until it has signed that it did.",
		Description: "No input leaves any more from now on.",
	}, func(ctx context.Context, in *OfJob) (*body[Job], error) { return s.shownJob(s.jobs.Cancel(ctx, in.ID)) })
}

// WaitedJob is the input of who waits for news of a job.
type WaitedJob struct {
	OfJob
	Wait bool `query:"wait" doc:"Answer when something has changed, at most after 20 seconds."`
}

func (s *server) waitedJob(ctx context.Context, in *WaitedJob) (*body[Job], error) {
	ctx, cancel := context.WithTimeout(ctx, jobWait)
	defer cancel()
	return s.shownJob(s.jobs.Job(ctx, in.ID, in.Wait))
}

func outputOperation(id string, tags []string) huma.Operation {
	return huma.Operation{
		OperationID: id, Method: http.MethodGet, Path: jobsPath + "/{id}/output", Tags: tags,
		Summary:   "What came out of a job: the bytes that its program put out.",
		Metadata:  map[string]any{servesKey: []string{typeOctets}},
		Responses: map[string]*huma.Response{"200": {Description: "The output.", Content: map[string]*huma.MediaType{typeOctets: {Schema: &huma.Schema{Type: "string", Format: "binary"}}}}},
	}
}

func (s *server) jobOutput(ctx context.Context, in *OfJob) (*typedBody, error) {
	out, err := s.jobs.Output(ctx, in.ID)
	return &typedBody{ContentType: typeOctets, Body: out}, err
}

func partialOperation(id string, tags []string) huma.Operation {
	return huma.Operation{
		OperationID: id, Method: http.MethodGet, Path: jobsPath + "/{id}/partial", Tags: tags,
		Summary: "What a job that hasn't ended has put out so far. It is unproved: the result's signature over the whole is what proves an output, and there is none yet.",
		Description: "Of a job at a DPM it is what the DPM has given of the attempt that runs, fetched at most once a second; an attempt that is lost and begun anew replaces it. " +
			"Once the job has ended it is refused (409): what came out whole is at /output, and of what didn't nothing is kept.",
	}
}

// unproved says why a partial output is.
const unproved = "unproved: the job hasn't ended, and only its result's signature, over the whole output, proves what comes out"

func (s *server) jobPartial(ctx context.Context, in *OfJob) (*body[JobPartial], error) {
	p, err := s.jobs.PartialOutput(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	shown := JobPartial{ID: in.ID, Why: unproved, Attempt: p.Attempt, Parts: p.Parts, Output: append([]byte{}, p.Content...)}
	if !p.Heard.IsZero() {
		shown.Heard = &p.Heard
	}
	return answer(shown, nil)
}

func (s *server) jobProof(ctx context.Context, in *OfJob) (*body[JobProof], error) {
	j, err := s.jobs.Job(ctx, in.ID, false)
	return answer(JobProof{
		Order: j.Order, Acceptance: j.Stand.Acceptance, Withdrawal: j.Stand.Withdrawal, Result: j.Stand.Result, Record: j.Record, NoRecord: j.NoRecord, Contradiction: j.Contradiction,
	}, err)
}

// NewJob is what somebody wants to have computed.
type NewJob struct {
	At         carnet.PartyID    `json:"at,omitempty" doc:"The DPM, as this world calls it; left out: in this world." maxLength:"32" example:"forge"`
	Module     string            `json:"module,omitempty" doc:"The signed module that runs, NAME@VERSION; then neither engine nor program are given." maxLength:"140" example:"heartzones@1.0.0"`
	Engine     string            `json:"engine,omitempty" doc:"What runs the program: wasm or sql." maxLength:"32" example:"wasm"`
	Program    []byte            `json:"program,omitempty" doc:"The query, or a program that nobody signed where the operators allow it, in base64." maxLength:"23000000"`
	Parameters json.RawMessage   `json:"parameters,omitempty" doc:"A JSON object for the program, of at most 4 KiB."`
	Avatars    []carnet.AvatarID `json:"avatars,omitempty" doc:"In a world: whose measurements, 1 to 64. The program is told a1, a2 and so on." maxItems:"64"`
	Things     []carnet.ThingID  `json:"things,omitempty" doc:"At a things agent: whose log, 1 to 64 things of the caller's. The program is told a1, a2 and so on." maxItems:"64" example:"[\"watch-7\"]"`
	ViewOf     carnet.PartyID    `json:"view_of,omitempty" doc:"At a things agent: the world whose view of the things is read; left out, with mapping: the log as it is." maxLength:"32" example:"arena"`
	Mapping    *carnet.MappingID `json:"mapping,omitempty" doc:"At a things agent, instead of view_of: the mapping under whose views the thing is read. It may have ended."`
	From       *time.Time        `json:"from,omitempty" doc:"Measured from then on."`
	To         *time.Time        `json:"to,omitempty" doc:"Measured before then; left out: until now."`
	Properties []string          `json:"properties,omitempty" doc:"Only these; left out: all." maxItems:"64"`
	Limits     *capsule.Limits   `json:"limits,omitempty" doc:"Of the run. Fields that are 0 take the default: 64 MiB, a minute, 4 MiB of output in 256 parts."`
	Within     int               `json:"within,omitempty" doc:"Seconds until it must have ended; default 600, at most a day." minimum:"0" maximum:"86400"`
}

func (n NewJob) spec() (job.Spec, error) {
	s := job.Spec{At: n.At, Module: n.Module, Engine: n.Engine, Program: n.Program, Parameters: n.Parameters, Avatars: n.Avatars, Things: n.Things, ViewOf: n.ViewOf, Mapping: n.Mapping, Properties: n.Properties, Within: time.Duration(n.Within) * time.Second}
	if n.From != nil {
		s.From = *n.From
	}
	if n.To != nil {
		s.To = *n.To
	}
	if n.Limits != nil {
		s.Limits = *n.Limits
	}
	return s, nil
}

// exampleProgram is a query that puts out as many rows as there are avatars.
const exampleProgram = "SELECT avatar, avg(value) AS mean FROM measurements GROUP BY avatar ORDER BY avatar"

func exampleJob() NewJob {
	return NewJob{Engine: "sql", Program: []byte(exampleProgram), Avatars: []carnet.AvatarID{exampleAvatar}, Properties: []string{"heart_rate"}}
}

// Repetition says where a job is to be repeated.
type Repetition struct {
	At     carnet.PartyID `json:"at,omitempty" doc:"The DPM, as this world calls it; left out: in this world." maxLength:"32" example:"forge"`
	Within int            `json:"within,omitempty" doc:"Seconds until it must have ended; default 600, at most a day." minimum:"0" maximum:"86400"`
}

// Job is a job of a world.
type Job struct {
	ID         carnet.JobID      `json:"id"`
	At         carnet.PartyID    `json:"at,omitempty" doc:"The DPM, as this world calls it; left out: in this world."`
	State      job.State         `json:"state" doc:"ordered, accepted, withdrawing or ended." example:"ended"`
	Outcome    capsule.Outcome   `json:"outcome,omitempty" doc:"Once it has ended: done, failed, parked, expired, withdrawn, refused, silent or lied." example:"done"`
	Code       carnet.Code       `json:"code,omitempty" doc:"Of a failure."`
	Why        string            `json:"why,omitempty" doc:"Why it ended so, or is withdrawn."`
	Made       time.Time         `json:"made"`
	Until      time.Time         `json:"until" doc:"When it must have ended."`
	Ended      *time.Time        `json:"ended,omitempty"`
	Purpose    string            `json:"purpose"`
	Module     string            `json:"module,omitempty" doc:"The signed module that runs, NAME@VERSION." example:"heartzones@1.0.0"`
	Task       capsule.Task      `json:"task" doc:"Everything that decides the output."`
	Label      capsule.Label     `json:"label" doc:"Of the output: all inputs' joined."`
	Avatars    []carnet.AvatarID `json:"avatars,omitempty" doc:"In a world: a1, a2 and so on, in this order."`
	Policies   []capsule.Policy  `json:"policies,omitempty" doc:"Of which avatars the owner has set a policy, and the version that the order was held against, which it names."`
	Owner      string            `json:"owner,omitempty" doc:"At a things agent: whose it is." example:"alice"`
	Logs       []JobLog          `json:"logs,omitempty" doc:"At a things agent: what of which things is read, a1, a2 and so on, in this order."`
	Progress   *job.Progress     `json:"progress,omitempty" doc:"How far it is, as it was heard of last."`
	Output     *capsule.Output   `json:"output,omitempty" doc:"What came out, and what ran on what."`
	Object     string            `json:"object,omitempty" doc:"The sealed output at the depot, by its fingerprint."`
	Repeats    *carnet.JobID     `json:"repeats,omitempty" doc:"The job that it repeats."`
	Comparison string            `json:"comparison,omitempty" doc:"What was found when the two outputs were compared."`
	// Of a job whose DPM put out two things.
	Contradiction string `json:"contradiction,omitempty" doc:"How what its DPM put out while it ran differs from what came out in the end."`
}

// JobPartial is what a job has put out so far.
type JobPartial struct {
	ID      carnet.JobID `json:"id"`
	Proved  bool         `json:"proved" doc:"False: nothing proves a partial output."`
	Why     string       `json:"why" doc:"Why it isn't proved." example:"unproved: the job hasn't ended, and only its result's signature, over the whole output, proves what comes out"`
	Attempt int          `json:"attempt" doc:"The run that put it out; 0: none has begun."`
	Parts   int          `json:"parts"`
	Heard   *time.Time   `json:"heard,omitempty" doc:"When the DPM gave it; left out of a run in the party itself, of which it is as of now."`
	Output  []byte       `json:"output" doc:"The parts' contents, one after the other, in base64."`
}

// JobLog says what a job at a things agent reads of a thing.
type JobLog struct {
	Thing   carnet.ThingID    `json:"thing" example:"watch-7"`
	World   carnet.PartyID    `json:"world,omitempty" doc:"Whose view is read; left out: the log as it is." example:"arena"`
	Mapping *carnet.MappingID `json:"mapping,omitempty" doc:"Under whose views."`
	From    uint64            `json:"from" doc:"The first position of the agent's log that is read."`
	End     uint64            `json:"end" doc:"The position after the last."`
}

// JobList is a party's jobs.
type JobList struct {
	Jobs []Job `json:"jobs"`
}

// JobProof is what was signed of a job, each a compact JWS.
type JobProof struct {
	Order      string `json:"order" doc:"By this world."`
	Acceptance string `json:"acceptance,omitempty" doc:"By the DPM."`
	Withdrawal string `json:"withdrawal,omitempty" doc:"By this world."`
	Result     string `json:"result,omitempty" doc:"By the DPM, or by this world of what ran in it."`
	Record     string `json:"record,omitempty" doc:"By the DPM: what it stated of a job that has ended, with receipts. It is asked for when the job has ended."`
	NoRecord   string `json:"no_record,omitempty" doc:"Why the DPM has given no record, and none is to come."`
	// Of a job whose DPM put out two things.
	Contradiction *job.Contradiction `json:"contradiction,omitempty" doc:"What the DPM signed while the job ran, which its result contradicts."`
}

// orderedJob answers an order. One that the caller may give, and that is forbidden all the
// same (the DPM may not have the data, an owner's policy), is recorded as refused, after the
// record that it was let in.
func (s *server) orderedJob(ctx context.Context, i job.Info, err error) (*body[Job], error) {
	if carnet.CodeOf(err) == carnet.Forbidden {
		s.guard.Refuse(ctx, admittedIn(ctx).call, err)
	}
	return s.shownJob(i, err)
}

func (s *server) shownJob(i job.Info, err error) (*body[Job], error) { return answer(showJob(i), err) }

func showJob(i job.Info) Job {
	j := Job{
		ID: i.ID, At: i.At, State: i.Stand.State, Outcome: i.Stand.Outcome, Code: i.Stand.Code, Why: i.Stand.Why, Made: i.Made, Until: i.Until, Purpose: i.Purpose, Module: i.Module,
		Task: i.Task, Label: i.Label, Avatars: i.Avatars, Policies: i.Policies, Owner: i.Owner, Output: i.Output, Repeats: i.Repeats, Comparison: i.Found,
	}
	for _, l := range i.Logs {
		j.Logs = append(j.Logs, JobLog{Thing: l.Thing, World: l.World, Mapping: l.Mapping, From: l.From, End: l.End})
	}
	if !i.Stand.Ended.IsZero() {
		j.Ended = &i.Stand.Ended
	}
	if i.Stand.State != job.Ended && !i.Progress.Heard.IsZero() {
		j.Progress = &i.Progress
	}
	if i.Contradiction != nil {
		j.Contradiction = i.Contradiction.Why
	}
	if i.Stored != (carnet.Fingerprint{}) {
		j.Object = i.Stored.String()
	}
	return j
}
