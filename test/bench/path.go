package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"carnet"
)

// sensor describes a load's thing: numbers that are passed on without lingering,
// properties of one label or of one each.
type sensor struct {
	properties int // up to 16
	labelled   bool
}

// A plain sensor's batch has all that is ready, a labelled one makes a batch of
// each property.
var plain, labelled = sensor{properties: 4}, sensor{properties: 16, labelled: true}

func (s sensor) name(i int) string { return string(rune('a' + i)) }

// label is that of property i, with its retention class: one of four
// sensitivities that both worlds are cleared for, and of four classes.
func (s sensor) label(i int) string {
	if !s.labelled {
		return `"carnet:sensitivity": "personal+health"`
	}
	return fmt.Sprintf(`"carnet:sensitivity": %q, "carnet:retention": %q`,
		[4]string{"public", "personal", "health", "personal+health"}[i%4], [4]string{"hour", "day", "month", "year"}[i/4])
}

func (s sensor) description() string {
	var properties []string
	for i := range s.properties {
		properties = append(properties, fmt.Sprintf(`%q: {"type": "number", "unit": "V", "observable": true, "readOnly": true,
			%s, "carnet:linger": "PT0S", "forms": [{"href": "measurements", "op": ["observeproperty"]}]}`, s.name(i), s.label(i)))
	}
	return `{"@context": ["https://www.w3.org/2022/wot/td/v1.1", {"carnet": "urn:carnet:td#"}], "id": "urn:carnet:things:sensor",
		"title": "Sensor", "base": "mqtts://things.example/", "securityDefinitions": {"password": {"scheme": "basic", "in": "auto"}},
		"security": "password", "carnet:retention": "year", "properties": {` + strings.Join(properties, ", ") + `}}`
}

// views let each world have all of it.
func (s sensor) views() map[carnet.PartyID]string {
	var properties []string
	for i := range s.properties {
		properties = append(properties, fmt.Sprintf("%q: {}", s.name(i)))
	}
	view := `{"properties": {` + strings.Join(properties, ", ") + `}, "purposes": [%q]}`
	return map[carnet.PartyID]string{"arena": fmt.Sprintf(view, "fitness"), "clinic": fmt.Sprintf(view, "care")}
}

// messages of n measurements: the properties in turn, a round a second. The
// records are the same sixteen texts over and over, behind a base time that
// moves on: making a message is nearly a copy.
func (s sensor) messages(now time.Time, n int) func([]byte, int64) []byte {
	from, seconds := now.Add(-29*24*time.Hour).Unix(), int64((n+s.properties-1)/s.properties)
	var texts [16]string
	for i := range texts {
		var b strings.Builder
		for r := range n {
			p := r % s.properties
			fmt.Fprintf(&b, `,"n":%q,"u":"V","t":%d,"v":%d.%02d},{`, s.name(p), r/s.properties, 10+p%7, (i*37+r*13)%100)
		}
		texts[i] = strings.ReplaceAll(strings.TrimSuffix(b.String(), ",{"), "{,", "{") + "]"
	}
	return func(dst []byte, i int64) []byte {
		dst = append(dst, `[{"bt":`...)
		dst = strconv.AppendInt(dst, from+i*seconds, 10)
		return append(dst, texts[i%16]...)
	}
}

// path is rows 3, 4 and 5.
func path(ctx context.Context, b *bench) (all []Figure, err error) {
	goals := map[int]float64{100: 1_500_000, 10: 800_000, 1: 150_000}
	for _, n := range b.sizes {
		figures, err := through(ctx, b, n, 0, "arena")
		all = append(all, figures...)
		if err != nil {
			return all, fmt.Errorf("%d a batch: %w", n, err)
		}
		if n >= 100 {
			all[len(all)-len(figures)].Goal = goals[n]
			continue
		}
		offer := b.offer
		if offer == 0 {
			offer = 1.1 * goals[n]
		}
		figures, err = through(ctx, b, n, offer, "arena")
		all = append(all, figures...)
		if err != nil {
			return all, fmt.Errorf("%d a batch, %.0f/s offered: %w", n, offer, err)
		}
		all[len(all)-1].Goal = goals[n]
	}
	if !slices.Contains(b.sizes, 100) {
		return all, nil
	}
	figures, err := through(ctx, b, 100, 0, "arena", "clinic")
	if len(figures) > 0 {
		all = append(all, figures[0])
	}
	return all, err
}

