package dpm

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"carnet"
	"carnet/capsule"
	"carnet/identity"
	"carnet/problem"
	"carnet/seal"
)

const (
	typeJSON  = "application/json"
	typeBytes = "application/octet-stream"
)

// Caller names the world that sent a request, as mutual TLS proved it.
type Caller func(*http.Request) (carnet.PartyID, error)

// maxSubmission bounds a capsule, as JSON.
const maxSubmission = capsule.MostBags*seal.MaxBag*4/3 + 3*identity.MaxMessage + 64<<10

// longestWait is how long a world may wait for a job to change, or for its turn.
const longestWait = 30 * time.Second

// mostLarge is how many calls of one world with a large body are read, and answered, at once.
const mostLarge = 4

// server is reference point R6 over HTTP.
type server struct {
	agent  *Agent
	caller Caller

	mu    sync.Mutex                       // guards what follows
	large map[carnet.PartyID]chan struct{} // has what is being read of a world's calls with a large body
}

// Handler serves R6, the DPM's interface for worlds. docs/design/capsule.md lists the
// calls; refusals are problem+json (RFC 9457) with the members code and fix.
func (a *Agent) Handler(caller Caller) http.Handler {
	s := &server{agent: a, caller: caller, large: make(map[carnet.PartyID]chan struct{})}
	mux := http.NewServeMux()
	for pattern, h := range s.routes() {
		mux.Handle(pattern, s.known(h))
	}
	return mux
}

type handler func(http.ResponseWriter, *http.Request, carnet.PartyID) error

func (s *server) routes() map[string]handler {
	return map[string]handler{
		"GET /r6/offer":                            s.offer,
		"PUT /r6/jobs/{job}":                       s.inTurn(s.submit),
		"GET /r6/jobs/{job}":                       s.status,
		"PUT /r6/jobs/{job}/content/{fingerprint}": s.content,
		"GET /r6/jobs/{job}/partial":               s.partial,
		"GET /r6/jobs/{job}/parts/{attempt}/{n}":   s.part,
		"POST /r6/jobs/{job}/withdrawal":           s.withdraw,
		"POST /r6/jobs/{job}/taken":                s.taken,
		"POST /r6/revocations":                     s.revoke,
		"POST /r6/revoked":                         s.inTurn(s.revoked),
		"GET /r6/jobs/{job}/record":                s.record,
		"POST /r6/deletions":                       s.inTurn(s.erase),
	}
}

// Patterns lists what Handler serves, by net/http's patterns.
func Patterns() []string { return slices.Sorted(maps.Keys((&server{}).routes())) }

// known calls h with the caller's name, and answers its error.
func (s *server) known(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, err := s.caller(r)
		if err == nil {
			err = h(w, r, who)
		}
		if err != nil {
			problem.Refuse(w, "the DPM", err, func(err error) {
				s.agent.cfg.Log.Error("request failed", "party", who, "method", r.Method, "path", r.URL.Path, "err", err)
			})
		}
	})
}

// inTurn reads large bodies of one world one after the other, all but: what it sends at once
// doesn't fill the memory of everybody's DPM.
func (s *server) inTurn(h handler) handler {
	return func(w http.ResponseWriter, r *http.Request, who carnet.PartyID) error {
		s.mu.Lock()
		turns := s.large[who]
		if turns == nil {
			turns = make(chan struct{}, mostLarge)
			s.large[who] = turns
		}
		s.mu.Unlock()
		ctx, cancel := context.WithTimeout(r.Context(), longestWait)
		defer cancel()
		select {
		case turns <- struct{}{}:
			defer func() { <-turns }()
			return h(w, r, who)
		case <-ctx.Done():
			return carnet.Errorf(carnet.Unavailable, "%d large calls of yours are being read, which is all there may be", mostLarge).WithFix("wait until one has ended, and try again")
		}
	}
}

func jobOf(r *http.Request) (id carnet.JobID, err error) {
	return id, id.UnmarshalText([]byte(r.PathValue("job")))
}

func (s *server) offer(w http.ResponseWriter, _ *http.Request, who carnet.PartyID) error {
	o, err := s.agent.Offer(who)
	if err != nil {
		return err
	}
	return answerJSON(w, o)
}

// SubmissionAnswer answers a capsule.
type SubmissionAnswer struct {
	Acceptance string `json:"acceptance"`
}

func (s *server) submit(w http.ResponseWriter, r *http.Request, who carnet.PartyID) error {
	id, err := jobOf(r)
	if err != nil {
		return err
	}
	var sub Submission
	if err := readJSON(w, r, maxSubmission, &sub); err != nil {
		return err
	}
	acceptance, err := s.agent.Submit(r.Context(), who, id, sub)
	if err != nil {
		return err
	}
	return answerJSON(w, SubmissionAnswer{acceptance})
}

func (s *server) status(w http.ResponseWriter, r *http.Request, who carnet.PartyID) error {
	id, err := jobOf(r)
	if err != nil {
		return err
	}
	after, errAfter := number(r.FormValue("after"))
	wait, errWait := number(r.FormValue("wait"))
	if errAfter != nil || errWait != nil {
		return errors.Join(errAfter, errWait)
	}
	ctx, cancel := context.WithTimeout(r.Context(), min(time.Duration(min(wait, 60))*time.Second, longestWait))
	defer cancel()
	st, err := s.agent.Status(ctx, who, id, after)
	if err != nil {
		return err
	}
	return answerJSON(w, st)
}

