package depot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"carnet"
	"carnet/ledger"
	"carnet/problem"
)

// Caller names the party that sent a request, as mutual TLS proved it.
type Caller func(*http.Request) (carnet.PartyID, error)

// Header names and media types of R2.
const (
	retentionHeader = "Carnet-Retention"
	typeCBOR        = "application/cbor"
	typeJSON        = "application/json"
	typeObject      = "application/octet-stream"
	typeNote        = "text/plain; charset=utf-8"
)

// receiptTime is how long a caller is kept waiting for receipts.
const receiptTime = 20 * time.Second

// maxStatements is the size of a full list of entries.
const maxStatements = 9 + 34*ledger.MaxEntries

// server is reference point R2 over HTTP.
type server struct {
	agent  *Agent
	caller Caller
}

// Handler serves R2, the depot's interface for parties:
//
//	POST   /r2/statements             CBOR array of 32-byte entries → CBOR array of receipts
//	PUT    /r2/objects/{fingerprint}  body; Carnet-Retention: hour|day|month|year|keep → 204
//	GET    /r2/objects/{fingerprint}  → body
//	DELETE /r2/objects/{fingerprint}  → 204
//	GET    /r2/objects?after&limit    → JSON list of the caller's objects
//	POST   /r2/deletions              {erasure, order, objects} → {deletion}: erases them, and signs for it
//	GET    /r2/totals                 → JSON: the caller's objects and bytes, the ledger's size
//	GET    /r2/checkpoint             → the ledger's signed checkpoint
//	GET    /r2/ledger/…               → the ledger as C2SP tlog-tiles
//
// Refusals are problem+json (RFC 9457) with the members code and fix.
func (a *Agent) Handler(caller Caller) http.Handler {
	s := &server{a, caller}
	mux := http.NewServeMux()
	for pattern, h := range s.routes() {
		mux.Handle(pattern, s.known(h))
	}
	return mux
}

type handler func(http.ResponseWriter, *http.Request, carnet.PartyID) error

// routes are R2's, by net/http's patterns.
func (s *server) routes() map[string]handler {
	return map[string]handler{
		"POST /r2/statements":              s.statements,
		"PUT /r2/objects/{fingerprint}":    s.putObject,
		"GET /r2/objects/{fingerprint}":    s.getObject,
		"DELETE /r2/objects/{fingerprint}": s.deleteObject,
		"GET /r2/objects":                  s.listObjects,
		"POST /r2/deletions":               s.erase,
		"GET /r2/totals":                   s.totals,
		"GET /r2/checkpoint":               s.checkpoint,
		"GET /r2/ledger/{tile...}":         s.tile,
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
			s.refuse(w, r, who, err)
		}
	})
}

// refuse answers err. What has no code is logged, and says nothing outside.
func (s *server) refuse(w http.ResponseWriter, r *http.Request, who carnet.PartyID, err error) {
	problem.Refuse(w, "the depot", err, func(err error) {
		s.agent.cfg.Logger.Error("request failed", "party", who, "method", r.Method, "path", r.URL.Path, "error", err)
	})
}

func (s *server) statements(w http.ResponseWriter, r *http.Request, who carnet.PartyID) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxStatements))
	if err != nil {
		return readFailure(err)
	}
	entries, err := ledger.ParseEntries(body)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), receiptTime)
	defer cancel()
	receipts, err := s.agent.Submit(ctx, who, entries)
	if err != nil {
		return err
	}
	return answer(w, typeCBOR, ledger.MarshalReceipts(receipts))
}