// through sends measurements in batches of n, offer of them a second (0: as many
// as are acknowledged), and waits until the worlds have them. The first figure is
// the rate; at 100 a batch and one world, row 4 and row 5 follow. With an offer
// the rate counts batches as what they were meant to hold: one that more was
// gathered into counts once.
func through(ctx context.Context, b *bench, n int, offer float64, worlds ...carnet.PartyID) (all []Figure, err error) {
	name := fmt.Sprintf("row3-%d-%d", n, len(worlds))
	if offer > 0 {
		name += "-offered"
	}
	s, err := b.start(ctx, name, worlds...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	// What a thing has ready when the next frame is built goes into one batch a
	// label. So that batches are small at a high rate, too, a message has sixteen.
	kind, size := plain, n
	if n < 100 {
		kind, size = labelled, labelled.properties*n
	}
	devices, err := s.add(ctx, b.spread, kind.description(), kind.views())
	if err != nil {
		return nil, err
	}
	// The parties start again: their files are what they are between loads, and
	// profiles have the load alone.
	empty, err := s.restart(ctx, b, name)
	if err != nil {
		return nil, err
	}
	f := Figure{Row: 3, Name: fmt.Sprintf("path, %d a batch, %s", n, plural(len(worlds), "world")), Unit: "measurements/s", Raw: make(map[string]float64)}
	l := load{
		address: s.hub.config.Listen.MQTT, tls: s.hub.trust, devices: devices, window: 1, message: kind.messages(time.Now(), size),
		from: make([]int64, len(devices)),
	}
	// The first message of a thing, and of a stream after a start, makes keys.
	first, err := l.run(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.settle(ctx, time.Minute); err != nil {
		return nil, err
	}
	f.Raw["first message of each thing until a world has it, s"] = time.Since(first.begun).Seconds()
	if offer > 0 {
		f.Name = fmt.Sprintf("path, %d a batch, %.0f/s offered", n, offer)
		l.interval = time.Duration(float64(len(devices)*size) / offer * 1e9)
	}
	if l.measure = 8 * time.Second; b.short {
		l.measure = 3 * time.Second
	}
	var before map[carnet.PartyID]time.Duration
	var own time.Duration
	l.begin = func() { before, own = s.used(), ownCPU() }
	had := uint64(first.sent) * uint64(size)
	batches, frames, err := s.had(ctx)
	if err != nil {
		return nil, err
	}
	p, err := l.run(ctx)
	if err != nil {
		return nil, err
	}
	acknowledged := time.Now()
	if err := s.settle(ctx, 3*time.Minute); err != nil {
		return nil, err
	}
	total := float64(p.sent) * float64(size)
	counted, err := s.count(ctx, had+uint64(total))
	if err != nil {
		return nil, err
	}
	used := s.used()
	allBatches, allFrames, err := s.had(ctx)
	if err != nil {
		return nil, err
	}
	f.Raw["measurements"] = total
	f.Raw["measurements a batch"] = total / float64(allBatches-batches)
	f.Raw["batches a frame"] = float64(allBatches-batches) / float64(allFrames-frames)
	f.Raw["frames/s"] = float64(allFrames-frames) / counted.Sub(p.begun).Seconds()
	took := counted.Sub(p.begun).Seconds()
	if f.Value = total / took; offer > 0 {
		f.Raw["measurements/s"] = f.Value
		f.Value = float64(allBatches-batches) * float64(n) / took
	}
	parties := 0.0
	for party := range used {
		f.Raw["CPU of "+string(party)+", s"] = (used[party] - before[party]).Seconds()
		parties += (used[party] - before[party]).Seconds()
	}
	f.Raw["CPU of the load, s"] = (ownCPU() - own).Seconds()
	f.Raw["from first message to last measurement, s"] = took
	f.Raw["of it after the last message, s"] = counted.Sub(acknowledged).Seconds()
	f.Raw["things"] = float64(len(devices))
	f.record("devices", p)
	f.Note = fmt.Sprintf("messages of %d measurements, %d bytes; 1 in flight for each thing. Each measurement counts once, however many worlds get it.", size, len(l.message(nil, 0)))
	all = append(all, f)
	if n != 100 || len(worlds) != 1 {
		return all, nil
	}
	cpu, err := perMeasurement(parties, total, f.Raw)
	if err != nil {
		return all, err
	}
	stored, err := s.stored(ctx, empty, total+float64(had))
	return append(all, cpu, stored), err
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}

// had is what the first world has so far.
func (s *system) had(ctx context.Context) (batches, frames uint64, err error) {
	st, err := s.worlds[0].client.Status(ctx)
	if err != nil {
		return 0, 0, err
	}
	return st.World.Batches, st.World.Frames, nil
}

// count waits until every world has folded want measurements, and returns when
// that was. Fewer after 30 s, or more, is an error: then nothing else counts.
func (s *system) count(ctx context.Context, want uint64) (at time.Time, err error) {
	for _, w := range s.worlds {
		for end := time.Now().Add(30 * time.Second); ; {
			st, err := w.client.Status(ctx)
			if err != nil {
				return at, err
			}
			if at = time.Now(); st.World.Measurements == want {
				break
			}
			if at.After(end) || st.World.Measurements > want {
				return at, fmt.Errorf("%s has %d measurements of %d that were acknowledged", w.name, st.World.Measurements, want)
			}
			if err := sleep(ctx, 20*time.Millisecond); err != nil {
				return at, err
			}
		}
	}
	return at, nil
}

// perMeasurement is row 4.
func perMeasurement(seconds, measurements float64, of map[string]float64) (Figure, error) {
	bare, err := bareLoop()
	f := Figure{
		Row: 4, Name: "CPU a measurement, both ends", Value: seconds / measurements * 1e6, Unit: "µs", Goal: 1.2, AtMost: true,
		Raw:  map[string]float64{"bare AEAD + hash + columns, µs": bare, "times bare": seconds / measurements * 1e6 / bare},
		Note: "all parties of row 3 at 100 a batch, from the first message until everything is folded: the depot's share and compaction so far are inside.",
	}
	for _, p := range []string{"hub", "arena", "vault"} {
		f.Raw[p+", µs"] = of["CPU of "+p+", s"] / measurements * 1e6
	}
	return f, err
}

// restart ends the parties and starts them again, and says what their data
// takes in between.
func (s *system) restart(ctx context.Context, b *bench, row string) (map[carnet.PartyID]int64, error) {
	if err := s.settle(ctx, time.Minute); err != nil {
		return nil, err
	}
	if err := s.stop(); err != nil {
		return nil, err
	}
	sizes, err := s.sizes()
	if err != nil {
		return nil, err
	}
	for _, p := range s.all() {
		if err := p.start(b, row); err != nil {
			return nil, err
		}
	}
	for _, p := range s.all() {
		if err := p.await(ctx); err != nil {
			return nil, err
		}
	}
	return sizes, nil
}

// sizes is how much each party's data directory holds.
func (s *system) sizes() (map[carnet.PartyID]int64, error) {
	all := make(map[carnet.PartyID]int64)
	for _, p := range s.all() {
		err := filepath.WalkDir(filepath.Join(p.dir, "data"), func(_ string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return ignoreGone(err)
			}
			info, err := d.Info()
			if err == nil {
				all[p.name] += info.Size()
			}
			return ignoreGone(err)
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// ignoreGone: a database's log may go while it is looked at.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// stored is row 5. It stops the parties, which write their logs back then.
func (s *system) stored(ctx context.Context, empty map[carnet.PartyID]int64, measurements float64) (Figure, error) {
	f := Figure{Row: 5, Name: "bytes a measurement, world", Unit: "B", Goal: 20, AtMost: true, Raw: make(map[string]float64)}
	frames := s.compacted(ctx, 2*time.Minute)
	if err := s.stop(); err != nil {
		return f, err
	}
	full, err := s.sizes()
	if err != nil {
		return f, err
	}
	for _, p := range s.all() {
		grown := float64(full[p.name] - empty[p.name])
		f.Raw[string(p.name)+", bytes a measurement"] = grown / measurements
		free, err := freeBytes(ctx, filepath.Join(p.dir, "data", "state.db"))
		if err != nil {
			return f, err
		}
		f.Raw[string(p.name)+", of it free pages"] = free / measurements
	}
	f.Value = f.Raw["arena, bytes a measurement"] - f.Raw["arena, of it free pages"]
	f.Raw["arena, frames not compacted"] = frames
	f.Note = "files of the data directory after the parties ended, less what they had before the load. The world's figure is without pages that are free for what comes next."
	return f, nil
}

// compacted waits until the worlds' compaction has nothing more to do, and says
// how many frames it leaves.
func (s *system) compacted(ctx context.Context, limit time.Duration) (frames float64) {
	// A world compacts every 5 s: three rounds without a change are the end.
	const quiet = 16 * time.Second
	var last uint64
	changed := time.Now()
	for end := time.Now().Add(limit); time.Now().Before(end) && time.Since(changed) < quiet; {
		st, err := s.worlds[0].client.Status(ctx)
		if err != nil || sleep(ctx, 200*time.Millisecond) != nil {
			return frames
		}
		if st.World.Stretches != last {
			last, changed = st.World.Stretches, time.Now()
		}
		frames = float64(st.World.Frames)
	}
	return frames
}
