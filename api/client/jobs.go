package client

import (
	"context"
	"net/http"

	"carnet"
	"carnet/api"
	"carnet/job"
)

func jobPath(id carnet.JobID) string { return "/v1/jobs/" + id.String() }

// Jobs lists the jobs that the world ordered.
func (c *Client) Jobs(ctx context.Context) ([]api.Job, error) {
	list, err := get[api.JobList](ctx, c, "/v1/jobs")
	return list.Jobs, err
}

// RunJob has something computed.
func (c *Client) RunJob(ctx context.Context, n api.NewJob) (api.Job, error) {
	return send[api.Job](ctx, c, http.MethodPost, "/v1/jobs", n)
}

// PlanJob says where a job could run, and what would leave for it.
func (c *Client) PlanJob(ctx context.Context, n api.NewJob) (job.Plan, error) {
	return send[job.Plan](ctx, c, http.MethodPost, "/v1/jobs/plans", n)
}

// Job returns one job; wait: when something has changed, or after 20 seconds.
func (c *Client) Job(ctx context.Context, id carnet.JobID, wait bool) (api.Job, error) {
	path := jobPath(id)
	if wait {
		path += "?wait=true"
	}
	return get[api.Job](ctx, c, path)
}

// JobOutput returns what came out of a job.
func (c *Client) JobOutput(ctx context.Context, id carnet.JobID) ([]byte, error) {
	answer, err := c.open(ctx, http.MethodGet, jobPath(id)+"/output", "application/octet-stream", nil)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	return c.read(answer)
}

// JobPartial returns what a job has put out so far: unproved.
func (c *Client) JobPartial(ctx context.Context, id carnet.JobID) (api.JobPartial, error) {
	return get[api.JobPartial](ctx, c, jobPath(id)+"/partial")
}

// JobProof returns what was signed of a job.
func (c *Client) JobProof(ctx context.Context, id carnet.JobID) (api.JobProof, error) {
	return get[api.JobProof](ctx, c, jobPath(id)+"/proof")
}

// RepeatJob has a job repeated.
func (c *Client) RepeatJob(ctx context.Context, id carnet.JobID, r api.Repetition) (api.Job, error) {
	return send[api.Job](ctx, c, http.MethodPost, jobPath(id)+"/repetitions", r)
}

// CancelJob withdraws a job.
func (c *Client) CancelJob(ctx context.Context, id carnet.JobID) (api.Job, error) {
	return send[api.Job](ctx, c, http.MethodDelete, jobPath(id), nil)
}
