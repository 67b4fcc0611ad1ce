package api

import (
	"net/http"
	"strconv"
	"strings"

	"carnet"
)

// negotiate picks what to serve under an Accept header (RFC 9110 §12.5.1): the
// offer with the greatest weight, the earlier one among equals. An absent header
// accepts anything. It reports false when nothing that is offered is accepted.
func negotiate(accept string, offers []string) (string, bool) {
	if strings.TrimSpace(accept) == "" {
		return offers[0], true
	}
	best, weight := "", 0.0
	for _, offer := range offers {
		if q := weightOf(accept, offer); q > weight {
			best, weight = offer, q
		}
	}
	return best, weight > 0
}

// weightOf is the weight of the most specific range that covers the offer.
func weightOf(accept, offer string) (weight float64) {
	kind, _, _ := strings.Cut(offer, "/")
	precision := 0
	for member := range strings.SplitSeq(accept, ",") {
		name, parameters, _ := strings.Cut(member, ";")
		p := 0
		switch name = strings.ToLower(strings.TrimSpace(name)); name {
		case offer:
			p = 3
		case kind + "/*":
			p = 2
		case "*/*":
			p = 1
		}
		if p > precision {
			precision, weight = p, qOf(parameters)
		}
	}
	return weight
}

// qOf reads the weight among a range's parameters. A weight that isn't one
// counts as 0: unknown means refuse.
func qOf(parameters string) float64 {
	for parameter := range strings.SplitSeq(parameters, ";") {
		name, value, _ := strings.Cut(parameter, "=")
		if strings.EqualFold(strings.TrimSpace(name), "q") {
			q, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil || !(q >= 0 && q <= 1) {
				return 0
			}
			return q
		}
	}
	return 1
}

func notAcceptable(offers []string) error {
	e := carnet.Errorf(carnet.Malformed, "nothing that the call accepts is served here").
		WithFix("accept one of %s", strings.Join(offers, ", "))
	return problem(http.StatusNotAcceptable, e)
}
