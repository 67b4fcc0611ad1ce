package td

import "strings"

// Unit returns the SenML unit (RFC 8428 §12.1, RFC 8798) that means the same as
// the given code of UCUM, QUDT or OM or as a customary spelling, and the given
// text itself when none is known. Nothing is converted: only names of one and
// the same unit are brought together.
//
//	SenML     also accepted
//	Cel       °C  degC  DEG_C  degree_Celsius  celsius
//	K         kelvin
//	beat/min  bpm  {beats}/min  beats/min  BEAT-PER-MIN  {beat}/min
//	1/min     rpm  /min  {rev}/min  REV-PER-MIN  PER-MIN  {steps}/min
//	count     {steps}  steps  {count}  NUM
//	m/s       M-PER-SEC  metre_per_second-Time  m.s-1
//	m         metre  meter  M
//	s         sec  second  SEC
//	%         PERCENT  percent  pct
//	%RH       %{RH}  PERCENT_RH
//	lx        lux  LUX
//	ppm       [ppm]  PPM  partsPerMillion
//	lat, lon  deg  DEG  degree  °   (only where the description says lat or lon)
//	(none)    1  {score}  UNITLESS  one
func Unit(given string) string {
	code := given
	for _, prefix := range []string{"unit:", "om:", "http://qudt.org/vocab/unit/", "http://www.ontology-of-units-of-measure.org/resource/om-2/"} {
		if rest, ok := strings.CutPrefix(given, prefix); ok {
			code = rest
		}
	}
	switch code {
	case "°C", "degC", "DEG_C", "degree_Celsius", "celsius":
		return "Cel"
	case "kelvin":
		return "K"
	case "bpm", "{beats}/min", "{beat}/min", "beats/min", "BEAT-PER-MIN":
		return "beat/min"
	case "rpm", "/min", "{rev}/min", "REV-PER-MIN", "PER-MIN", "{steps}/min":
		return "1/min"
	case "{steps}", "steps", "{count}", "NUM":
		return "count"
	case "M-PER-SEC", "metre_per_second-Time", "m.s-1":
		return "m/s"
	case "metre", "meter", "M":
		return "m"
	case "sec", "second", "SEC":
		return "s"
	case "PERCENT", "percent", "pct":
		return "%"
	case "%{RH}", "PERCENT_RH":
		return "%RH"
	case "lux", "LUX":
		return "lx"
	case "[ppm]", "PPM", "partsPerMillion":
		return "ppm"
	case "1", "{score}", "UNITLESS", "one":
		return ""
	}
	return given
}

// means reports whether a record's unit is the description's under another name.
func means(given, unit string) bool {
	if unit == "lat" || unit == "lon" {
		switch given {
		case "deg", "DEG", "degree", "°":
			return true
		}
	}
	return Unit(given) == unit
}
