package register

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"carnet"
	"carnet/problem"
)

// Caller is who sent a request, as mutual TLS proved it.
type Caller struct {
	Party carnet.PartyID // as the depot calls it
	DID   string         // of its signing key
	World bool           // whether it is one; only worlds have homes
}

const typeJSON = "application/json"

// maxRequest bounds a petition: three signed messages.
const maxRequest = 128 << 10

// answerTime is how long a caller is kept waiting for the ledger.
const answerTime = 20 * time.Second

// server is the register's part of reference point R2 over HTTP.
type server struct {
	registrar *Registrar
	caller    func(*http.Request) (Caller, error)
}

// Handler serves the register to the depot's peers; caller names who asks.
//
//	PUT  /r2/homes/{home}             {owner, asked} → HomeReply; enrols it for the caller
//	GET  /r2/homes/{home}?asked=NONCE → HomeReply
//	POST /r2/homes                    {homes, asked} → {answer}: which aren't at the caller
//	POST /r2/homes/{home}/claims      {asked, chain} → HomeReply; for the home alone
//	POST /r2/homes/{home}/erasure     {asked, order} → HomeReply; for the home alone
//	POST /r2/erased                   {homes} → {homes}: those of which it was noted
//	POST /r2/crossings/{crossing}     Petition → DecisionReply, or 202 {} while it is open
//
// Refusals are problem+json (RFC 9457) with the members code and fix.
func (r *Registrar) Handler(caller func(*http.Request) (Caller, error)) http.Handler {
	s := &server{r, caller}
	mux := http.NewServeMux()
	for pattern, h := range s.routes() {
		mux.Handle(pattern, s.known(h))
	}
	return mux
}

// handler answers a request with what is to be written as JSON, or nothing yet.
type handler func(ctx context.Context, who Caller, r *http.Request) (any, error)

func (s *server) routes() map[string]handler {
	return map[string]handler{
		"PUT /r2/homes/{home}":          s.enrol,
		"GET /r2/homes/{home}":          s.home,
		"POST /r2/homes":                s.notAt,
		"POST /r2/homes/{home}/claims":  s.claim,
		"POST /r2/homes/{home}/erasure": s.erase,
		"POST /r2/erased":               s.erased,
		"POST /r2/crossings/{crossing}": s.decide,
	}
}

// Patterns lists what Handler serves, by net/http's patterns.
func Patterns() []string { return slices.Sorted(maps.Keys((&server{}).routes())) }

// known calls h with the caller, once it has shown its checkpoint, and answers.
func (s *server) known(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxRequest)
		ctx, cancel := context.WithTimeout(r.Context(), answerTime)
		defer cancel()
		var reply any
		who, err := s.caller(r)
		if shown := r.Header.Get(CheckpointHeader); err == nil && shown != "" {
			err = s.registrar.Shown(ctx, shown)
		}
		if err == nil {
			reply, err = h(ctx, who, r)
		}
		status := http.StatusOK
		if err == nil && reply == nil {
			status, reply = http.StatusAccepted, struct{}{}
		}
		var body []byte
		if err == nil {
			body, err = json.Marshal(reply)
		}
		if err != nil {
			s.refuse(w, r, who.Party, err)
			return
		}
		answer(w, status, typeJSON, body)
	})
}

// refuse answers err. What has no code is logged, and says nothing outside.
func (s *server) refuse(w http.ResponseWriter, r *http.Request, who carnet.PartyID, err error) {
	problem.Refuse(w, "the register", err, func(err error) {
		s.registrar.cfg.Logger.Error("request failed", "party", who, "method", r.Method, "path", r.URL.Path, "error", err)
	})
}

// homeRequest is what is asked about a home.
type homeRequest struct {
	Owner string `json:"owner,omitempty"` // to enrol it
	Asked string `json:"asked"`
	Order string `json:"order,omitempty"` // to erase what it is of
	Chain uint64 `json:"chain,omitempty"` // to claim an item's
}

