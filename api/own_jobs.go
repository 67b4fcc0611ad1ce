package api

import (
	"context"
	"net/http"
	"slices"
	"time"

	"carnet"
	"carnet/activity"
	"carnet/job"
	"carnet/policy"

	"github.com/danielgtaylor/huma/v2"
)

// Jobs at a things agent are their owners': the paths and documents are those of a
// world's jobs, the operations are others, since others may call them
// (docs/design/own-jobs.md).

func (s *server) ownJobRoutes(h huma.API) {
	tags := []string{atR1}
	serving(s, h, huma.Operation{
		OperationID: "list-own-jobs", Method: http.MethodGet, Path: jobsPath, Tags: tags,
		Summary: "The jobs over things of the caller's, oldest first; of all owners' for who runs the agent or audits it.",
	}, func(ctx context.Context, _ *struct{}) (*body[JobList], error) {
		list := JobList{Jobs: []Job{}}
		for _, j := range s.jobs.Jobs() {
			if a := admittedIn(ctx); a.All || a.who.Name != "" && j.Owner == a.who.Name {
				list.Jobs = append(list.Jobs, showJob(j))
			}
		}
		return answer(list, nil)
	})
	serving(s, h, huma.Operation{
		OperationID: "run-own-job", Method: http.MethodPost, Path: jobsPath, Tags: tags, DefaultStatus: http.StatusCreated,
		Summary: "Has something computed over what the logs of the caller's own things hold, here: by a module or a query. Nothing leaves.",
		Description: "With view_of or mapping it is computed over what a world was shown, so that the same program puts out the same as there. When this answers, the job is stored, and it is seen to until it has ended. " +
			"The body has at most 24 MiB.",
		RequestBody: example(exampleOwnJob()),
	}, func(ctx context.Context, in *struct{ Body NewJob }) (*body[Job], error) {
		spec, err := ownSpec(ctx, &in.Body)
		if err != nil {
			return nil, err
		}
		return s.shownJob(s.jobs.Order(ctx, spec))
	})
	serving(s, h, huma.Operation{
		OperationID: "plan-own-job", Method: http.MethodPost, Path: jobsPath + "/plans", Tags: tags, DefaultStatus: http.StatusOK,
		Summary:     "Says what a job would be given, where it could run, and that nothing would leave for it. Nothing is ordered.",
		RequestBody: example(exampleOwnJob()),
	}, func(ctx context.Context, in *struct{ Body NewJob }) (*body[job.Plan], error) {
		spec, err := ownSpec(ctx, &in.Body)
		if err != nil {
			return nil, err
		}
		return answer(s.jobs.Plan(ctx, spec))
	})
	serving(s, h, huma.Operation{
		OperationID: "get-own-job", Method: http.MethodGet, Path: jobsPath + "/{id}", Tags: tags,
		Summary: "One job: where it stands, how far it is, how it ended and why.",
	}, s.waitedJob)
	serving(s, h, outputOperation("get-own-job-output", tags), func(ctx context.Context, in *OfJob) (*typedBody, error) {
		if err := s.ownersOnly(ctx, in.ID, "reads what came out of it"); err != nil {
			return nil, err
		}
		return s.jobOutput(ctx, in)
	})
	serving(s, h, partialOperation("get-own-job-partial", tags), func(ctx context.Context, in *OfJob) (*body[JobPartial], error) {
		if err := s.ownersOnly(ctx, in.ID, "reads what has come out of it"); err != nil {
			return nil, err
		}
		return s.jobPartial(ctx, in)
	})
	serving(s, h, huma.Operation{
		OperationID: "get-own-job-proof", Method: http.MethodGet, Path: jobsPath + "/{id}/proof", Tags: tags,
		Summary:     "What the agent signed of a job: the order, and the result.",
		Description: "The fingerprints of both are the objects of statements in the agent's ledger.",
	}, s.jobProof)
	serving(s, h, huma.Operation{
		OperationID: "repeat-own-job", Method: http.MethodPost, Path: jobsPath + "/{id}/repetitions", Tags: tags, DefaultStatus: http.StatusCreated,
		Summary:     "Has the same program run over the same part of the log once more, and compares what comes out.",
		RequestBody: example(Repetition{Within: 600}),
	}, func(ctx context.Context, in *struct {
		OfJob
		Body Repetition
	}) (*body[Job], error) {
		if err := s.ownersOnly(ctx, in.ID, "has it repeated"); err != nil {
			return nil, err
		}
		return s.shownJob(s.jobs.Repeat(ctx, in.ID, in.Body.At, time.Duration(in.Body.Within)*time.Second))
	})
	serving(s, h, huma.Operation{
		OperationID: "cancel-own-job", Method: http.MethodDelete, Path: jobsPath + "/{id}", Tags: tags, DefaultStatus: http.StatusOK,
		Summary: "Ends a job that hasn't ended.",
	}, func(ctx context.Context, in *OfJob) (*body[Job], error) { return s.shownJob(s.jobs.Cancel(ctx, in.ID)) })
}

// ownSpec is a job of the caller's: nobody orders one over another's things.
func ownSpec(ctx context.Context, n *NewJob) (job.Spec, error) {
	who := caller(ctx)
	if who.Name == "" {
		return job.Spec{}, carnet.Errorf(carnet.Forbidden, "a job is over things of the caller's own, and %s has none", who)
	}
	spec, err := n.spec()
	spec.Owner = who.Name
	return spec, err
}

// ownersOnly refuses whoever isn't the owner of a job, also who may everything.
func (s *server) ownersOnly(ctx context.Context, id carnet.JobID, does string) error {
	j, err := s.jobs.Job(ctx, id, false)
	if err == nil && j.Owner != caller(ctx).Name {
		err = carnet.Errorf(carnet.Forbidden, "the job is over things of %s, who alone %s", j.Owner, does).WithFix("use a token of %s", j.Owner)
	}
	return err
}

// lookAtJob finds out whether a job is the caller's own.
func (s *server) lookAtJob(p Principal, id string) func(context.Context) (activity.Known, error) {
	return func(context.Context) (activity.Known, error) {
		is := func(j job.Info) bool { return j.ID.String() == id && p.Name != "" && j.Owner == p.Name }
		return activity.Known{Facts: policy.Facts{Own: slices.ContainsFunc(s.jobs.Jobs(), is)}}, nil
	}
}

func exampleOwnJob() NewJob {
	return NewJob{Engine: "sql", Program: []byte(exampleProgram), Things: []carnet.ThingID{"watch-7"}, Properties: []string{"heart_rate"}}
}
