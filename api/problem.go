package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"carnet"

	"github.com/danielgtaylor/huma/v2"
)

// Problem is a refusal (RFC 9457 §3). Code is a carnet.Code; Fix says what to do.
type Problem struct {
	Title  string      `json:"title" doc:"The HTTP status in words." example:"Not Found"`
	Status int         `json:"status" doc:"The HTTP status." example:"404"`
	Detail string      `json:"detail" doc:"What is wrong, for people." example:"there is no avatar 00112233445566778899aabbccddeeff"`
	Code   carnet.Code `json:"code" doc:"What is wrong, for programs." example:"not_found"`
	Fix    string      `json:"fix,omitempty" doc:"What to do about it." example:"list the avatars"`
}

const typeProblem = "application/problem+json"

// Error and GetStatus make a Problem an answer that huma writes.
func (p *Problem) Error() string  { return p.Detail }
func (p *Problem) GetStatus() int { return p.Status }

// ContentType is the media type of RFC 9457 §6.1.
func (p *Problem) ContentType(string) string { return typeProblem }

// statuses is the one table from codes to HTTP. What isn't in it is nobody's
// business outside.
var statuses = map[carnet.Code]int{
	carnet.Malformed:       http.StatusBadRequest,
	carnet.UnknownProperty: http.StatusUnprocessableEntity,
	carnet.WrongType:       http.StatusUnprocessableEntity,
	carnet.WrongUnit:       http.StatusUnprocessableEntity,
	carnet.OutOfRange:      http.StatusUnprocessableEntity,
	carnet.Incomplete:      http.StatusUnprocessableEntity,
	carnet.TooOld:          http.StatusUnprocessableEntity,
	carnet.TooNew:          http.StatusUnprocessableEntity,
	carnet.TooLarge:        http.StatusRequestEntityTooLarge,
	carnet.Unauthenticated: http.StatusUnauthorized,
	carnet.Forbidden:       http.StatusForbidden,
	carnet.NotFound:        http.StatusNotFound,
	carnet.Conflict:        http.StatusConflict,
	carnet.Unavailable:     http.StatusServiceUnavailable,
	carnet.NoSpace:         http.StatusInsufficientStorage,
	carnet.Tampered:        http.StatusInternalServerError,
}

// problemOf tells err for outside. What has no known code is logged and says
// nothing.
func (s *server) problemOf(ctx context.Context, err error) *Problem {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	if e, ok := errors.AsType[*carnet.Error](err); ok {
		if status, known := statuses[e.Code]; known {
			if status == http.StatusInternalServerError {
				s.log.Error("a call failed", "party", s.party, "caller", caller(ctx).Name, "err", err)
			}
			return problem(status, e)
		}
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return problem(http.StatusServiceUnavailable, carnet.Errorf(carnet.Unavailable, "the call took too long").WithFix("ask for less, or try again"))
	}
	s.log.Error("a call failed", "party", s.party, "caller", caller(ctx).Name, "err", err)
	return problem(http.StatusInternalServerError, carnet.Errorf(carnet.Unavailable, "%s failed; its operator sees why", s.party))
}

func problem(status int, e *carnet.Error) *Problem {
	return &Problem{http.StatusText(status), status, e.Reason, e.Code, e.Fix}
}

// problemOfHuma turns what huma found in a request into a Problem. Nothing of the
// request is shown back but the place.
func problemOfHuma(m *huma.ErrorModel) *Problem {
	p := &Problem{http.StatusText(m.Status), m.Status, m.Detail, carnet.Malformed, "see the OpenAPI document at /openapi.json"}
	switch {
	case m.Status == http.StatusRequestEntityTooLarge:
		p.Code = carnet.TooLarge
	case m.Status >= http.StatusInternalServerError:
		p.Code, p.Detail, p.Fix = carnet.Unavailable, "the call failed", ""
		return p
	}
	var details []string
	for _, d := range m.Errors[:min(len(m.Errors), 8)] {
		where := d.Message
		if d.Location != "" {
			where = d.Location + ": " + d.Message
		}
		details = append(details, where)
	}
	if len(details) > 0 {
		p.Detail = strings.Join(details, "; ")
	}
	return p
}

// transform is huma's last step before an answer is written.
func transform(_ huma.Context, _ string, v any) (any, error) {
	if m, ok := v.(*huma.ErrorModel); ok {
		return problemOfHuma(m), nil
	}
	return v, nil
}

// refuse answers err where huma doesn't.
func (s *server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	p := s.problemOf(r.Context(), err)
	h := w.Header()
	h.Set("Content-Type", typeProblem)
	headersFor(p.Status, h.Set)
	w.WriteHeader(p.Status)
	// A failed write means that the caller went away.
	_ = json.NewEncoder(w).Encode(p)
}

// headersFor sets the headers that belong to a refusal.
func headersFor(status int, set func(name, value string)) {
	switch status {
	case http.StatusUnauthorized:
		set("WWW-Authenticate", `Bearer realm="carnet"`) // RFC 6750 §3
	case http.StatusServiceUnavailable, http.StatusInsufficientStorage, http.StatusTooManyRequests:
		set("Retry-After", "1")
	}
}
