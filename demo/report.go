package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"carnet"
	"carnet/audit"
	"carnet/avatar"
	"carnet/evidence"
	"carnet/job/thinglog"
	"carnet/node"
	"carnet/thing"
	"carnet/wire/file"
)

// Report is what a demo did and what was checked. Input and Device are counted
// by the devices, in this run; Refusals are this run's, too. Everything else is
// read from the parties' stores after the parties have ended, and so is of all runs
// in one directory together.
type Report struct {
	Input  Input  `json:"input"`
	Device Device `json:"device"`
	// Duplicates counts measurements that were acknowledged in this run and that
	// the agent had already, and so counts once.
	Duplicates uint64 `json:"duplicates"`
	// Refusals are by thing and reason, the most frequent first.
	Refusals []Refusals `json:"refusals,omitempty"`
	// RefusedOthers counts messages among Refusals that the devices didn't send:
	// somebody else published as their things.
	RefusedOthers uint64  `json:"refused_others"`
	Worlds        []World `json:"worlds"`
	// Shares are those between the worlds, oldest first; what a world holds by one isn't
	// counted in Worlds.
	Shares []Share `json:"shares"`
	// Grants, Moves, Items and Jobs are what the parties' stores have of them, and Checks
	// what a story is judged by; a demo without a story has none.
	Grants []Grant `json:"grants"`
	Moves  []Move  `json:"moves"`
	Items  []Item  `json:"items"`
	Jobs   []Job   `json:"jobs"`
	Checks []Check `json:"checks"`
	Depot  Depot   `json:"depot"`
	// Lost counts measurements that the recorded policy admits, as the oracle
	// works it out, and that a world lacks; Doubled those that a world holds twice;
	// Extra those that it holds and may not; Reordered counts orders that aren't the log's:
	// numbers that go backwards, and properties. What shares lost and so on is in it.
	Lost      int `json:"lost"`
	Doubled   int `json:"doubled"`
	Extra     int `json:"extra"`
	Reordered int `json:"reordered"`
	// Settled says that everything had been passed on when the parties ended.
	Settled  bool     `json:"settled"`
	Verified bool     `json:"verified"` // every world's evidence is true
	Findings []string `json:"findings,omitempty"`
	Seconds  float64  `json:"seconds"`
	Rates    Rates    `json:"rates"`
	Data     string   `json:"data,omitempty"` // the directory, if it is still there
}

// Input is what was played.
type Input struct {
	Files        int       `json:"files"`
	Measurements int       `json:"measurements"`
	LeftOut      []LeftOut `json:"left_out,omitempty"`
}

// LeftOut is what a file holds that was not taken as a measurement, of one kind.
type LeftOut struct {
	File  string     `json:"file"`
	Count int        `json:"count"`
	Why   string     `json:"why"`
	First int        `json:"first"` // the line or message where it was first met
	Place file.Place `json:"place"` // what First counts
}

// leftOut lists what was left out of recordings.
func leftOut(recordings []*file.Recording) (all []LeftOut) {
	for _, r := range recordings {
		for _, s := range r.Skipped {
			all = append(all, LeftOut{r.Name, s.Count, s.Why, s.First, s.Place})
		}
	}
	return all
}

// mostLeftOut is how many kinds people are told of.
const mostLeftOut = 12

func (in Input) writeLeftOut(w io.Writer) {
	kinds, messages, told := 0, 0, 0
	for _, l := range in.LeftOut {
		if strings.HasSuffix(l.Why, file.NoMeasurement) {
			kinds, messages = kinds+1, messages+l.Count
			continue
		}
		if told++; told > mostLeftOut {
			continue
		}
		of := ""
		if in.Files > 1 {
			of = " of " + l.File
		}
		fmt.Fprintf(w, "             left out: %s%s\n", file.Skip{Why: l.Why, First: l.First, Count: l.Count, Place: l.Place}, of)
	}
	if told > mostLeftOut {
		fmt.Fprintf(w, "             and %d kinds more, which --json lists\n", told-mostLeftOut)
	}
	if kinds > 0 {
		fmt.Fprintf(w, "             left out: %s of %s that hold no measurement (--json lists them)\n", number(messages, "message"), number(kinds, "kind"))
	}
}