func (s *server) putObject(w http.ResponseWriter, r *http.Request, who carnet.PartyID) error {
	f, err := fingerprint(r)
	if err != nil {
		return err
	}
	var retention carnet.Retention
	if err := retention.UnmarshalText([]byte(r.Header.Get(retentionHeader))); err != nil {
		return carnet.Errorf(carnet.Malformed, "header %s: %v", retentionHeader, err)
	}
	if r.ContentLength > s.agent.cfg.MaxObject {
		return carnet.Errorf(carnet.TooLarge, "the object has %d bytes, want at most %d", r.ContentLength, s.agent.cfg.MaxObject)
	}
	if err := s.agent.Put(r.Context(), who, f, retention, bodyReader{r.Body}); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *server) getObject(w http.ResponseWriter, r *http.Request, who carnet.PartyID) error {
	f, err := fingerprint(r)
	if err != nil {
		return err
	}
	body, o, err := s.agent.Get(r.Context(), who, f)
	if err != nil {
		return err
	}
	defer body.Close()
	w.Header().Set("Content-Type", typeObject)
	w.Header().Set("Content-Length", strconv.FormatInt(o.Size, 10))
	// Too late for another answer: the caller sees a body that is too short.
	_, _ = io.Copy(w, body)
	return nil
}

func (s *server) deleteObject(w http.ResponseWriter, r *http.Request, who carnet.PartyID) error {
	f, err := fingerprint(r)
	if err != nil {
		return err
	}
	if err := s.agent.Delete(r.Context(), who, f); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// ObjectAnswer is an Object as R2 lists it to its owner.
type ObjectAnswer struct {
	Fingerprint carnet.Fingerprint `json:"fingerprint"`
	Size        int64              `json:"size"`
	Time        time.Time          `json:"time"`
	Retention   carnet.Retention   `json:"retention"`
}

func (s *server) listObjects(w http.ResponseWriter, r *http.Request, who carnet.PartyID) error {
	var after carnet.Fingerprint
	if v := r.FormValue("after"); v != "" {
		if err := after.UnmarshalText([]byte(v)); err != nil {
			return err
		}
	}
	limit := maxList
	if v := r.FormValue("limit"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > maxList {
			return carnet.Errorf(carnet.Malformed, "limit %q: want 1 to %d", v, maxList)
		}
		limit = n
	}
	objects, err := s.agent.List(r.Context(), who, after, limit)
	if err != nil {
		return err
	}
	list := make([]ObjectAnswer, len(objects))
	for i, o := range objects {
		list[i] = ObjectAnswer{o.Fingerprint, o.Size, o.Time, o.Retention}
	}
	return answerJSON(w, list)
}

// TotalsAnswer is what R2 says about a caller's objects, and about the ledger,
// which is everybody's.
type TotalsAnswer struct {
	Objects    int64  `json:"objects"`
	Bytes      int64  `json:"bytes"`
	Statements uint64 `json:"statements"`
}

func (s *server) totals(w http.ResponseWriter, r *http.Request, who carnet.PartyID) error {
	t, err := s.agent.Totals(r.Context(), who)
	if err != nil {
		return err
	}
	cp, _ := s.agent.Checkpoint()
	return answerJSON(w, TotalsAnswer{t.Objects, t.Bytes, cp.Size})
}

func (s *server) checkpoint(w http.ResponseWriter, r *http.Request, _ carnet.PartyID) error {
	_, signed := s.agent.Checkpoint()
	return answer(w, typeNote, signed)
}

func (s *server) tile(w http.ResponseWriter, r *http.Request, _ carnet.PartyID) error {
	http.StripPrefix("/r2/ledger/", s.agent.Tiles()).ServeHTTP(w, r)
	return nil
}

func fingerprint(r *http.Request) (f carnet.Fingerprint, err error) {
	return f, f.UnmarshalText([]byte(r.PathValue("fingerprint")))
}

// bodyReader marks failures to read a request as the caller's.
type bodyReader struct{ r io.Reader }

func (b bodyReader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err != nil && err != io.EOF {
		err = readFailure(err)
	}
	return n, err
}

func readFailure(err error) error {
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return carnet.Errorf(carnet.TooLarge, "the request is too large: %v", err)
	}
	return carnet.Errorf(carnet.Malformed, "the request ended early: %v", err)
}

func answer(w http.ResponseWriter, contentType string, body []byte) error {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	// A failed write means that the caller went away.
	_, _ = w.Write(body)
	return nil
}

func answerJSON(w http.ResponseWriter, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write answer: %w", err)
	}
	return answer(w, typeJSON, body)
}