// number reads a number of a query; absent is 0.
func number(text string) (uint64, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 62)
	if err != nil {
		return 0, carnet.Errorf(carnet.Malformed, "%.30q is no number", text)
	}
	return n, nil
}

func (s *server) content(w http.ResponseWriter, r *http.Request, who carnet.PartyID) error {
	id, err := jobOf(r)
	if err != nil {
		return err
	}
	var name carnet.Fingerprint
	if err := name.UnmarshalText([]byte(r.PathValue("fingerprint"))); err != nil {
		return err
	}
	if err := s.agent.PutContent(r.Context(), who, id, name, http.MaxBytesReader(w, r.Body, capsule.MostInput+1)); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *server) partial(w http.ResponseWriter, r *http.Request, who carnet.PartyID) error {
	id, err := jobOf(r)
	if err != nil {
		return err
	}
	p, err := s.agent.Partial(who, id)
	if err != nil {
		return err
	}
	return answerJSON(w, p)
}

func (s *server) part(w http.ResponseWriter, r *http.Request, who carnet.PartyID) error {
	id, err := jobOf(r)
	if err != nil {
		return err
	}
	attempt, errAttempt := number(r.PathValue("attempt"))
	n, errN := number(r.PathValue("n"))
	if errAttempt != nil || errN != nil {
		return errors.Join(errAttempt, errN)
	}
	sealed, err := s.agent.Part(who, id, int(attempt), int(n))
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", typeBytes)
	_, _ = w.Write(sealed)
	return nil
}

// Withdrawing carries a world's word that a job is to end.
type Withdrawing struct {
	Withdrawal string `json:"withdrawal"`
}

// WithdrawingAnswer has what the DPM signed then.
type WithdrawingAnswer struct {
	Result string `json:"result"`
}

func (s *server) withdraw(w http.ResponseWriter, r *http.Request, who carnet.PartyID) error {
	id, err := jobOf(r)
	if err != nil {
		return err
	}
	var body Withdrawing
	if err := readJSON(w, r, 2*identity.MaxMessage, &body); err != nil {
		return err
	}
	result, err := s.agent.Withdraw(r.Context(), who, id, body.Withdrawal)
	if err != nil {
		return err
	}
	return answerJSON(w, WithdrawingAnswer{result})
}

// Revoking carries a word that a module is to run no more.
type Revoking struct {
	Revocation string `json:"revocation"`
}

func (s *server) revoke(w http.ResponseWriter, r *http.Request, who carnet.PartyID) error {
	var body Revoking
	if err := readJSON(w, r, 2*identity.MaxMessage, &body); err != nil {
		return err
	}
	if err := s.agent.Revoke(r.Context(), who, body.Revocation); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// RevokedAsked carries the modules that a world asks about.
type RevokedAsked struct {
	Records []string `json:"records"`
}

// RevokedAnswer carries the revocations of those that run no more.
type RevokedAnswer struct {
	Revocations []string `json:"revocations"`
}

func (s *server) revoked(w http.ResponseWriter, r *http.Request, who carnet.PartyID) error {
	var asked RevokedAsked
	if err := readJSON(w, r, mostAsked*2*identity.MaxMessage, &asked); err != nil {
		return err
	}
	words, err := s.agent.Revoked(who, asked.Records)
	if err != nil {
		return err
	}
	return answerJSON(w, RevokedAnswer{words})
}

// Taking carries a world's word that it has a result.
type Taking struct {
	Taken string `json:"taken"`
}

func (s *server) taken(w http.ResponseWriter, r *http.Request, who carnet.PartyID) error {
	id, err := jobOf(r)
	if err != nil {
		return err
	}
	var body Taking
	if err := readJSON(w, r, 2*identity.MaxMessage, &body); err != nil {
		return err
	}
	if err := s.agent.Take(r.Context(), who, id, body.Taken); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// RecordAnswer has what a DPM has stated of a job: a capsule.Record.
type RecordAnswer struct {
	Record string `json:"record"`
}

func (s *server) record(w http.ResponseWriter, r *http.Request, who carnet.PartyID) error {
	id, err := jobOf(r)
	if err != nil {
		return err
	}
	record, err := s.agent.Record(r.Context(), who, id)
	if err != nil {
		return err
	}
	return answerJSON(w, RecordAnswer{record})
}

func (s *server) erase(w http.ResponseWriter, r *http.Request, who carnet.PartyID) error {
	var body Erasing
	if err := readJSON(w, r, 2*identity.MaxMessage+128*MaxErasing, &body); err != nil {
		return err
	}
	deletion, err := s.agent.Erase(r.Context(), who, body)
	if err != nil {
		return err
	}
	return answerJSON(w, ErasingAnswer{deletion})
}

// answerJSON writes an answer.
func answerJSON(w http.ResponseWriter, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", typeJSON)
	_, _ = w.Write(body)
	return nil
}

// readJSON reads a request's body of at most limit bytes, strictly.
func readJSON(w http.ResponseWriter, r *http.Request, limit int64, v any) error {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, limit))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		if _, large := errors.AsType[*http.MaxBytesError](err); large {
			return carnet.Errorf(carnet.TooLarge, "the request has more than %d bytes", limit)
		}
		return carnet.Errorf(carnet.Malformed, "the request can't be read: %v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return carnet.Errorf(carnet.Malformed, "the request goes on after its object")
	}
	return nil
}
