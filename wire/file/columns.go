package file

import (
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"carnet"
)

// Columns says which columns of a CSV file are taken, by their headers: one is
// the time, the others are properties.
type Columns map[string]Column

// Column says what the cells of one column are.
type Column struct {
	Property string // empty for the time
	Unit     string
	kind     carnet.Kind
	form     timeForm // only for the time
}

// timeForm is how times are written.
type timeForm string

// The forms of times. The numbers may have decimals; "datetime" has no zone and
// is read as UTC.
const (
	inSeconds      timeForm = "s"
	inMilliseconds timeForm = "ms"
	asRFC3339      timeForm = "rfc3339"
	asDateTime     timeForm = "datetime" // 2006-01-02 15:04:05
)

// parse returns text as nanoseconds since the Unix epoch.
func (f timeForm) parse(text string) (int64, bool) {
	switch f {
	case inSeconds:
		return decimal(text, 9)
	case inMilliseconds:
		return decimal(text, 6)
	}
	layout := time.RFC3339
	if f == asDateTime {
		layout = time.DateTime
	}
	t, err := time.Parse(layout, text)
	if err != nil || t.Year() < 1678 || t.Year() > 2261 { // the years that UnixNano can hold
		return 0, false
	}
	return t.UnixNano(), true
}

// decimal reads a decimal number times 10^places without the loss that float64
// would bring: 1554735424.1 is not a float64.
func decimal(text string, places int) (int64, bool) {
	whole, part, dotted := strings.Cut(text, ".")
	digits := strings.TrimPrefix(whole, "-")
	if digits == "" || strings.Trim(digits+part, "0123456789") != "" || dotted && part == "" {
		return 0, false
	}
	if len(part) > places {
		part = part[:places]
	}
	n, err := strconv.ParseInt(whole+part+strings.Repeat("0", places-len(part)), 10, 64)
	return n, err == nil && n != math.MinInt64
}

// property is what a column may be called: a property, or an object and a field
// (RFC 8428 §4.5.1).
var property = regexp.MustCompile(`^[A-Za-z0-9][-A-Za-z0-9:._]*(/[A-Za-z0-9][-A-Za-z0-9:._]*)?$`)

// one is one part of a specification, after the header.
var one = regexp.MustCompile(`^([^][()]+)(?:\[([^][()]*)\]|\(([a-z0-9]+)\))?$`)

const columnsFix = "write header=time(s|ms|rfc3339|datetime) once, and header=property, header=property[unit], header=property(bool) or header=property(text), separated by commas"

// ParseColumns reads the form that people write:
//
//	HEADER=time(FORM)       the time; FORM is s or ms since 1970 (decimals allowed),
//	                        rfc3339, or datetime: "2006-01-02 15:04:05" in UTC
//	HEADER=PROPERTY         a number, with no unit said
//	HEADER=PROPERTY[UNIT]   a number in that unit, as in heart_rate[beat/min]
//	HEADER=PROPERTY(bool)   1, 0, true, false, yes, no, on or off
//	HEADER=PROPERTY(text)   text
//
// separated by commas. A header may hold '=' but no comma. Columns that are not
// named are left out.
//
//	unix_time=time(s),heart_rate_bpm=heart_rate[beat/min],lat_deg=position/lat[lat],lon_deg=position/lon[lon]
func ParseColumns(spec string) (Columns, error) {
	cols := make(Columns)
	var times int
	var properties []string
	for _, part := range strings.Split(spec, ",") {
		i := strings.LastIndexByte(part, '=')
		if i < 0 {
			return nil, carnet.Errorf(carnet.Malformed, "column %s has no '='", short(part)).WithFix(columnsFix)
		}
		header := strings.TrimSpace(part[:i])
		col, err := parseColumn(strings.TrimSpace(part[i+1:]))
		if err != nil {
			return nil, err
		}
		if _, twice := cols[header]; twice || header == "" {
			return nil, carnet.Errorf(carnet.Malformed, "column %s is empty or given twice", short(header)).WithFix(columnsFix)
		}
		if col.form != "" {
			times++
		} else if slices.Contains(properties, col.Property) {
			return nil, carnet.Errorf(carnet.Malformed, "two columns are %s", col.Property).WithFix("name each property once")
		}
		properties = append(properties, col.Property)
		cols[header] = col
	}
	if times != 1 || len(cols) < 2 {
		return nil, carnet.Errorf(carnet.Malformed, "the columns name %d times and %d properties, want one time and at least one property", times, len(cols)-times).WithFix(columnsFix)
	}
	return cols, nil
}

func parseColumn(text string) (Column, error) {
	m := one.FindStringSubmatch(text)
	if m == nil || !property.MatchString(m[1]) {
		return Column{}, carnet.Errorf(carnet.Malformed, "%s is no property", short(text)).WithFix(columnsFix)
	}
	name, unit, form := m[1], m[2], m[3]
	if name == "time" {
		switch f := timeForm(form); f {
		case inSeconds, inMilliseconds, asRFC3339, asDateTime:
			return Column{form: f}, nil
		}
		return Column{}, carnet.Errorf(carnet.Malformed, "%s is no form of time", short(text)).WithFix(columnsFix)
	}
	switch form {
	case "":
		return Column{Property: name, Unit: unit, kind: carnet.Number}, nil
	case "bool":
		return Column{Property: name, kind: carnet.Boolean}, nil
	case "text":
		return Column{Property: name, kind: carnet.Text}, nil
	}
	return Column{}, carnet.Errorf(carnet.Malformed, "%s has an unknown type (%s)", short(text), form).WithFix(columnsFix)
}

// The files that DefaultColumns knows.
const (
	watchColumns = "unix_time=time(s),heart_rate_bpm=heart_rate[beat/min],speed_m_s=speed[m/s],altitude_m=altitude[m],cadence_rpm=cadence[1/min],lat_deg=position/lat[lat],lon_deg=position/lon[lon],temperature_c=temperature[Cel]"
	roomColumns  = "date=time(datetime),Temperature=temperature[Cel],Humidity=humidity[%RH],Light=light[lx],CO2=co2[ppm],Occupancy=occupancy(bool)"
	// A headset that doesn't follow the eyes tells of a gaze that is the head's.
	headsetColumns = "time=time(s),HeadPosX=head/x[m],HeadPosY=head/y[m],HeadPosZ=head/z[m],HeadOrientationW=gaze/w,HeadOrientationX=gaze/x,HeadOrientationY=gaze/y,HeadOrientationZ=gaze/z"
)

// DefaultColumns returns those of the columns that are known by their headers:
// activities of a watch (unix_time, heart_rate_bpm, …), the UCI occupancy data
// (date, Temperature, …) and a headset's movements as QuestSet has them (time, HeadPosX,
// …).
func DefaultColumns(header []string) (Columns, bool) {
	for _, known := range []struct {
		spec  string
		whole bool // one column says nothing without the others
	}{{watchColumns, false}, {roomColumns, false}, {headsetColumns, true}} {
		cols, err := ParseColumns(known.spec)
		if err != nil {
			return nil, false
		}
		all := len(cols)
		timed := false
		maps.DeleteFunc(cols, func(name string, _ Column) bool {
			return !slices.ContainsFunc(header, func(h string) bool { return h == name })
		})
		for _, c := range cols {
			timed = timed || c.form != ""
		}
		if timed && len(cols) > 1 && (len(cols) == all || !known.whole) {
			return cols, true
		}
	}
	return nil, false
}
