package carnet

import (
	"errors"
	"fmt"
	"strings"
)

// Code says what kind of failure an Error is, for the packages that must react
// to it. Each edge (HTTP, MQTT, CLI) turns codes into its own answers in one
// table.
type Code string

// The codes. The first group refuses a measurement for good.
const (
	Malformed       Code = "malformed"        // not in the form that was announced
	UnknownProperty Code = "unknown_property" // not in the thing's description
	WrongType       Code = "wrong_type"       // the value's kind is not the description's
	WrongUnit       Code = "wrong_unit"       // the unit is not the description's
	OutOfRange      Code = "out_of_range"     // outside the description's minimum and maximum
	Incomplete      Code = "incomplete"       // an object property without all its fields
	TooOld          Code = "too_old"          // measured before the accepted time range
	TooNew          Code = "too_new"          // measured after the accepted time range
	TooLarge        Code = "too_large"        // over a stated limit of size or count

	Unauthenticated Code = "unauthenticated" // who asks is not proved
	Forbidden       Code = "forbidden"       // who asks may not; names the rule
	NotFound        Code = "not_found"       // absent, or hidden from who asks
	Conflict        Code = "conflict"        // the state has changed meanwhile
	Unavailable     Code = "unavailable"     // fails for the moment; try again
	NoSpace         Code = "no_space"        // the store has no room; refused until it has

	Fenced   Code = "fenced"   // a newer incarnation of the sender exists
	Forked   Code = "forked"   // two frames with one number, or a broken chain
	Tampered Code = "tampered" // a signature, hash or commitment does not hold
)

// Error is a failure that another package or a person acts on: Reason says
// what is wrong, Fix says what to do about it (may be empty).
type Error struct {
	Code   Code
	Reason string
	Fix    string
}

func (e *Error) Error() string {
	if e.Fix == "" {
		return e.Reason
	}
	return e.Reason + "; " + e.Fix
}

// Errorf makes an Error with a formatted reason.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Reason: fmt.Sprintf(format, args...)}
}

// WithFix returns a copy of e that says what to do.
func (e *Error) WithFix(format string, args ...any) *Error {
	return &Error{e.Code, e.Reason, fmt.Sprintf(format, args...)}
}

// CodeOf returns the code of the first Error in err's chain, and "" without one.
func CodeOf(err error) Code {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return ""
}

// Unreached says in plain words why something couldn't be reached. What a dialler or TLS
// says of it, which is why, is for logs; what isn't known here is repeated.
func Unreached(why string) string {
	for _, known := range [...][2]string{
		{"remote error: tls: ", "it doesn't take this side's key"},
		{"tls: failed to verify certificate", "its certificate isn't the one that is trusted"},
		{"connection refused", "nothing listens there (connection refused)"},
		{"no such host", "there is no host of that name"},
		{"network is unreachable", "there is no way there (network is unreachable)"},
		{"no route to host", "there is no way there (no route to host)"},
		{"connection reset", "the connection was broken off"},
		{"broken pipe", "the connection was broken off"},
		{"i/o timeout", "no answer came in time"},
		{"deadline exceeded", "no answer came in time"},
		{"timeout awaiting", "no answer came in time"},
	} {
		if strings.Contains(why, known[0]) {
			return known[1]
		}
	}
	if strings.HasSuffix(why, ": EOF") || why == "EOF" {
		return "the connection was closed"
	}
	return why
}

// Shorten cuts text to at most so many bytes, and to what is UTF-8: a signed message
// holds no other.
func Shorten(text string, most int) string {
	return strings.ToValidUTF8(text[:min(len(text), most)], "")
}
