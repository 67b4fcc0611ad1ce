package file

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"carnet"
)

func columns(t testing.TB, spec string) Columns {
	t.Helper()
	cols, err := ParseColumns(spec)
	if err != nil {
		t.Fatal(err)
	}
	return cols
}

func TestParseColumns(t *testing.T) {
	got := columns(t, "when=time(rfc3339), pulse = heart_rate[beat/min],a=b=speed,open=door(bool),note=remark(text),t=x/temp[%RH]")
	want := Columns{
		"when":  {form: asRFC3339},
		"pulse": {Property: "heart_rate", Unit: "beat/min", kind: carnet.Number},
		"a=b":   {Property: "speed", kind: carnet.Number},
		"open":  {Property: "door", kind: carnet.Boolean},
		"note":  {Property: "remark", kind: carnet.Text},
		"t":     {Property: "x/temp", Unit: "%RH", kind: carnet.Number},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v", got)
	}
	for _, spec := range []string{
		"", "a", "a=time(s)", "a=heart_rate", "a=time,b=c", "a=time(min),b=c", "a=time(s),b=time(s),c=d", "a=time(s),a=d",
		"a=time(s),=d", "a=time(s),b=", "a=time(s),b=c[m", "a=time(s),b=c(int)", "a=time(s),b=c d", "a=time(s),b=c/d/e",
		"a=time(s),b=/c", "a=time(s),b=c,d=c", "a=time(s),b=c[m](bool)",
	} {
		if cols, err := ParseColumns(spec); carnet.CodeOf(err) != carnet.Malformed || !strings.Contains(err.Error(), "header=time(") && !strings.Contains(err.Error(), "once") {
			t.Errorf("%q: %v, %v", spec, cols, err)
		}
	}
}

func TestTimeForms(t *testing.T) {
	for _, test := range []struct {
		form timeForm
		text string
		want int64
		ok   bool
	}{
		{inSeconds, "1554735424", 1554735424e9, true},
		{inSeconds, "1554735424.123456789", 1554735424123456789, true},
		{inSeconds, "-0.5", -5e8, true},
		{inSeconds, "1554735424.1234567891", 1554735424123456789, true},
		{inSeconds, "1.5e9", 0, false},
		{inSeconds, "1.", 0, false},
		{inSeconds, "-", 0, false},
		{inSeconds, "", 0, false},
		{inSeconds, "1-2", 0, false},
		{inSeconds, "99999999999", 0, false}, // beyond the year 2262
		{inMilliseconds, "1554735424123.5", 1554735424123500000, true},
		{asRFC3339, "2015-02-04T18:51:00.25+01:00", 1423072260250e6, true},
		{asRFC3339, "2015-02-04 17:51:00", 0, false},
		{asRFC3339, "3000-01-01T00:00:00Z", 0, false},
		{asDateTime, "2015-02-04 17:51:00", 1423072260e9, true},
		{asDateTime, "2015-02-30 17:51:00", 0, false},
	} {
		if got, ok := test.form.parse(test.text); got != test.want && test.ok || ok != test.ok {
			t.Errorf("%s %q: %d, %v, want %d, %v", test.form, test.text, got, ok, test.want, test.ok)
		}
	}
}

func TestReadCSV(t *testing.T) {
	const spec = "t=time(s),v=speed[m/s],o=door(bool),n=note(text)"
	speed := func(at int64, v float64) carnet.Measurement {
		return carnet.Measurement{Name: "speed", Unit: "m/s", Time: at * 1e9, Value: carnet.Float(v)}
	}
	of := func(name string, at int64, v carnet.Value) carnet.Measurement {
		return carnet.Measurement{Name: name, Time: at * 1e9, Value: v}
	}
	for _, test := range []struct {
		name, text string
		want       []carnet.Measurement
		skipped    []Skip
	}{
		{"all kinds", "t,v,o,n\n1,2.5,yes,\"a, \"\"b\"\"\"\n", []carnet.Measurement{speed(1, 2.5), of("door", 1, carnet.Bool(true)), of("note", 1, carnet.String(`a, "b"`))}, nil},
		{"absent cells", "t,v,o,n\n1,,0,\n", []carnet.Measurement{of("door", 1, carnet.Bool(false))}, nil},
		{"an unnamed index", "t,v,o,n\n\"1\",7,1,,\n\"2\",8,2,,\n", []carnet.Measurement{speed(7, 1), speed(8, 2)}, nil},
		{"a byte order mark and CRLF", "\xef\xbb\xbft,v,o,n\r\n1,2,,\r\n", []carnet.Measurement{speed(1, 2)}, nil},
		{"rows out of order", "t,v,o,n\n2,2,,\n1,1,,\n1,3,,\n", []carnet.Measurement{speed(1, 1), speed(1, 3), speed(2, 2)}, nil},
		{"other columns", "t,x,v,o,n\n1,9,2,,\n", []carnet.Measurement{speed(1, 2)}, []Skip{{`column "x" is not among the columns to take`, 1, 1, Line}}},
		{"bad cells", "t,v,o,n\n1,fast,,\n2,NaN,maybe,\nsoon,3,,\n4,5,,\n", []carnet.Measurement{speed(4, 5)},
			[]Skip{{`column "v" is not a number`, 2, 2, Line}, {`column "o" is not a boolean`, 3, 1, Line}, {"time can't be read in the form s", 4, 1, Line}}},
	} {
		rec, err := ReadCSV(strings.NewReader(test.text), "x.csv", columns(t, spec))
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
		} else if !slices.Equal(rec.Measurements, test.want) || !slices.Equal(rec.Skipped, test.skipped) {
			t.Errorf("%s: got %v, skipped %v", test.name, rec.Measurements, rec.Skipped)
		}
	}
}

