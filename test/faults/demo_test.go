package faults_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"carnet/demo"
	"carnet/evidence"
	"carnet/wire/file"
)

// runDemo plays a recording with the program and returns what it counted.
func runDemo(t *testing.T, recording, dir string, more ...string) (r demo.Report) {
	t.Helper()
	args := append([]string{"demo", "--input", recording, "--times", "keep", "--speed", "max", "--json",
		"--data", filepath.Join(dir, "data"), "--evidence", filepath.Join(dir, "evidence")}, more...)
	out, errs, code := carnetCommand(t, args...)
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != 0 {
		t.Errorf("carnet %s ended with %d, %v:\n%s%s", strings.Join(args, " "), code, err, out, errs)
	}
	return r
}

// TestDemo plays one recording in one process and in a process for each party,
// and compares what was counted. Then it searches what the parties have, and
// spoils the evidence.
func TestDemo(t *testing.T) {
	t.Parallel()
	r := random(t)
	recording := filepath.Join(t.TempDir(), "run.fit")
	f, err := os.Create(recording)
	if err != nil {
		t.Fatal(err)
	}
	if err := file.WriteFIT(f, file.Generate(r.Uint64(), 20*time.Minute, time.Now().Add(-time.Hour).Truncate(time.Second))); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	one, four := t.TempDir(), t.TempDir()
	var in1, in4 demo.Report
	var both sync.WaitGroup
	both.Go(func() { in1 = runDemo(t, recording, one) })
	both.Go(func() { in4 = runDemo(t, recording, four, "--processes") })
	both.Wait()
	if t.Failed() {
		return
	}
	t.Logf("%d measurements; as processes: %+v", in4.Input.Measurements, in4.Worlds)
	if a, b := comparable(t, in1), comparable(t, in4); !reflect.DeepEqual(a, b) {
		t.Errorf("in one process %+v\nin several      %+v", a, b)
	}
	t.Run("worlds share nothing", func(t *testing.T) { sharesNothing(t, filepath.Join(four, "data"), filepath.Join(one, "data")) })
	t.Run("evidence", func(t *testing.T) { spoil(t, r, filepath.Join(four, "evidence")) })
}

// recorded finds a recording of others, which is no part of the repository, and copies
// its first lines, or all of it, so that a demo plays for seconds.
func recorded(t *testing.T, path string, lines int) string {
	t.Helper()
	dir := os.Getenv("CARNET_DATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "data")
	}
	data, err := os.ReadFile(filepath.Join(dir, path))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("shared data not present")
	}
	if err != nil {
		t.Fatal(err)
	}
	if lines > 0 {
		data = bytes.Join(bytes.SplitAfterN(data, []byte("\n"), lines+1)[:lines], nil)
	}
	short := filepath.Join(t.TempDir(), filepath.Base(path))
	write(t, short, data)
	return short
}

// TestDemoOfRecordings plays what watches and a room recorded, with the program: each
// world gets of it what its view admits.
func TestDemoOfRecordings(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		path     string
		lines    int // of a CSV that are played; 0: all of the file
		columns  string
		messages int64
		counts   int // measurements
		worlds   map[string]string
	}{
		"a watch's FIT": {path: "garmin/datasets/activities/2019/3537714464.fit", messages: 1391, counts: 7910, worlds: map[string]string{
			"arena watch": "heart_rate speed", "clinic watch": "heart_rate position/lat position/lon", "citadel watch": "",
		}},
		"the same as CSV, by columns": {
			path: "garmin_csv/activity_3537714464.csv", lines: 301, columns: "unix_time=time(s),heart_rate_bpm=heart_rate[beat/min],speed_m_s=speed[m/s]", messages: 300, counts: 600,
			worlds: map[string]string{"arena watch": "heart_rate speed", "clinic watch": "heart_rate", "citadel watch": ""},
		},
		"a room, by columns": {
			path: "occupancy/datatraining.txt", lines: 201, columns: "date=time(datetime),Temperature=temperature[Cel],Light=light[lx],CO2=co2[ppm]", messages: 200, counts: 600,
			worlds: map[string]string{"arena watch": "", "clinic watch": "", "citadel watch": "", "arena room": "light temperature", "clinic room": "co2 temperature"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := []string{"demo", "--input", recorded(t, row.path, row.lines), "--speed", "max", "--json"}
			if row.columns != "" {
				args = append(args, "--columns", row.columns)
			}
			out, errs, code := carnetCommand(t, args...)
			var r demo.Report
			if err := json.Unmarshal([]byte(out), &r); err != nil || code != 0 || !r.Good() {
				t.Fatalf("carnet %s ended with %d, %v:\n%s%s", strings.Join(args, " "), code, err, out, errs)
			}
			if r.Device.Acknowledged != row.messages || r.Device.Measurements != int64(row.counts) || r.Input.Measurements != row.counts || r.Device.Refused != 0 {
				t.Errorf("of %d measurements the agent has %+v", r.Input.Measurements, r.Device)
			}
			worlds := make(map[string]string)
			for _, w := range r.Worlds {
				worlds[string(w.ID)+" "+w.Thing] = strings.Join(w.Properties, " ")
			}
			if !maps.Equal(worlds, row.worlds) {
				t.Errorf("the worlds hold %v, want %v", worlds, row.worlds)
			}
		})
	}
}