// World is what one world holds of what hub gave it.
type World struct {
	ID           carnet.PartyID    `json:"id"`
	Avatar       carnet.AvatarID   `json:"avatar"`
	Thing        string            `json:"thing"` // watch or room
	Properties   []string          `json:"properties"`
	Measurements int               `json:"measurements"`
	Withheld     map[string]uint64 `json:"withheld"` // measurements, by reason
	Batches      uint64            `json:"batches"`
	Frames       uint64            `json:"frames"`
}

// Depot is what the depot holds.
type Depot struct {
	Objects    int64  `json:"objects"`
	Bytes      int64  `json:"bytes"`
	Statements uint64 `json:"statements"` // of the other parties
	Receipts   uint64 `json:"receipts"`
	Checkpoint uint64 `json:"checkpoint"` // the ledger's size
}

// Rates are per second of playing.
type Rates struct {
	Messages     float64 `json:"messages"`
	Measurements float64 `json:"measurements"`
}

// Good says that nothing is wrong.
func (r *Report) Good() bool {
	return r.Lost == 0 && r.Doubled == 0 && r.Extra == 0 && r.Reordered == 0 && r.Verified && r.Settled && !slices.ContainsFunc(r.Checks, func(c Check) bool { return !c.OK })
}

// NothingTaken says that devices sent and the agent took nothing of it.
func (r *Report) NothingTaken() bool { return r.Device.Acknowledged == 0 && r.Device.Refused > 0 }

// unsettled notes what hadn't been passed on, and to whom.
func (r *Report) unsettled(waits []string) {
	r.Settled = r.Settled && len(waits) == 0
	for _, what := range waits {
		r.Findings = append(r.Findings, "not passed on when the demo ended: "+what)
	}
}

// judge reads the stores of the parties, which have ended.
func (s *setup) judge(ctx context.Context, p *played, o Options) (r *Report, err error) {
	s.screen.say("reading the parties' stores, and proving what they hold")
	r = &Report{Shares: []Share{}, Input: Input{p.files, p.measurements, p.leftOut}, Device: p.device, Duplicates: p.duplicates, Settled: true, Verified: true}
	r.unsettled(p.waits)
	if took := p.ended.Sub(p.begun).Seconds(); took > 0 {
		r.Rates = Rates{float64(p.device.Acknowledged) / took, float64(p.device.Measurements) / took}
	}
	if !o.temporary() {
		r.Data = s.dir
	}
	hub, err := node.Inspect(ctx, s.party("hub").config, o.Log)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, hub.Close()) }()
	status, err := hub.Things.Status(ctx)
	if err != nil {
		return nil, err
	}
	if r.Refusals, err = s.refusals(ctx, hub.Things, o); err != nil {
		return nil, err
	}
	for _, of := range r.Refusals {
		r.RefusedOthers += of.Messages
	}
	r.RefusedOthers -= min(r.RefusedOthers, uint64(r.Device.Refused))
	if r.Depot, err = s.kept(ctx, o); err != nil {
		return nil, err
	}
	r.Depot.Statements, r.Depot.Receipts = status.Statements, status.Receipts
	for _, name := range s.script.worlds {
		if err := s.judgeWorld(ctx, r, hub, name, o); err != nil {
			return nil, fmt.Errorf("judge %s: %w", name, err)
		}
	}
	return r, s.judgeShares(ctx, r, o)
}

// kept reads what the depot has.
func (s *setup) kept(ctx context.Context, o Options) (d Depot, err error) {
	vault, err := node.Inspect(ctx, s.party("vault").config, o.Log)
	if err != nil {
		return d, err
	}
	defer func() { err = errors.Join(err, vault.Close()) }()
	agent := vault.Parts().Depot
	totals, err := agent.Totals(ctx, "")
	if err != nil {
		return d, err
	}
	checkpoint, _ := agent.Checkpoint()
	return Depot{Objects: totals.Objects, Bytes: totals.Bytes, Checkpoint: checkpoint.Size}, nil
}

// check observes what the parties have, and judges a story by it.
func (s *setup) check(ctx context.Context, r *Report, o Options) (*seen, error) {
	r.Grants, r.Moves, r.Items, r.Jobs = []Grant{}, []Move{}, []Item{}, []Job{}
	v, err := s.observe(ctx, r, o)
	if err != nil {
		return nil, fmt.Errorf("read what the parties have: %w", err)
	}
	r.Checks = v.judged(s.script.checks)
	return v, nil
}