// Of several columns a file takes the first whose headers it has, and all of them.
func TestReadCSVBySeveralColumns(t *testing.T) {
	all := []Columns{columns(t, "when=time(s),v=speed[m/s]"), columns(t, "t=time(s),v=speed[m/s]"), columns(t, "t=time(s),v=distance[m]")}
	for _, test := range []struct {
		text  string
		given int
		name  string
	}{{"t,v\n1,2\n", 2, "speed"}, {" when ,v\n1,2\n", 1, "speed"}, {"v,when,t\n1,2,3\n", 1, "speed"}} {
		rec, err := ReadCSV(strings.NewReader(test.text), "x.csv", all...)
		if err != nil || rec.Given != test.given || len(rec.Measurements) != 1 || rec.Measurements[0].Name != test.name {
			t.Errorf("%q: %+v, %v", test.text, rec, err)
		}
	}
	// A known header isn't known any more when columns are given.
	_, err := ReadCSV(strings.NewReader("unix_time,heart_rate_bpm\n1,60\n"), "x.csv", all...)
	if carnet.CodeOf(err) != carnet.Malformed || !strings.Contains(err.Error(), `"unix_time", "heart_rate_bpm"`) {
		t.Errorf("headers that none has: %v", err)
	}
}

func TestReadCSVRefuses(t *testing.T) {
	cols := columns(t, "t=time(s),v=speed")
	for _, test := range []struct {
		name, text string
		cols       Columns
		reason     string
	}{
		{"nothing", "", cols, "empty"},
		{"unknown headers", "a,b\n1,2\n", nil, `"a", "b"`},
		{"a column that is not there", "t,w\n1,2\n", cols, `no column "v"`},
		{"a column that is there twice", "t,v,v\n1,2,3\n", cols, "two columns"},
		{"columns without a time", "v\n1\n", Columns{"v": {Property: "speed", kind: carnet.Number}}, "no time"},
		{"a row that is cut off", "t,v\n1,2\n3\n", cols, "line 3 has 1 cells, want 2"},
		{"a row that is too long", "t,v\n1,2,3,4\n", cols, "line 2 has 4 cells"},
		{"a quote that does not close", "t,v\n1,\"2\n", cols, "line 2"},
		{"no rows", "t,v\n", cols, "no rows with values"},
		{"only bad cells", "t,v\n1,x\n2,y\n", cols, "no measurement"},
	} {
		var cols []Columns
		if test.cols != nil {
			cols = append(cols, test.cols)
		}
		rec, err := ReadCSV(strings.NewReader(test.text), "x.csv", cols...)
		if rec != nil || carnet.CodeOf(err) != carnet.Malformed || !strings.Contains(err.Error(), test.reason) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	if _, err := ReadCSV(endless{}, "x.csv", cols); carnet.CodeOf(err) != carnet.TooLarge {
		t.Errorf("an endless file: %v", err)
	}
}

func TestOpenGoesByContent(t *testing.T) {
	dir := t.TempDir()
	put := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	fit := writeFIT(t, Generate(1, time.Minute, runEnd))
	if rec, err := Open(put("run.csv", fit), nil); err != nil || len(rec.Measurements) != 60*9 || rec.Name != "run.csv" {
		t.Errorf("FIT called .csv: %v", err)
	}
	text := []byte("t,v\n1,2\n" + strings.Repeat("3,4\n", 200) + "5,6\n")
	if rec, err := Open(put("log.fit", text), columns(t, "t=time(s),v=speed")); err != nil || len(rec.Measurements) != 202 {
		t.Errorf("CSV called .fit: %v", err)
	}
	cut := []byte("t,v,n\n1,22,ok\n1,22," + strings.Repeat("é", 400) + "\n") // what is looked at ends within a character
	if rec, err := Open(put("cut.csv", cut), columns(t, "t=time(s),n=note(text)")); err != nil || len(rec.Measurements) != 2 {
		t.Errorf("CSV with long characters: %v", err)
	}
	for name, data := range map[string][]byte{"empty": nil, "zip": []byte("PK\x03\x04\x00\x00"), "latin": []byte("t,v\nm\xe9tres,2\n")} {
		if _, err := Open(put(name, data), nil); carnet.CodeOf(err) != carnet.Malformed {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Open(filepath.Join(dir, "absent"), nil); err == nil || carnet.CodeOf(err) != "" {
		t.Errorf("an absent file: %v", err)
	}
}

func FuzzReadCSV(f *testing.F) {
	f.Add("unix_time,heart_rate_bpm\n1,60\n", "unix_time=time(s),heart_rate_bpm=heart_rate[beat/min]")
	f.Add("t,v,w\n2015-02-04 17:51:00,1,yes\n", "t=time(datetime),v=a,w=b(bool)")
	f.Add("t,v\n1,2015-02-04T17:51:00Z,x\n", "t=time(rfc3339),v=a(text)")
	f.Fuzz(func(t *testing.T, text, spec string) {
		cols, err := ParseColumns(spec)
		if err != nil {
			if carnet.CodeOf(err) != carnet.Malformed {
				t.Fatal(err)
			}
			cols = columns(t, "t=time(s),v=speed")
		}
		rec, err := ReadCSV(strings.NewReader(text), "fuzz", cols)
		if err != nil {
			if carnet.CodeOf(err) == "" {
				t.Fatalf("an error without a code: %v", err)
			}
			return
		}
		for i, m := range rec.Measurements {
			if i > 0 && m.Time < rec.Measurements[i-1].Time || m.Time < rec.Start || m.Time > rec.End {
				t.Fatal("not in time order")
			}
		}
	})
}

func BenchmarkReadCSV(b *testing.B) {
	var text bytes.Buffer
	text.WriteString("unix_time,heart_rate_bpm,speed_m_s,altitude_m,distance_m,cadence_rpm,lat_deg,lon_deg,temperature_c\n")
	for range 3600 {
		text.WriteString("1554735424,98,1.325,35.6,0.0,80,55.477931,8.482856,21\n")
	}
	b.SetBytes(int64(text.Len()))
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		rec, err := ReadCSV(bytes.NewReader(text.Bytes()), "bench")
		if err != nil {
			b.Fatal(err)
		}
		n += len(rec.Measurements)
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "measurements/s")
}

// repeated is a file without an end, of one text over and over.
type repeated struct {
	text string
	read int64
}

func (e *repeated) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = e.text[(e.read+int64(i))%int64(len(e.text))]
	}
	e.read += int64(len(p))
	return len(p), nil
}

