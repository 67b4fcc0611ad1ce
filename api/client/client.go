// Package client calls a party's HTTP API (package api) from Go: every operation
// as a typed method, refusals as *carnet.Error, live events as an iterator.
//
// A Client keeps no state but its fields: a call that fails changes nothing here
// and may be made again. It must not know what is behind the API.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"carnet"
	"carnet/api"
)

// Client calls one party. Its methods may be called concurrently.
type Client struct {
	Base  string       // "https://127.0.0.1:8443"
	Token string       // the bearer token
	HTTP  *http.Client // with the party's certificate authority; default http.DefaultClient
}

// maxAnswer bounds what is read of one answer.
const maxAnswer = 256 << 20

// typeJSON is what is sent and, unless said otherwise, expected.
const typeJSON = "application/json"

func (c *Client) http() *http.Client {
	if c.HTTP != nil {
		return c.HTTP
	}
	return http.DefaultClient
}

// get and send make a call and decode its answer into a T.
func get[T any](ctx context.Context, c *Client, path string) (v T, err error) {
	return send[T](ctx, c, http.MethodGet, path, nil)
}

func send[T any](ctx context.Context, c *Client, method, path string, body any) (v T, err error) {
	answer, _, err := c.call(ctx, method, path, typeJSON, body)
	if err != nil {
		return v, err
	}
	if err := json.Unmarshal(answer, &v); err != nil {
		return v, fmt.Errorf("read the answer to %s %s: %w", method, path, err)
	}
	return v, nil
}

// call makes a call and reads its answer whole.
func (c *Client) call(ctx context.Context, method, path, accept string, body any) ([]byte, http.Header, error) {
	answer, err := c.open(ctx, method, path, accept, body)
	if err != nil {
		return nil, nil, err
	}
	defer answer.Body.Close()
	read, err := c.read(answer)
	return read, answer.Header, err
}

// open makes a call. The caller reads and closes the answer's body.
func (c *Client) open(ctx context.Context, method, path, accept string, body any) (*http.Response, error) {
	var sent io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encode %s %s: %w", method, path, err)
		}
		sent = bytes.NewReader(encoded)
	}
	r, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.Base, "/")+path, sent)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", accept)
	r.Header.Set("Authorization", "Bearer "+c.Token)
	if body != nil {
		r.Header.Set("Content-Type", typeJSON)
	}
	answer, err := c.do(r)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode/100 == 2 {
		return answer, nil
	}
	defer answer.Body.Close()
	read, err := c.read(answer)
	if err != nil {
		return nil, err
	}
	return nil, refusal(answer.StatusCode, read)
}

// Where a party answers 429 it has done nothing, so the call is made again when it
// says: mostTries times in all, and not where that is longer than longestWait away.
const (
	mostTries   = 4
	longestWait = 10 * time.Second
)

// do makes a call, whose body can be read again. The caller closes the answer's body.
func (c *Client) do(r *http.Request) (*http.Response, error) {
	for tries := 1; ; tries++ {
		answer, err := c.http().Do(r)
		if err != nil {
			return nil, carnet.Errorf(carnet.Unavailable, "%s does not answer: %s", c.Base, carnet.Unreached(unwrapURL(err).Error())).WithFix("see that the party runs and that the address is right")
		}
		wait, again := waitOf(answer)
		if !again || tries == mostTries {
			return answer, nil
		}
		answer.Body.Close()
		select {
		case <-r.Context().Done():
			return nil, fmt.Errorf("wait to call %s again: %w", c.Base, r.Context().Err())
		case <-time.After(wait):
		}
		if r.GetBody != nil {
			if r.Body, err = r.GetBody(); err != nil {
				return nil, fmt.Errorf("call %s again: %w", c.Base, err)
			}
		}
	}
}

// waitOf says whether an answer asks for the same call later, and when.
func waitOf(answer *http.Response) (time.Duration, bool) {
	if answer.StatusCode != http.StatusTooManyRequests {
		return 0, false
	}
	seconds, err := strconv.ParseUint(answer.Header.Get("Retry-After"), 10, 16)
	wait := time.Duration(seconds) * time.Second
	return wait, err == nil && wait <= longestWait
}

// read reads an answer whole.
func (c *Client) read(answer *http.Response) ([]byte, error) {
	read, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	if err != nil {
		return nil, carnet.Errorf(carnet.Unavailable, "%s stopped answering: %v", c.Base, err)
	}
	if len(read) > maxAnswer {
		return nil, carnet.Errorf(carnet.TooLarge, "the answer of %s has more than %d bytes", c.Base, maxAnswer)
	}
	return read, nil
}

// unwrapURL leaves out the URL that a *url.Error repeats.
func unwrapURL(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// refusal reads a problem document (RFC 9457).
func refusal(status int, body []byte) error {
	var p api.Problem
	if err := json.Unmarshal(body, &p); err != nil || p.Code == "" {
		return carnet.Errorf(carnet.Unavailable, "the answer is %d %s, which is not this API's", status, http.StatusText(status))
	}
	return &carnet.Error{Code: p.Code, Reason: p.Detail, Fix: p.Fix}
}
