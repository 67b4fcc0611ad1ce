package dpm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"time"

	"carnet"
	"carnet/problem"
	"carnet/seal"
)

// Client is a world's side of R6. HTTP brings the mutual TLS. It believes nothing of
// what it gets: who asked verifies signatures and fingerprints.
//
// Errors have the code that the DPM gave; a DPM that can't be reached is
// carnet.Unavailable.
type Client struct {
	Base string // the DPM's URL without /r6, e.g. https://forge.example
	HTTP *http.Client
}

// patience is how long a DPM may take over one request, beyond what it was asked to
// wait.
const patience = 30 * time.Second

// Offer asks what the DPM does.
func (c *Client) Offer(ctx context.Context) (o Offer, err error) {
	err = c.json(ctx, http.MethodGet, "offer", nil, &o, patience)
	return o, err
}

// Submit brings a capsule, and returns the DPM's acceptance.
func (c *Client) Submit(ctx context.Context, id carnet.JobID, s Submission) (string, error) {
	var a SubmissionAnswer
	err := c.json(ctx, http.MethodPut, "jobs/"+id.String(), s, &a, patience)
	return a.Acceptance, err
}

// Status asks where a job stands, once that isn't what was seen or the wait is over.
func (c *Client) Status(ctx context.Context, id carnet.JobID, seen uint64, wait time.Duration) (s Status, err error) {
	err = c.json(ctx, http.MethodGet, fmt.Sprintf("jobs/%s?after=%d&wait=%d", id, seen, int(wait/time.Second)), nil, &s, wait+patience)
	return s, err
}

// PutContent gives the DPM content that a job lacks.
func (c *Client) PutContent(ctx context.Context, id carnet.JobID, content []byte) error {
	_, err := c.do(ctx, http.MethodPut, fmt.Sprintf("jobs/%s/content/%s", id, carnet.FingerprintOf(content)), typeBytes, content, 4<<10, 2*patience)
	return err
}

// Partial asks what the attempt that runs has put out so far.
func (c *Client) Partial(ctx context.Context, id carnet.JobID) (p PartialAnswer, err error) {
	err = c.json(ctx, http.MethodGet, "jobs/"+id.String()+"/partial", nil, &p, patience)
	return p, err
}

// Part fetches a sealed part of what an attempt has put out.
func (c *Client) Part(ctx context.Context, id carnet.JobID, attempt, n int) ([]byte, error) {
	return c.do(ctx, http.MethodGet, fmt.Sprintf("jobs/%s/parts/%d/%d", id, attempt, n), "", nil, seal.MaxBatch, patience)
}

// Record fetches what the DPM has stated of a job that has ended, as it signed that.
func (c *Client) Record(ctx context.Context, id carnet.JobID) (string, error) {
	var r RecordAnswer
	err := c.json(ctx, http.MethodGet, "jobs/"+id.String()+"/record", nil, &r, patience)
	return r.Record, err
}

// Withdraw brings a withdrawal, and returns the DPM's result.
func (c *Client) Withdraw(ctx context.Context, id carnet.JobID, message string) (string, error) {
	var r WithdrawingAnswer
	err := c.json(ctx, http.MethodPost, "jobs/"+id.String()+"/withdrawal", Withdrawing{message}, &r, patience)
	return r.Result, err
}

// Taken brings the word that a result is here, durably.
func (c *Client) Taken(ctx context.Context, id carnet.JobID, message string) error {
	return c.json(ctx, http.MethodPost, "jobs/"+id.String()+"/taken", Taking{message}, nil, patience)
}

// Revoke tells the DPM that a module is revoked: when it returns the DPM runs it no more,
// where the word counts.
func (c *Client) Revoke(ctx context.Context, message string) error {
	return c.json(ctx, http.MethodPost, "revocations", Revoking{message}, nil, patience)
}

// Revoked asks which modules, of these records, the DPM knows to be revoked, and returns
// the revocations, unverified.
func (c *Client) Revoked(ctx context.Context, records []string) (revocations []string, err error) {
	for part := range slices.Chunk(records, mostAsked) {
		var a RevokedAnswer
		if err := c.json(ctx, http.MethodPost, "revoked", RevokedAsked{part}, &a, patience); err != nil {
			return nil, err
		}
		revocations = append(revocations, a.Revocations...)
	}
	return revocations, nil
}

// Erase has the DPM erase what it has of jobs, and returns its deletion, unverified.
func (c *Client) Erase(ctx context.Context, q Erasing) (deletion string, err error) {
	var a ErasingAnswer
	err = c.json(ctx, http.MethodPost, "deletions", q, &a, patience)
	return a.Deletion, err
}

const maxAnswer = 4 << 20

// json sends in, if any, and reads the answer into out, if one is wanted.
func (c *Client) json(ctx context.Context, method, path string, in, out any, within time.Duration) error {
	var body []byte
	contentType := ""
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
		contentType = typeJSON
	}
	answer, err := c.do(ctx, method, path, contentType, body, maxAnswer, within)
	if err != nil || out == nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(answer))
	d.DisallowUnknownFields()
	if err := d.Decode(out); err != nil {
		return carnet.Errorf(carnet.Malformed, "the DPM's answer can't be read: %v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return carnet.Errorf(carnet.Malformed, "the DPM's answer goes on after its object")
	}
	return nil
}

func (c *Client) do(ctx context.Context, method, path, contentType string, body []byte, limit int64, within time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	at, query, _ := bytes.Cut([]byte(path), []byte("?"))
	target, err := url.JoinPath(c.Base, "r6", string(at))
	if err != nil {
		return nil, fmt.Errorf("join %q: %w", c.Base, err)
	}
	if len(query) > 0 {
		target += "?" + string(query)
	}
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := c.HTTP.Do(req)
	if err != nil {
		return nil, carnet.Errorf(carnet.Unavailable, "the DPM can't be reached: %s", carnet.Unreached(err.Error()))
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return nil, problem.Read(resp, "the DPM")
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, carnet.Errorf(carnet.Unavailable, "the DPM's answer broke off: %v", err)
	}
	if int64(len(answer)) > limit {
		return nil, carnet.Errorf(carnet.TooLarge, "the DPM's answer has more than %d bytes", limit)
	}
	return answer, nil
}
