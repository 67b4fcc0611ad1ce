package dpm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"carnet"
	"carnet/capsule"
	"carnet/porter"
	"carnet/problem"
	"carnet/seal"
	"carnet/socket"
)

// Workers in other processes find the board on a Unix socket in the DPM's directory,
// which only its user can open: HTTP, as R6 is, with the same refusals.
//
//	GET  /workers/{worker}            held open while the worker lives
//	POST /workers/{worker}/lease      → Assignment, or 204 when there is none for a while
//	POST /attempts/renew              {ticket, progress}
//	POST /attempts/content            {ticket, content} → bytes
//	PUT  /attempts/{peer}/{job}/{attempt}/parts/{n}   bytes
//	POST /attempts/end                {ticket, ran}

// socketName is where a DPM's workers find it, in its data directory.
const socketName = "workers.sock"

// leaseWait is how long a worker's question for a job is held.
const leaseWait = 20 * time.Second

type renewal struct {
	Ticket   Ticket   `json:"ticket"`
	Progress Progress `json:"progress"`
}

type wanted struct {
	Ticket  Ticket             `json:"ticket"`
	Content carnet.Fingerprint `json:"content"`
}

type ending struct {
	Ticket Ticket `json:"ticket"`
	Ran    Ran    `json:"ran"`
}

// ServeWorkers serves the board at the socket in a directory until ctx ends.
func (a *Agent) ServeWorkers(ctx context.Context, dir string) error {
	l, err := socket.Listen(dir, socketName)
	if err != nil {
		return fmt.Errorf("listen for workers: %w", err)
	}
	server := &http.Server{
		Handler: porter.TellPanics(a.board(), a.cfg.Log), ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve workers: %w", err)
	}
	return nil
}

func (a *Agent) board() http.Handler {
	mux := http.NewServeMux()
	for pattern, h := range map[string]func(http.ResponseWriter, *http.Request) error{
		"GET /workers/{worker}":                          a.serveWorker,
		"POST /workers/{worker}/lease":                   a.serveLease,
		"POST /attempts/renew":                           a.serveRenew,
		"POST /attempts/content":                         a.serveContent,
		"POST /attempts/end":                             a.serveEnd,
		"PUT /attempts/{peer}/{job}/{attempt}/parts/{n}": a.servePart,
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := h(w, r); err != nil {
				problem.Refuse(w, "the DPM", err, func(err error) { a.cfg.Log.Error("a worker's request failed", "path", r.URL.Path, "err", err) })
			}
		})
	}
	return mux
}

func (a *Agent) serveWorker(w http.ResponseWriter, r *http.Request) error {
	leave := a.Enter(r.PathValue("worker"))
	defer leave()
	w.WriteHeader(http.StatusOK)
	if err := http.NewResponseController(w).Flush(); err != nil {
		return nil
	}
	<-r.Context().Done()
	return nil
}