// mapped is the sensor's mapping to a world that didn't end by a move: the one that it
// was given, or one that goes on for it.
func (w *sensor) mapped(ctx context.Context, hub *thing.Agent, world carnet.PartyID) (m thing.MappingInfo, mapped bool, err error) {
	info, err := hub.Thing(ctx, w.id)
	if err != nil {
		return m, false, err
	}
	given, first := w.mappings[world]
	for _, m := range info.Mappings {
		if m.World == world && m.Moved == nil && (first && m.ID == given.ID || m.Follows != nil) {
			return m, true, nil
		}
	}
	return m, false, nil
}

func (s *setup) judgeWorld(ctx context.Context, r *Report, hub *node.Inspection, name carnet.PartyID, o Options) (err error) {
	world, err := node.Inspect(ctx, s.party(name).config, o.Log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, world.Close()) }()
	proved, once := make(map[carnet.AvatarID]bool), make(map[carnet.AvatarID]bool)
	for _, sensor := range s.sensors {
		mapping, mapped, err := sensor.mapped(ctx, hub.Things, name)
		if err != nil {
			return err
		}
		if !mapped {
			continue
		}
		if _, err := world.World.Avatar(mapping.Avatar); err != nil { // it moves, and the demo was ended meanwhile
			r.unsettled([]string{fmt.Sprintf("%s: the %s is still mapped there: %v", name, sensor.name, err)})
			continue
		}
		proved[mapping.Avatar] = true
		if err := audited(ctx, r, hub.Things, world.World, mapping); err != nil {
			return err
		}
		w, err := counted(ctx, hub.Things, world.World, name, mapping)
		if err != nil {
			return err
		}
		w.Thing = sensor.name
		r.Worlds = append(r.Worlds, w)
		if once[mapping.Avatar] {
			continue
		}
		once[mapping.Avatar] = true
		if err := s.proved(ctx, r, world, name, mapping.Avatar, o); err != nil {
			return err
		}
	}
	for _, i := range world.World.Avatars() { // that somebody added
		if o.Evidence == "" || proved[i.ID] || i.Batches == 0 {
			continue
		}
		if err := s.proved(ctx, r, world, name, i.ID, o); err != nil {
			return err
		}
	}
	totals, err := world.World.Totals(ctx)
	if err != nil {
		return err
	}
	r.Depot.Statements += totals.Statements
	r.Depot.Receipts += totals.Receipts
	return nil
}

// eachFrom hands over what a world holds of what hub gave an avatar by a thing: not
// what came by a share, and not what other things, which are the same avatar, said.
func eachFrom(ctx context.Context, hub *thing.Agent, world *avatar.Agent, of carnet.ThingID, id carnet.AvatarID, do func(avatar.Held) error) error {
	others, err := streamsOfOthers(ctx, hub, of)
	if err != nil {
		return err
	}
	return world.EachHeld(ctx, id, func(h avatar.Held) error {
		if _, foreign := world.ShareOf(h.Stream); foreign || others[h.Stream] {
			return nil
		}
		return do(h)
	})
}

// streamsOfOthers are the streams of an agent's other things.
func streamsOfOthers(ctx context.Context, hub *thing.Agent, but carnet.ThingID) (map[carnet.StreamID]bool, error) {
	all, err := hub.Things(ctx, "")
	if err != nil {
		return nil, err
	}
	others := make(map[carnet.StreamID]bool)
	for _, t := range all {
		for _, m := range t.Mappings {
			others[m.Stream] = others[m.Stream] || t.ID != but
		}
	}
	return others, nil
}

// counted reads what a world holds.
func counted(ctx context.Context, hub *thing.Agent, world *avatar.Agent, name carnet.PartyID, m thing.MappingInfo) (w World, err error) {
	w = World{ID: name, Avatar: m.Avatar, Properties: []string{}, Withheld: make(map[string]uint64)}
	type batch struct {
		stream carnet.StreamID
		number uint64
	}
	var last batch
	err = eachFrom(ctx, hub, world, m.Thing, m.Avatar, func(h avatar.Held) error {
		w.Measurements++
		if !slices.Contains(w.Properties, h.Measurement.Name) {
			w.Properties = append(w.Properties, h.Measurement.Name)
		}
		if at := (batch{h.Stream, h.Batch}); w.Batches == 0 || at != last {
			w.Batches, last = w.Batches+1, at
		}
		return nil
	})
	if err != nil {
		return w, err
	}
	slices.Sort(w.Properties)
	totals, err := world.Totals(ctx)
	if err != nil {
		return w, err
	}
	w.Frames = totals.Frames
	counts, err := hub.Counted(ctx, m.ID)
	if err != nil {
		return w, err
	}
	for _, c := range counts {
		for reason, n := range c.Withheld {
			w.Withheld[reason] += n
		}
	}
	return w, nil
}

