package register

import (
	"encoding/json"
	"errors"
	"net/http"

	"carnet"
)

// problem is a refusal (RFC 9457); Code and Fix are those of carnet.Error.
type problem struct {
	Title  string      `json:"title"`
	Status int         `json:"status"`
	Detail string      `json:"detail"`
	Code   carnet.Code `json:"code"`
	Fix    string      `json:"fix,omitempty"`
}

// statusOf is the table of answers. A code that isn't in it is nobody's business
// outside.
func statusOf(code carnet.Code) (int, bool) {
	switch code {
	case carnet.Malformed:
		return http.StatusBadRequest, true
	case carnet.Unauthenticated:
		return http.StatusUnauthorized, true
	case carnet.Forbidden:
		return http.StatusForbidden, true
	case carnet.NotFound:
		return http.StatusNotFound, true
	case carnet.Conflict:
		return http.StatusConflict, true
	case carnet.TooLarge:
		return http.StatusRequestEntityTooLarge, true
	case carnet.Tampered:
		return http.StatusUnprocessableEntity, true
	case carnet.Unavailable:
		return http.StatusServiceUnavailable, true
	case carnet.NoSpace:
		return http.StatusInsufficientStorage, true
	}
	return http.StatusInternalServerError, false
}

// refuse answers err. What has no code is logged, and says nothing outside.
func (s *server) refuse(w http.ResponseWriter, r *http.Request, who carnet.PartyID, err error) {
	p := problem{Detail: "the register failed; its depot's operator sees why", Code: carnet.Unavailable}
	status, known := statusOf(carnet.CodeOf(err))
	if e, ok := errors.AsType[*carnet.Error](err); ok && known {
		p.Code, p.Detail, p.Fix = e.Code, e.Reason, e.Fix
	} else {
		s.registrar.cfg.Logger.Error("request failed", "party", who, "method", r.Method, "path", r.URL.Path, "error", err)
	}
	p.Status, p.Title = status, http.StatusText(status)
	if status == http.StatusServiceUnavailable || status == http.StatusInsufficientStorage {
		w.Header().Set("Retry-After", "1")
	}
	body, merr := json.Marshal(p)
	if merr != nil {
		body = nil
	}
	answer(w, status, typeProblem, body)
}
