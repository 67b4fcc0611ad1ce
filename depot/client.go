package depot

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"carnet"
	"carnet/ledger"
	"carnet/problem"
)

// Client is a party's side of R2. HTTP brings the mutual TLS. It verifies the
// fingerprints of what it gets; receipts are verified by who knows the ledger's
// key (ledger.Outbox does).
//
// Errors have the code that the depot gave; a depot that can't be reached is
// carnet.Unavailable.
type Client struct {
	Base string // the depot's URL without /r2, e.g. https://vault.example
	HTTP *http.Client
}

// Limits of what a Client reads.
const (
	maxClientObject = 64 << 20 // what a depot takes, if its operator says nothing else
	maxShort        = 64 << 10
	maxListed       = maxList * 512
	maxReceipts     = ledger.MaxEntries * 2048
)

// Submit hands entries to the depot's ledger (ledger.Submitter).
func (c *Client) Submit(ctx context.Context, entries []ledger.Entry) ([]ledger.Receipt, error) {
	body, err := c.do(ctx, http.MethodPost, "statements", typeCBOR, "", ledger.MarshalEntries(entries), maxReceipts)
	if err != nil {
		return nil, fmt.Errorf("submit entries: %w", err)
	}
	return ledger.ParseReceipts(body)
}

// PutObject stores body under its fingerprint, which it returns; the object is
// durable then.
func (c *Client) PutObject(ctx context.Context, body []byte, retention carnet.Retention) (carnet.Fingerprint, error) {
	f := carnet.FingerprintOf(body)
	if _, err := c.do(ctx, http.MethodPut, "objects/"+f.String(), typeObject, retention.String(), body, maxShort); err != nil {
		return f, fmt.Errorf("put object: %w", err)
	}
	return f, nil
}

// GetObject fetches an object that this party has put.
func (c *Client) GetObject(ctx context.Context, f carnet.Fingerprint) ([]byte, error) {
	body, err := c.do(ctx, http.MethodGet, "objects/"+f.String(), "", "", nil, maxClientObject)
	if err != nil {
		return nil, fmt.Errorf("get object: %w", err)
	}
	if got := carnet.FingerprintOf(body); got != f {
		return nil, carnet.Errorf(carnet.Tampered, "the depot answered with %s where %s was asked for", got, f)
	}
	return body, nil
}

// DeleteObject has the depot erase an object that this party has put.
func (c *Client) DeleteObject(ctx context.Context, f carnet.Fingerprint) error {
	if _, err := c.do(ctx, http.MethodDelete, "objects/"+f.String(), "", "", nil, maxShort); err != nil {
		return fmt.Errorf("delete object: %w", err)
	}
	return nil
}

// Objects lists a page of what this party has put, by fingerprint, those after one.
func (c *Client) Objects(ctx context.Context, after carnet.Fingerprint) ([]carnet.Fingerprint, error) {
	body, err := c.do(ctx, http.MethodGet, "objects?after="+after.String(), "", "", nil, maxListed)
	if err != nil {
		return nil, fmt.Errorf("list objects: %w", err)
	}
	var listed []ObjectAnswer
	if err := json.Unmarshal(body, &listed); err != nil {
		return nil, fmt.Errorf("list objects: %w", err)
	}
	all := make([]carnet.Fingerprint, len(listed))
	for i := range listed {
		if all[i] = listed[i].Fingerprint; bytes.Compare(all[i][:], after[:]) <= 0 {
			return nil, carnet.Errorf(carnet.Tampered, "the depot lists object %s behind %s", all[i], after)
		}
		after = all[i]
	}
	return all, nil
}

// Checkpoint fetches the ledger's signed checkpoint, unverified.
func (c *Client) Checkpoint(ctx context.Context) ([]byte, error) {
	body, err := c.do(ctx, http.MethodGet, "checkpoint", "", "", nil, maxShort)
	if err != nil {
		return nil, fmt.Errorf("get checkpoint: %w", err)
	}
	return body, nil
}

// Totals fetches what the depot counts for this party.
func (c *Client) Totals(ctx context.Context) (t TotalsAnswer, err error) {
	body, err := c.do(ctx, http.MethodGet, "totals", "", "", nil, maxShort)
	if err != nil {
		return t, fmt.Errorf("get totals: %w", err)
	}
	if err := json.Unmarshal(body, &t); err != nil {
		return t, carnet.Errorf(carnet.Malformed, "the depot's totals are not JSON: %v", err)
	}
	return t, nil
}

// do sends one request and reads at most limit bytes of the answer.
func (c *Client) do(ctx context.Context, method, path, contentType, retention string, body []byte, limit int64) ([]byte, error) {
	path, query, _ := strings.Cut(path, "?")
	target, err := url.JoinPath(c.Base, "r2", path)
	if err != nil {
		return nil, fmt.Errorf("join %q: %w", c.Base, err)
	}
	if query != "" {
		target += "?" + query
	}
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if retention != "" {
		req.Header.Set(retentionHeader, retention)
	}
	resp, err := c.HTTP.Do(req)
	if err != nil {
		return nil, carnet.Errorf(carnet.Unavailable, "the depot cannot be reached: %v", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return nil, problem.Read(resp, "the depot")
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, carnet.Errorf(carnet.Unavailable, "the depot's answer broke off: %v", err)
	}
	if int64(len(answer)) > limit {
		return nil, carnet.Errorf(carnet.TooLarge, "the depot's answer has more than %d bytes", limit)
	}
	return answer, nil
}