// A row is read up to a bound, whatever it is made of: its cells take many times its
// bytes. Rows of usual length make a file as long as it likes to be.
func TestARowIsBounded(t *testing.T) {
	cols := columns(t, "time=time(s),heart_rate=heart_rate[beat/min]")
	for name, row := range map[string]string{"commas": ",", "cells": "1,", "an open quote": "\"x", "lines in quotes": "\"\n\","} {
		for _, header := range []string{"", "time,heart_rate\n"} {
			from := &repeated{text: row}
			_, err := ReadCSV(io.MultiReader(strings.NewReader(header), from), "watch.csv", cols)
			if carnet.CodeOf(err) != carnet.TooLarge || !strings.Contains(err.Error(), "a row of more than 1 MiB") || from.read > 2*maxRow {
				t.Errorf("%s behind %q: %v, after %d bytes", name, header, err, from.read)
			}
		}
	}
	from := &repeated{text: "1600000000,60\n"}
	_, err := ReadCSV(io.MultiReader(strings.NewReader("time,heart_rate\n"), io.LimitReader(from, 3*maxRow)), "watch.csv", cols)
	if err != nil {
		t.Errorf("rows of usual length: %v", err)
	}
}

// Of the columns that are known by their headers some may lack, where the others say
// something without them.
func TestKnownHeadersMayLack(t *testing.T) {
	for _, c := range []struct {
		header string
		cells  int
	}{
		{"unix_time,heart_rate_bpm,speed_m_s", 2}, {"unix_time,heart_rate_bpm,mood", 1}, {"date,CO2", 1},
		{"unix_time,mood", 0}, {"heart_rate_bpm,speed_m_s", 0}, {"time,HeadPosX,HeadPosY", 0},
	} {
		cols, ok := DefaultColumns(strings.Split(c.header, ","))
		if ok != (c.cells > 0) || ok && len(cols) != c.cells+1 {
			t.Errorf("%s: %v, %t", c.header, cols, ok)
		}
	}
}
