package dpm

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"

	"carnet"
)

const (
	typeJSON    = "application/json"
	typeProblem = "application/problem+json"
	typeBytes   = "application/octet-stream"
)

// problem is a refusal (RFC 9457); Code and Fix are those of carnet.Error.
type problem struct {
	Title  string      `json:"title"`
	Status int         `json:"status"`
	Detail string      `json:"detail"`
	Code   carnet.Code `json:"code"`
	Fix    string      `json:"fix,omitempty"`
}

// statuses is R6's table of answers. A code that isn't in it is nobody's business
// outside.
var statuses = map[carnet.Code]int{
	carnet.Malformed: http.StatusBadRequest, carnet.OutOfRange: http.StatusBadRequest, carnet.Unauthenticated: http.StatusUnauthorized,
	carnet.Forbidden: http.StatusForbidden, carnet.NotFound: http.StatusNotFound, carnet.Conflict: http.StatusConflict,
	carnet.TooOld: http.StatusGone, carnet.TooNew: http.StatusBadRequest, carnet.TooLarge: http.StatusRequestEntityTooLarge,
	carnet.Tampered: http.StatusUnprocessableEntity, carnet.Unavailable: http.StatusServiceUnavailable, carnet.NoSpace: http.StatusInsufficientStorage,
}

// refuse answers err. What has no code says nothing outside; internal is told of it.
func refuse(w http.ResponseWriter, err error, internal func(error)) {
	p := problem{Detail: "the DPM failed; its operator sees why", Code: carnet.Unavailable, Status: http.StatusInternalServerError}
	if e, ok := errors.AsType[*carnet.Error](err); ok && statuses[e.Code] != 0 {
		p.Code, p.Detail, p.Fix, p.Status = e.Code, e.Reason, e.Fix, statuses[e.Code]
	} else {
		internal(err)
	}
	p.Title = http.StatusText(p.Status)
	body, err := json.Marshal(p)
	if err != nil {
		body = nil
	}
	w.Header().Set("Content-Type", typeProblem)
	w.WriteHeader(p.Status)
	_, _ = w.Write(body) // a failed write means that the caller went away
}

// readProblem turns a refusal back into the error that it was. An answer that isn't
// ours only says that the DPM wasn't reached.
func readProblem(resp *http.Response) error {
	var p problem
	media, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err == nil && media == typeProblem {
		err = json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&p)
	}
	if err != nil || media != typeProblem || statuses[p.Code] == 0 {
		return carnet.Errorf(carnet.Unavailable, "the DPM answered %s", resp.Status)
	}
	return &carnet.Error{Code: p.Code, Reason: p.Detail, Fix: p.Fix}
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
	return nil
}