// comparable leaves out what depends on when things happened. Of the share of a
// demo all that arena holds since its beginning is given.
func comparable(t *testing.T, r demo.Report) any {
	t.Helper()
	if len(r.Shares) != 1 || r.Shares[0].Given == 0 || r.Shares[0].Copied == 0 || r.Shares[0].Derived == 0 {
		t.Fatalf("the shares are %+v", r.Shares)
	}
	type world struct {
		properties   string
		measurements int
		withheld     string
	}
	worlds := make(map[string]world)
	for _, w := range r.Worlds {
		worlds[string(w.ID)] = world{strings.Join(w.Properties, " "), w.Measurements, fmt.Sprint(w.Withheld)}
	}
	s := r.Shares[0]
	return []any{s.Giver, s.Taker, s.State, s.Taking, s.Given, s.Taken, s.Lost, s.Doubled, s.Extra, s.Reordered, r.Input, r.Device.Acknowledged, r.Device.Measurements, r.Device.Refused, worlds, r.Lost, r.Doubled, r.Extra, r.Reordered, r.Settled, r.Verified}
}

// sampled is at how many offsets of a large file a bit is flipped.
const sampled = 150

// spoil flips a bit of every file of a bundle, at all offsets of the smaller ones
// and at some of the larger, and takes each file away: Verify finds it false and
// names the file.
func spoil(t *testing.T, r *rand.Rand, dir string) {
	bundles, err := os.ReadDir(dir)
	if err != nil || len(bundles) != 3 {
		t.Fatalf("%v in %s, %v", bundles, dir, err)
	}
	bundle := filepath.Join(dir, bundles[0].Name())
	if _, errs, code := carnetCommand(t, "verify", bundle); code != 0 {
		t.Fatalf("carnet verify of a good bundle ends with %d: %s", code, errs)
	}
	files, err := os.ReadDir(bundle)
	if err != nil {
		t.Fatal(err)
	}
	end := time.Now().Add(25 * time.Second)
	for _, f := range files {
		path := filepath.Join(bundle, f.Name())
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		flips, asked := 0, false
		for _, offset := range offsets(r, len(good)) {
			if time.Now().After(end) {
				break
			}
			bad := append([]byte(nil), good...)
			bad[offset] ^= 1 << r.IntN(8)
			write(t, path, bad)
			wantFalse(t, bundle, f.Name(), fmt.Sprintf("with a bit flipped at %d of %s", offset, f.Name()), !asked)
			flips, asked = flips+1, true
		}
		if flips == 0 {
			t.Errorf("no time for %s", f.Name())
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		wantFalse(t, bundle, f.Name(), "without "+f.Name(), true)
		write(t, path, good)
		t.Logf("%-14s %7d bytes: a bit flipped at %d offsets", f.Name(), len(good), flips)
	}
	if _, errs, code := carnetCommand(t, "verify", bundle); code != 0 {
		t.Errorf("carnet verify of the bundle put back ends with %d: %s", code, errs)
	}
}

func offsets(r *rand.Rand, size int) (all []int) {
	if size <= 2*sampled {
		for i := range size {
			all = append(all, i)
		}
		return all
	}
	for i := range sampled {
		all = append(all, min(size-1, i*size/sampled+r.IntN(size/sampled)))
	}
	return append(all, 0, size-1)
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// wantFalse wants a bundle to be found false, with the file named; ask says
// that the program is asked, too.
func wantFalse(t *testing.T, bundle, file, what string, ask bool) {
	t.Helper()
	report, err := evidence.Verify(context.Background(), bundle, nil, evidence.VerifyOptions{})
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	named := false
	for _, f := range report.Findings {
		named = named || f.File == file
	}
	if report.Verdict != evidence.False || !named {
		t.Errorf("%s: %s", what, report.Summary())
	}
	if !ask {
		return
	}
	if out, errs, code := carnetCommand(t, "verify", bundle); code != 1 || !strings.Contains(out, file) {
		t.Errorf("%s: carnet verify ends with %d: %s%s", what, code, out, errs)
	}
}