// audited has the oracle compare what the world may hold with what it holds.
func audited(ctx context.Context, r *Report, hub *thing.Agent, world *avatar.Agent, m thing.MappingInfo) error {
	result, err := Audit(ctx, hub, world, m)
	if err != nil {
		return err
	}
	r.add(string(m.World), result)
	return nil
}

// add adds what the oracle found where.
func (r *Report) add(where string, result audit.Result) {
	r.Lost, r.Doubled, r.Extra, r.Reordered = r.Lost+result.Lost, r.Doubled+result.Doubled, r.Extra+result.Extra, r.Reordered+result.Reordered
	e := result.Examples
	for _, sentence := range slices.Concat(e.Lost, e.Doubled, e.Extra, e.Reordered) {
		r.Findings = append(r.Findings, fmt.Sprintf("%s: %s", where, sentence))
	}
}

// Audit has the oracle work out, from a things agent's log and the views that it
// recorded, what a world may hold of a mapping, and compare that with what it holds.
// One that follows others, because its avatar moved, is judged with them.
func Audit(ctx context.Context, hub *thing.Agent, world *avatar.Agent, m thing.MappingInfo) (audit.Result, error) {
	parts, err := partsOf(ctx, hub, world, m)
	if err != nil {
		return audit.Result{}, err
	}
	config, held, err := audit.Chain(parts...)
	if err != nil {
		return audit.Result{}, err
	}
	oracle, err := audit.New(config)
	if err != nil {
		return audit.Result{}, err
	}
	return oracle.Audit(ctx,
		func(ctx context.Context, from uint64, do func(audit.Message) error) error {
			return hub.EachMessage(ctx, from, func(message thing.Message) error {
				if message.Thing != m.Thing {
					return nil
				}
				return do(audit.Message{Position: message.Position, Measurements: message.Measurements})
			})
		}, held)
}

// partsOf are a mapping and those that it follows, oldest first, with what the
// avatar's world holds of each. What is of none of the others is the newest one's.
func partsOf(ctx context.Context, hub *thing.Agent, world *avatar.Agent, m thing.MappingInfo) (parts []audit.Part, err error) {
	home, former := m.Avatar, make(map[carnet.StreamID]bool)
	held := func(of func(carnet.StreamID) bool) audit.Holdings {
		return func(ctx context.Context, do func(audit.Held) error) error {
			return eachFrom(ctx, hub, world, m.Thing, home, func(h avatar.Held) error {
				if !of(h.Stream) {
					return nil
				}
				return do(audit.Held{Number: h.Number, Measurement: h.Measurement})
			})
		}
	}
	newest := held(func(s carnet.StreamID) bool { return !former[s] })
	for {
		config, err := thinglog.Recorded(ctx, hub, m.ID)
		if err != nil {
			return nil, err
		}
		part := audit.Part{Config: config, Held: newest}
		if stream := m.Stream; len(parts) > 0 {
			former[stream] = true
			part.Held, part.Moved = held(func(s carnet.StreamID) bool { return s == stream }), m.Moved.Measurements
		}
		if parts = append(parts, part); m.Follows == nil {
			slices.Reverse(parts)
			return parts, nil
		}
		if m, err = hub.Mapping(*m.Follows); err != nil {
			return nil, err
		}
	}
}