// homeList is what is asked and answered of several homes.
type homeList struct {
	Homes []carnet.HomeID `json:"homes"`
}

// homesRequest is what is asked about many homes at once, and homesReply what is answered.
type homesRequest struct {
	Homes []carnet.HomeID `json:"homes"`
	Asked string          `json:"asked"`
}

type homesReply struct {
	Answer string `json:"answer"`
}

func (s *server) notAt(ctx context.Context, who Caller, r *http.Request) (any, error) {
	var q homesRequest
	if err := read(r, &q); err != nil {
		return nil, err
	}
	answer, err := s.registrar.NotAt(ctx, who.DID, q.Homes, q.Asked)
	if err != nil {
		return nil, err
	}
	return homesReply{answer}, nil
}

func (s *server) enrol(ctx context.Context, who Caller, r *http.Request) (any, error) {
	var id carnet.HomeID
	var q homeRequest
	if err := errors.Join(id.UnmarshalText([]byte(r.PathValue("home"))), read(r, &q)); err != nil {
		return nil, err
	}
	if !who.World {
		return nil, carnet.Errorf(carnet.Forbidden, "only a world enrols homes")
	}
	return s.registrar.Enrol(ctx, who.DID, id, q.Owner, q.Asked)
}

func (s *server) claim(ctx context.Context, who Caller, r *http.Request) (any, error) {
	var id carnet.HomeID
	var q homeRequest
	if err := errors.Join(id.UnmarshalText([]byte(r.PathValue("home"))), read(r, &q)); err != nil {
		return nil, err
	}
	if q.Owner != "" {
		return nil, carnet.Errorf(carnet.Malformed, "a claim names no owner")
	}
	return s.registrar.Claim(ctx, who.DID, id, q.Chain, q.Asked)
}

func (s *server) erase(ctx context.Context, who Caller, r *http.Request) (any, error) {
	var id carnet.HomeID
	var q homeRequest
	if err := errors.Join(id.UnmarshalText([]byte(r.PathValue("home"))), read(r, &q)); err != nil {
		return nil, err
	}
	return s.registrar.Erase(ctx, who.DID, id, q.Order, q.Asked)
}

func (s *server) erased(ctx context.Context, _ Caller, r *http.Request) (any, error) {
	var q homeList
	if err := read(r, &q); err != nil {
		return nil, err
	}
	erased, err := s.registrar.Erased(ctx, q.Homes)
	if err != nil {
		return nil, err
	}
	return homeList{append([]carnet.HomeID{}, erased...)}, nil
}

func (s *server) home(ctx context.Context, _ Caller, r *http.Request) (any, error) {
	var id carnet.HomeID
	if err := id.UnmarshalText([]byte(r.PathValue("home"))); err != nil {
		return nil, err
	}
	return s.registrar.Home(ctx, id, r.URL.Query().Get("asked"))
}

func (s *server) decide(ctx context.Context, who Caller, r *http.Request) (any, error) {
	var id carnet.CrossingID
	var p Petition
	if err := errors.Join(id.UnmarshalText([]byte(r.PathValue("crossing"))), read(r, &p)); err != nil {
		return nil, err
	}
	reply, err := s.registrar.Decide(ctx, who.DID, id, p)
	if reply == nil {
		return nil, err
	}
	return reply, err
}

// read takes a request's body, one JSON object of known members, into v.
func read(r *http.Request, v any) error {
	body, err := io.ReadAll(r.Body)
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return carnet.Errorf(carnet.TooLarge, "the request has more than %d bytes", maxRequest)
	}
	if err != nil {
		return carnet.Errorf(carnet.Malformed, "the request ended early: %v", err)
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return carnet.Errorf(carnet.Malformed, "the request can't be read: %v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return carnet.Errorf(carnet.Malformed, "the request goes on after its object")
	}
	return nil
}

func answer(w http.ResponseWriter, status int, contentType string, body []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	// A failed write means that the caller went away.
	_, _ = w.Write(body)
}