func (a *Agent) serveLease(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := context.WithTimeout(r.Context(), leaseWait)
	defer cancel()
	got, err := a.Lease(ctx, r.PathValue("worker"))
	if err != nil {
		return err
	}
	if got == nil {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	return answerJSON(w, got)
}

func (a *Agent) serveRenew(w http.ResponseWriter, r *http.Request) error {
	var b renewal
	if err := readJSON(w, r, 64<<10, &b); err != nil {
		return err
	}
	return done(w, a.Renew(r.Context(), b.Ticket, b.Progress))
}

func (a *Agent) serveContent(w http.ResponseWriter, r *http.Request) error {
	var b wanted
	if err := readJSON(w, r, 64<<10, &b); err != nil {
		return err
	}
	data, err := a.Content(r.Context(), b.Ticket, b.Content)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", typeBytes)
	_, _ = w.Write(data)
	return nil
}

func (a *Agent) serveEnd(w http.ResponseWriter, r *http.Request) error {
	var b ending
	if err := readJSON(w, r, 64<<10, &b); err != nil {
		return err
	}
	return done(w, a.End(r.Context(), b.Ticket, b.Ran))
}

func (a *Agent) servePart(w http.ResponseWriter, r *http.Request) error {
	t := Ticket{Peer: carnet.PartyID(r.PathValue("peer"))}
	err := t.Job.UnmarshalText([]byte(r.PathValue("job")))
	attempt, errAttempt := number(r.PathValue("attempt"))
	n, errN := number(r.PathValue("n"))
	if err := errors.Join(err, errAttempt, errN); err != nil {
		return err
	}
	t.Attempt = int(attempt)
	sealed, err := io.ReadAll(http.MaxBytesReader(w, r.Body, seal.MaxBatch))
	if err != nil {
		return carnet.Errorf(carnet.Unavailable, "the part broke off: %v", err)
	}
	return done(w, a.PutPart(r.Context(), t, int(n), sealed))
}

func done(w http.ResponseWriter, err error) error {
	if err == nil {
		w.WriteHeader(http.StatusNoContent)
	}
	return err
}

// Remote is the board of a DPM that runs in another process of this machine.
type Remote struct {
	http *http.Client
}

var _ Board = (*Remote)(nil)

// NewRemote makes the way to the board of the DPM with this data directory.
func NewRemote(dir string) *Remote {
	return &Remote{&http.Client{Transport: &http.Transport{
		DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return socket.Dial(ctx, dir, socketName) },
		MaxIdleConnsPerHost: 4,
	}}}
}

// Attend says that a worker is there, until ctx ends or the DPM doesn't answer any
// more.
func (r *Remote) Attend(ctx context.Context, worker string) error {
	resp, err := r.send(ctx, http.MethodGet, "workers/"+worker, nil, "")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	if ctx.Err() != nil {
		return nil
	}
	return carnet.Errorf(carnet.Unavailable, "the DPM has ended: %v", err)
}

// send sends a request. Errors are those of the board.
func (r *Remote) send(ctx context.Context, method, path string, body []byte, contentType string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://dpm/"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := r.http.Do(req)
	if err != nil {
		return nil, carnet.Errorf(carnet.Unavailable, "the DPM's board can't be reached: %v", err)
	}
	if resp.StatusCode/100 != 2 {
		defer resp.Body.Close()
		return nil, problem.Read(resp, "the DPM")
	}
	return resp, nil
}

// call sends in and reads the answer's bytes.
func (r *Remote) call(ctx context.Context, path string, in any) ([]byte, error) {
	body, err := json.Marshal(in)
	if err != nil {
		return nil, err
	}
	resp, err := r.send(ctx, http.MethodPost, path, body, typeJSON)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, capsule.MostInput+8<<20))
	if err != nil {
		return nil, carnet.Errorf(carnet.Unavailable, "the board's answer broke off: %v", err)
	}
	return answer, nil
}

// Lease implements Board.
func (r *Remote) Lease(ctx context.Context, worker string) (*Assignment, error) {
	for {
		answer, err := r.call(ctx, "workers/"+worker+"/lease", struct{}{})
		if ctx.Err() != nil {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if len(answer) > 0 {
			got := new(Assignment)
			return got, json.Unmarshal(answer, got)
		}
	}
}

// Renew implements Board.
func (r *Remote) Renew(ctx context.Context, t Ticket, p Progress) error {
	_, err := r.call(ctx, "attempts/renew", renewal{t, p})
	return err
}

// Content implements Board.
func (r *Remote) Content(ctx context.Context, t Ticket, name carnet.Fingerprint) ([]byte, error) {
	return r.call(ctx, "attempts/content", wanted{t, name})
}

// PutPart implements Board.
func (r *Remote) PutPart(ctx context.Context, t Ticket, n int, sealed []byte) error {
	path := fmt.Sprintf("attempts/%s/%s/%d/parts/%s", t.Peer, t.Job, t.Attempt, strconv.Itoa(n))
	resp, err := r.send(ctx, http.MethodPut, path, sealed, typeBytes)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// End implements Board.
func (r *Remote) End(ctx context.Context, t Ticket, ran Ran) error {
	_, err := r.call(ctx, "attempts/end", ending{t, ran})
	return err
}