// proved writes the avatar's evidence bundle and verifies it.
func (s *setup) proved(ctx context.Context, r *Report, world *node.Inspection, name carnet.PartyID, id carnet.AvatarID, o Options) error {
	dir := filepath.Join(o.Evidence, node.BundleName(name, id))
	if o.Evidence == "" {
		temporary, err := os.MkdirTemp("", "carnet-evidence-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(temporary)
		dir = filepath.Join(temporary, "bundle")
	}
	prover := node.Prover{World: world.World, Party: name, Peers: world.Peers, UpTo: avatar.AllFolded, Jobs: world.JobsOf}
	if err := prover.Write(ctx, id, dir); err != nil {
		return err
	}
	report, err := evidence.Verify(ctx, dir, nil, evidence.VerifyOptions{})
	if err != nil {
		return err
	}
	held, err := world.World.Avatar(id)
	if err != nil {
		return err
	}
	if held.Batches == 0 && report.Verdict == evidence.Unknown {
		return nil // nothing was held, so there is nothing to prove; what it ought to hold is the oracle's
	}
	if report.Verdict != evidence.True {
		r.Verified = false
		for _, f := range report.Findings {
			r.Findings = append(r.Findings, fmt.Sprintf("%s: evidence: %s", name, f))
		}
	}
	return nil
}

// Write writes the report for people.
func (r *Report) Write(w io.Writer) {
	fmt.Fprintf(w, "\nrecordings %d, of %s; the demo took %.1f s\n", r.Input.Files, number(r.Input.Measurements, "measurement"), r.Seconds)
	r.Input.writeLeftOut(w)
	fmt.Fprintf(w, "devices    %s acknowledged (%s), %d refused\n", number(int(r.Device.Acknowledged), "message"), number(int(r.Device.Measurements), "measurement"), r.Device.Refused)
	if r.Duplicates > 0 {
		fmt.Fprintf(w, "             %s of these the agent had already: it keeps each once\n", number(int(r.Duplicates), "measurement"))
	}
	writeRefusals(w, r.Refusals)
	if r.RefusedOthers > 0 {
		fmt.Fprintf(w, "             %s refused were not the devices': somebody else published as their things\n", number(int(r.RefusedOthers), "message"))
	}
	for _, world := range r.Worlds {
		of := ""
		if len(world.Properties) > 0 {
			of = " (" + strings.Join(world.Properties, ", ") + ")"
		}
		fmt.Fprintf(w, "%-10s of the %s: %s%s in %s\n", world.ID, world.Thing, number(world.Measurements, "measurement"), of, number(int(world.Batches), "batch"))
		for _, reason := range slices.Sorted(maps.Keys(world.Withheld)) {
			fmt.Fprintf(w, "             %d withheld: %s\n", world.Withheld[reason], reason)
		}
	}
	for _, share := range r.Shares {
		share.write(w)
	}
	objects := number(int(r.Depot.Objects), "object")
	if r.Depot.Objects == 0 {
		objects += ", since worlds store their history there each half a minute"
	}
	fmt.Fprintf(w, "vault      %s (%s); %s, %s, ledger of %d entries\n", objects, number(int(r.Depot.Bytes), "byte"),
		number(int(r.Depot.Statements), "statement"), number(int(r.Depot.Receipts), "receipt"), r.Depot.Checkpoint)
	fmt.Fprintf(w, "oracle     %d lost, %d doubled, %d too many, %d out of order\n", r.Lost, r.Doubled, r.Extra, r.Reordered)
	r.writeStory(w)
	fmt.Fprintf(w, "evidence   %s\n", map[bool]string{true: "every batch proved", false: "NOT proved"}[r.Verified])
	for _, f := range r.Findings {
		fmt.Fprintf(w, "             %s\n", f)
	}
	if r.NothingTaken() {
		fmt.Fprintln(w, "nothing    every message was refused: nothing above says anything about the worlds")
	}
	if r.Data != "" {
		fmt.Fprintf(w, "data       %s\n", r.Data)
	}
}

// writeStory writes what a story was judged by.
func (r *Report) writeStory(w io.Writer) {
	for _, m := range r.Moves {
		fmt.Fprintf(w, "%-10s from %s by a move: %s, %s; frozen for %.2f s\n", m.To, m.From, number(int(m.Measurements), "measurement"), number(m.Items, "item"), m.Frozen)
	}
	for _, j := range r.Jobs {
		by := "by itself"
		if j.away() {
			by = "by " + string(j.At)
		}
		fmt.Fprintf(w, "%-10s had %.60s computed %s over %s: %s\n", j.World, j.Program, by, number(int(j.Measurements), "measurement"), j.Outcome)
	}
	if len(r.Checks) == 0 {
		return
	}
	failed := 0
	for _, c := range r.Checks {
		if !c.OK {
			failed++
		}
	}
	fmt.Fprintf(w, "checks     %d of %d are ok\n", len(r.Checks)-failed, len(r.Checks))
	for _, c := range r.Checks {
		fmt.Fprintf(w, "           %s %-26s %s\n", map[bool]string{true: "ok ", false: "NOT"}[c.OK], c.Name, c.Detail)
	}
}

// number is a count with its noun.
func number(n int, noun string) string {
	switch {
	case n == 1:
	case strings.HasSuffix(noun, "ch"):
		noun += "es"
	default:
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}
