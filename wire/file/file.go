// Package file reads recordings: files in which a device or a logger has kept
// measurements, in Garmin's FIT and in CSV; and makes one for a demonstration.
//
// It parses and normalises (names, units, times, order) and calls nothing: what
// it returns is checked against a thing's description by who takes it in. A file
// that is damaged is refused as a whole, with the place and what to do; what a
// sound file holds beyond measurements is left out and said in Skipped.
//
// It has no state. It must not know things, policies, stores or the demo.
package file

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"unicode/utf8"

	"carnet"
)

// The limits of a recording.
const (
	MaxSize         = 64 << 20 // bytes of a file
	MaxMeasurements = 4 << 20
)

// Recording is what a file holds, in time order.
type Recording struct {
	Name         string
	Measurements []carnet.Measurement
	Skipped      []Skip // what was left out
	Start, End   int64  // the first and last time, nanoseconds since the Unix epoch; 0 when empty
	Given        int    // by which of the columns that were given it was read, from 1; 0: by none
}

// Skip is a kind of thing in a file that was left out, and why.
type Skip struct {
	Why   string
	First int // the place where it was first met, from 1
	Count int
	Place Place // what First counts
}

// Place is what a file is counted in.
type Place string

// Lines are CSV's, messages FIT's.
const (
	Line    Place = "line"
	Message Place = "message"
)

func (s Skip) String() string {
	return fmt.Sprintf("%d × %s, first at %s %d", s.Count, s.Why, s.Place, s.First)
}

// Open reads the recording at path, which is FIT or CSV by its content; ReadCSV says
// what columns do.
func Open(path string, cols ...Columns) (*Recording, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open recording: %w", err)
	}
	defer f.Close()
	r := bufio.NewReader(f)
	head, err := r.Peek(512)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("read recording: %w", err)
	}
	name := filepath.Base(path)
	switch {
	case isFIT(head):
		return ReadFIT(r, name)
	case looksLikeText(head):
		return ReadCSV(r, name, cols...)
	case len(head) == 0:
		return nil, carnet.Errorf(carnet.Malformed, "%s is empty", name).WithFix("copy it from the device again")
	}
	return nil, carnet.Errorf(carnet.Malformed, "%s is neither FIT nor CSV text", name).
		WithFix("give a recording from a FIT device, or a CSV file in UTF-8")
}

// isFIT looks at the header: its size, and ".FIT" at byte 8.
func isFIT(head []byte) bool {
	return len(head) >= 12 && (head[0] == 12 || head[0] == 14) && string(head[8:12]) == ".FIT"
}

func looksLikeText(head []byte) bool {
	if i := bytes.LastIndexByte(head, '\n'); i >= 0 {
		head = head[:i] // the last line may be cut within a character
	}
	return len(head) > 0 && bytes.IndexByte(head, 0) < 0 && utf8.Valid(head)
}

// recorder collects a recording within the limits.
type recorder struct {
	rec   *Recording
	place Place
	skips map[string]int // reason → index in rec.Skipped
}

func newRecorder(name string, place Place) *recorder {
	return &recorder{rec: &Recording{Name: name}, place: place, skips: make(map[string]int)}
}

// maxSkips bounds the kinds of reasons; a file can't grow the list without end.
const maxSkips = 256

func (r *recorder) skip(at int, why string) {
	if _, ok := r.skips[why]; !ok && len(r.rec.Skipped) >= maxSkips-1 {
		why = "of more kinds than are told apart"
	}
	i, ok := r.skips[why]
	if !ok {
		i = len(r.rec.Skipped)
		r.skips[why] = i
		r.rec.Skipped = append(r.rec.Skipped, Skip{Why: why, First: at, Place: r.place})
	}
	r.rec.Skipped[i].Count++
}

func (r *recorder) add(m carnet.Measurement) error {
	if len(r.rec.Measurements) == MaxMeasurements {
		return carnet.Errorf(carnet.TooLarge, "%s holds more than %d measurements", r.rec.Name, MaxMeasurements).
			WithFix("split it into parts")
	}
	r.rec.Measurements = append(r.rec.Measurements, m)
	return nil
}

// finish puts the measurements in time order; those of one time keep the file's.
func (r *recorder) finish() *Recording {
	ms := r.rec.Measurements
	byTime := func(a, b carnet.Measurement) int { return cmp.Compare(a.Time, b.Time) }
	if !slices.IsSortedFunc(ms, byTime) {
		slices.SortStableFunc(ms, byTime)
	}
	if len(ms) > 0 {
		r.rec.Start, r.rec.End = ms[0].Time, ms[len(ms)-1].Time
	}
	return r.rec
}

// limited reads at most MaxSize bytes, and nothing more once it is stopped.
type limited struct {
	r    io.Reader
	name string
	read int64
	stop error

	rows bool  // it is read by rows, each of at most maxRow bytes
	row  int64 // where the one at hand begins, about
}

// maxRow bounds a row of CSV: each cell of it takes some forty times its bytes.
const maxRow = 1 << 20

func (l *limited) Read(p []byte) (int, error) {
	if l.stop != nil {
		return 0, l.stop
	}
	n, err := l.r.Read(p)
	if l.read += int64(n); l.read > MaxSize {
		l.stop = carnet.Errorf(carnet.TooLarge, "%s has more than %d MiB", l.name, MaxSize>>20).WithFix("split it into parts")
		return 0, l.stop
	}
	if l.rows && l.read-l.row > maxRow {
		l.stop = carnet.Errorf(carnet.TooLarge, "%s has a row of more than %d MiB, at byte %d", l.name, maxRow>>20, l.row).WithFix("close quotes that are open, and end rows")
		return 0, l.stop
	}
	return n, err
}
