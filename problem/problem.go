// Package problem writes refusals between parties and reads them back (RFC 9457, with
// the code and the fix of carnet.Error).
package problem

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"

	"carnet"
)

// Type is a refusal's media type.
const Type = "application/problem+json"

// most bounds a refusal's bytes.
const most = 64 << 10

// Problem is a refusal as it is written.
type Problem struct {
	Title  string      `json:"title"`
	Status int         `json:"status"`
	Detail string      `json:"detail"`
	Code   carnet.Code `json:"code"`
	Fix    string      `json:"fix,omitempty"`
}

// statuses is the table of answers between parties. A code that isn't in it is nobody's
// business outside.
var statuses = map[carnet.Code]int{
	carnet.Malformed:       http.StatusBadRequest,
	carnet.OutOfRange:      http.StatusBadRequest,
	carnet.TooNew:          http.StatusBadRequest,
	carnet.Unauthenticated: http.StatusUnauthorized,
	carnet.Forbidden:       http.StatusForbidden,
	carnet.NotFound:        http.StatusNotFound,
	carnet.Conflict:        http.StatusConflict,
	carnet.TooOld:          http.StatusGone,
	carnet.TooLarge:        http.StatusRequestEntityTooLarge,
	carnet.Tampered:        http.StatusUnprocessableEntity,
	carnet.Unavailable:     http.StatusServiceUnavailable,
	carnet.NoSpace:         http.StatusInsufficientStorage,
}

// Refuse answers err. What has no code says outside only that who failed ("the depot");
// internal is told of it.
func Refuse(w http.ResponseWriter, who string, err error, internal func(error)) {
	p := Problem{Status: http.StatusInternalServerError, Code: carnet.Unavailable, Detail: who + " failed; its operator sees why"}
	if e, ok := errors.AsType[*carnet.Error](err); ok && statuses[e.Code] != 0 {
		p.Status, p.Code, p.Detail, p.Fix = statuses[e.Code], e.Code, e.Reason, e.Fix
	} else {
		internal(err)
	}
	p.Title = http.StatusText(p.Status)
	body, merr := json.Marshal(p)
	if merr != nil {
		body = nil // the status says it
	}
	w.Header().Set("Content-Type", Type)
	if p.Status == http.StatusServiceUnavailable || p.Status == http.StatusInsufficientStorage {
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(p.Status)
	_, _ = w.Write(body) // a failed write means that the caller went away
}

// Read turns a refusal by who back into the error that it was. An answer that isn't a
// party's (a proxy's, say) only says that who wasn't reached.
func Read(resp *http.Response, who string) error {
	var p Problem
	media, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err == nil && media == Type {
		err = json.NewDecoder(io.LimitReader(resp.Body, most)).Decode(&p)
	}
	if err != nil || media != Type || statuses[p.Code] == 0 {
		return carnet.Errorf(carnet.Unavailable, "%s answered %s", who, resp.Status)
	}
	return &carnet.Error{Code: p.Code, Reason: p.Detail, Fix: p.Fix}
}
