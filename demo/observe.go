package demo

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"carnet"
	"carnet/activity"
	"carnet/avatar"
	"carnet/capsule"
	"carnet/crossing/move"
	"carnet/identity"
	"carnet/item"
	"carnet/job"
	"carnet/ledger"
	"carnet/node"
	"carnet/thing"
)

// seen is what the parties have, as it was read from their stores after they had ended,
// but for told, sentences of who told the story, and half, of who asked before.
type seen struct {
	report *Report
	told   string   // why the story wasn't told to its end; empty: it was
	half   []string // what parties found half done, before they ended

	pending map[carnet.PartyID]int           // statements without a receipt
	sensed  map[string][]string              // properties in hub's log, by thing
	logged  []carnet.Measurement             // of the first thing
	mapped  map[string]carnet.AvatarID       // where each thing is mapped to now, and to which avatar it was first
	held    map[carnet.PartyID][]avatar.Held // of the story's avatars
	state   map[carnet.PartyID][]string      // properties with a newest value
	ids     map[carnet.PartyID][]string      // by which a world knows a thing, its agent and its streams
	former  map[carnet.StreamID]bool         // streams of before a move
	current map[carnet.StreamID]string       // streams of now, and the thing
	moved   []string                         // which parties stated the move
	left    map[carnet.PartyID][]string      // keys and files of jobs at DPMs
	// Which parties run what nobody signed.
	unsigned []string
	foreign  []string // jobs that somebody has and shouldn't
	inputs   map[carnet.JobID][]carnet.Measurement
	depot    []string // where the vault has something in clear
	dpms     []string // where a DPM has a name
	// Why a world refused orders of jobs, as its activity log has it.
	refused map[carnet.PartyID][]string
}

// opened are the parties, opened for looking.
type opened struct {
	*seen
	s       *setup
	parties map[carnet.PartyID]*node.Inspection
	hub     *thing.Agent
	ledger  ledger.Key
	keys    map[carnet.PartyID]ed25519.PublicKey
	stated  map[carnet.PartyID][]node.Stated
}

// observe reads everything that checks need. The parties have ended.
func (s *setup) observe(ctx context.Context, r *Report, o Options) (v *seen, err error) {
	v = &seen{
		report: r, half: s.half, pending: make(map[carnet.PartyID]int), sensed: make(map[string][]string), mapped: make(map[string]carnet.AvatarID),
		held: make(map[carnet.PartyID][]avatar.Held), state: make(map[carnet.PartyID][]string), ids: make(map[carnet.PartyID][]string),
		former: make(map[carnet.StreamID]bool), current: make(map[carnet.StreamID]string), left: make(map[carnet.PartyID][]string), inputs: make(map[carnet.JobID][]carnet.Measurement),
		refused: make(map[carnet.PartyID][]string),
	}
	if s.tale != nil {
		if s.tale.failed != nil {
			v.told = s.tale.failed.Error()
		} else if s.tale.done < len(s.script.acts) {
			v.told = fmt.Sprintf("%d of %d acts were done", s.tale.done, len(s.script.acts))
		}
	}
	for _, p := range s.parties {
		if p.role == identity.DPM {
			if v.left[p.name], err = node.Left(ctx, p.config); err != nil {
				return nil, err
			}
		}
	}
	w := &opened{seen: v, s: s, parties: make(map[carnet.PartyID]*node.Inspection), keys: make(map[carnet.PartyID]ed25519.PublicKey), stated: make(map[carnet.PartyID][]node.Stated)}
	defer func() {
		for _, i := range w.parties {
			err = errors.Join(err, i.Close())
		}
	}()
	for _, p := range s.parties {
		i, err := node.Inspect(ctx, p.config, o.Log)
		if err != nil {
			return nil, err
		}
		w.parties[p.name] = i
	}
	looks := []func(context.Context) error{w.statements, w.grants, w.moves, w.items, w.jobs}
	if s.tale != nil {
		looks = []func(context.Context) error{w.statements, w.things, w.worlds, w.grants, w.moves, w.items, w.jobs, w.refusals, w.secrets}
	}
	for _, look := range looks {
		if err := look(ctx); err != nil {
			return nil, err
		}
	}
	return v, nil
}

func (w *opened) statements(ctx context.Context) (err error) {
	w.hub = w.parties["hub"].Things
	if w.ledger, err = ledger.ParseKey(w.parties["hub"].Peers["vault"].Ledger); err != nil {
		return err
	}
	for _, p := range w.s.parties {
		i := w.parties[p.name]
		if w.pending[p.name], err = i.Pending(ctx); err != nil {
			return err
		}
		if p.role == identity.Depot {
			continue
		}
		if w.stated[p.name], err = i.Stated(ctx, w.ledger); err != nil {
			return err
		}
		if p.role != identity.Things {
			if w.keys[p.name], err = i.Key(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// states reports whether a party stated something with a receipt.
func (w *opened) states(party carnet.PartyID, want func(*node.Stated) bool) bool {
	return slices.ContainsFunc(w.stated[party], func(s node.Stated) bool { return s.Receipted && want(&s) })
}

func (w *opened) things(ctx context.Context) error {
	names := make(map[carnet.ThingID]string)
	for n, sensor := range w.s.sensors {
		names[sensor.id] = sensor.name
		info, err := w.hub.Thing(ctx, sensor.id)
		if err != nil {
			return err
		}
		for _, m := range info.Mappings {
			world := m.World
			w.ids[world] = append(w.ids[world], m.Avatar.String(), m.Stream.String())
			if m.Moved != nil {
				w.former[m.Stream] = true
				w.mapped[sensor.name+" before"] = m.Avatar
			} else {
				w.current[m.Stream] = sensor.name
				w.mapped[sensor.name+" in "+string(world)] = m.Avatar
			}
		}
		if n > 0 {
			continue
		}
		for world := range sensor.mappings {
			shown, err := w.parties["hub"].Shown(ctx, world)
			if err != nil {
				return err
			}
			w.ids[world] = append(w.ids[world], fmt.Sprintf("%x", shown.Key.Public()))
		}
	}
	return w.hub.EachMessage(ctx, 0, func(m thing.Message) error {
		for _, x := range m.Measurements {
			if !slices.Contains(w.sensed[names[m.Thing]], x.Name) {
				w.sensed[names[m.Thing]] = append(w.sensed[names[m.Thing]], x.Name)
			}
			if m.Thing == w.s.sensors[0].id {
				w.logged = append(w.logged, x)
			}
		}
		return nil
	})
}

func (w *opened) worlds(ctx context.Context) error {
	for _, world := range w.s.script.worlds {
		agent := w.parties[world].World
		for _, info := range agent.Avatars() {
			err := agent.EachHeld(ctx, info.ID, func(h avatar.Held) error {
				w.held[world] = append(w.held[world], h)
				return nil
			})
			if err != nil {
				return err
			}
			latest, err := agent.Latest(info.ID)
			if err != nil && carnet.CodeOf(err) != carnet.Unavailable { // the register would be asked first
				return err
			}
			for _, m := range latest {
				w.state[world] = append(w.state[world], m.Name)
			}
			for _, name := range info.Properties {
				if !slices.Contains(w.state[world], name) {
					w.state[world] = append(w.state[world], name)
				}
			}
		}
	}
	return nil
}

func (w *opened) grants(context.Context) error {
	for _, world := range w.s.script.worlds {
		for _, g := range w.parties[world].Parts().Entities.Grants(nil) {
			w.report.Grants = append(w.report.Grants, Grant{
				ID: g.ID, World: world, Avatar: g.Avatar, To: cmp.Or(string(g.To.Platform), g.To.Application), Actions: g.Actions, Purpose: g.Purpose,
				Expires: g.Expires, Revoked: g.Revoked != nil,
			})
		}
	}
	return nil
}

func (w *opened) moves(ctx context.Context) error {
	for _, world := range w.s.script.worlds {
		all, _ := w.parties[world].Parts().Moves.AtTarget()
		for _, t := range all {
			m := Move{
				ID: t.ID, From: t.From, To: world, Avatar: t.Avatar, For: t.To, State: t.State, Streams: t.Amount.Streams, Batches: t.Amount.Batches,
				Measurements: t.Amount.Measurements, Items: len(t.Moving().Items),
			}
			for _, l := range w.parties[t.From].Parts().Moves.AtSource() {
				if l.ID == t.ID {
					w.sides(&m, &t, &l)
				}
			}
			w.report.Moves = append(w.report.Moves, m)
			w.whoStated(&m)
		}
	}
	return nil
}

// sides compares what both worlds have of a move.
func (w *opened) sides(m *Move, t *move.AtTarget, l *move.AtSource) {
	m.Leaving = l.State
	if d, err := identity.OpenDecision(t.Decision); err == nil && t.Decision == l.Decision {
		m.Outcome = d.Outcome
	}
	at := func(steps []move.Step, s move.State) (when time.Time) {
		for _, step := range steps {
			if step.State == s {
				when = step.Time
			}
		}
		return when
	}
	if home := at(t.Steps, move.Home); !home.IsZero() {
		m.Frozen = home.Sub(at(l.Steps, move.Frozen)).Seconds()
	}
	order, err := identity.OpenOrder(t.Order)
	switch {
	case err != nil:
		m.mandated = err.Error()
	case t.Order != l.Order:
		m.mandated = "the worlds have two orders"
	case order.Owner != t.Home.Owner:
		m.mandated = "it is by another key than the registered one"
	}
	released, err1 := identity.OpenRelease(l.Release)
	accepted, err2 := identity.OpenAcceptance(t.Acceptance)
	m.manifests = err1 == nil && err2 == nil && released.Manifest == accepted.Manifest && released.Manifest == t.Manifest
	departure, err := identity.OpenDeparture(t.Departure)
	m.departed = err == nil && departure.Manifest == t.Manifest && t.Departure == l.Departure
}

func (w *opened) whoStated(m *Move) {
	for party, kind := range map[carnet.PartyID]ledger.Kind{m.From: ledger.Departed, m.To: ledger.Arrived, "hub": ledger.MappingMoved} {
		if w.states(party, func(s *node.Stated) bool { return s.Kind == kind }) {
			w.moved = append(w.moved, string(party))
		}
	}
}

func (w *opened) items(ctx context.Context) error {
	of := make(map[carnet.ItemID]*Item)
	var order []carnet.ItemID
	for _, world := range w.s.script.worlds {
		book := w.parties[world].Parts().Items
		for _, i := range book.Items() {
			x := of[i.ID]
			if x == nil {
				x = &Item{ID: i.ID, Kind: i.Kind, Title: i.Title, States: make(map[carnet.PartyID]item.State)}
				of[i.ID], order = x, append(order, i.ID)
			}
			if i.Looks == nil {
				x.Issuer = world
			}
			if x.States[world] = i.State; i.State != item.Here {
				continue
			}
			if i.Looks != nil {
				x.As, x.power = i.Looks.Kind, i.Looks.Attributes["power"]
			}
			proof, err := book.Proof(ctx, i.ID)
			if err != nil {
				return err
			}
			h, err := item.Read(proof, &w.ledger)
			x.Entries, x.Proved = len(h.Entries), err == nil && h.Avatar == i.Avatar
		}
	}
	for _, id := range order {
		w.report.Items = append(w.report.Items, *of[id])
	}
	return nil
}

func (w *opened) jobs(ctx context.Context) error {
	for _, p := range w.s.parties {
		if p.config.DPM.UnsignedPrograms || p.config.World.UnsignedPrograms || p.config.Things.UnsignedPrograms {
			w.unsigned = append(w.unsigned, fmt.Sprintf("%s runs programs that nobody signed", p.name))
		}
	}
	known := make(map[carnet.JobID]carnet.PartyID)
	for _, world := range w.s.script.worlds {
		agent := w.parties[world].Parts().Jobs
		for _, i := range agent.Jobs() {
			if by, twice := known[i.ID]; twice {
				w.foreign = append(w.foreign, fmt.Sprintf("%s and %s both have the job %s", by, world, i.ID))
			}
			known[i.ID] = world
			j, err := w.job(ctx, world, agent, &i.Job)
			if err != nil {
				return err
			}
			w.report.Jobs = append(w.report.Jobs, j)
		}
	}
	for _, p := range w.s.parties {
		if p.role != identity.DPM {
			continue
		}
		for _, k := range w.parties[p.name].Parts().DPM.Jobs() {
			if known[k.ID] != k.Peer {
				w.foreign = append(w.foreign, fmt.Sprintf("%s has the job %s of %s, which doesn't", p.name, k.ID, k.Peer))
			}
		}
	}
	return nil
}

// refusals reads which orders of jobs each world refused.
func (w *opened) refusals(ctx context.Context) error {
	for _, world := range w.s.script.worlds {
		found, err := w.parties[world].Parts().Activity.Page(ctx, activity.Query{Action: "run-job", Refused: true})
		if err != nil {
			return err
		}
		for _, r := range found.Records {
			w.refused[world] = append(w.refused[world], r.Why)
		}
	}
	return nil
}

// job reads one job at its world, at its DPM and at the depot.
func (w *opened) job(ctx context.Context, world carnet.PartyID, agent *job.Agent, i *job.Job) (j Job, err error) {
	j = Job{
		ID: i.ID, World: world, At: cmp.Or(i.At, world), Program: w.s.programName(i), Properties: i.Task.Properties, State: i.Stand.State, Outcome: i.Stand.Outcome,
		Made: i.Made, Repeats: i.Repeats, Comparison: i.Found, label: i.Label.Label(), noted: i.Stand.Ended,
	}
	if j.Properties == nil {
		j.Properties = []string{}
	}
	for _, p := range i.Pins {
		q := avatar.BatchQuery{From: i.Task.From, To: i.Task.To, Properties: i.Task.Properties, Stream: p.Stream, First: p.First, Last: p.Last}
		err := w.parties[world].World.EachBatch(ctx, p.Avatar, q, func(_ carnet.StreamID, b *avatar.Batch, ms []carnet.Measurement) error {
			if name := b.Header.Stream; !slices.Contains(j.streams, name) {
				j.streams = append(j.streams, name)
			}
			for _, m := range ms {
				if i.Task.Fits(&m) {
					w.inputs[j.ID] = append(w.inputs[j.ID], m)
				}
			}
			return nil
		})
		if err != nil && carnet.CodeOf(err) != carnet.NotFound { // one that has moved or is erased has none here
			return j, fmt.Errorf("read the inputs of the job %s again: %w", i.ID, err)
		}
	}
	if r, err := capsule.OpenResult(i.Stand.Result, w.keys[j.At]); err != nil {
		j.content = fmt.Sprintf("its result isn't signed by %s: %v", j.At, err)
	} else {
		j.Began, j.Ended = r.Began, r.Ended
		j.content = contentOf(i, &r)
		if r.Output != nil {
			j.Measurements, j.Inputs, j.Output = r.Output.Measurements, r.Output.Inputs, r.Output.Fingerprint
		}
	}
	if i.Output != nil {
		if j.output, err = agent.Output(ctx, i.ID); err != nil {
			j.outputFailed = err.Error()
		}
		body, _, err := w.parties["vault"].Parts().Depot.Get(ctx, world, i.Stored)
		if j.stored = err == nil; j.stored {
			body.Close()
		}
	}
	j.stated = w.statedOf(&j, i)
	if j.module = i.Module; i.Task.Engine == "wasm" {
		j.unsigned = w.unsignedOf(ctx, world, agent, i)
	}
	if i.At != "" {
		j.atDPM = w.atDPM(world, i)
	}
	return j, nil
}

// unsignedOf says what lacks of the signed module that a job ran.
func (w *opened) unsignedOf(ctx context.Context, world carnet.PartyID, agent *job.Agent, i *job.Job) string {
	if i.Module == "" {
		return "nobody signed what ran"
	}
	m, err := agent.Module(i.Module)
	if err != nil {
		return err.Error()
	}
	order, err := capsule.OpenOrder(i.Order, w.keys[world])
	switch {
	case err != nil:
		return err.Error()
	case m.By != identity.DID(w.keys[world]):
		return fmt.Sprintf("%s is signed by %s", i.Module, m.By)
	case m.Program != i.Task.Program || order.Task.Program != m.Program:
		return fmt.Sprintf("%s is another program than the one that ran", i.Module)
	case order.Module != m.Fingerprint:
		return "its order names another record"
	}
	body, _, err := w.parties["vault"].Parts().Depot.Get(ctx, world, m.Program.Fingerprint)
	if err != nil {
		return fmt.Sprintf("the vault hasn't %s: %v", i.Module, err)
	}
	defer body.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, body); err != nil || carnet.Fingerprint(sum.Sum(nil)) != m.Program.Fingerprint {
		return fmt.Sprintf("what the vault has of %s is another program, %v", i.Module, err)
	}
	if i.At == "" {
		return ""
	}
	for _, k := range w.parties[i.At].Parts().DPM.Jobs() {
		if k.ID == i.ID && k.Peer == world && k.Record == m.Record {
			return ""
		}
	}
	return fmt.Sprintf("%s hasn't the record of %s", i.At, i.Module)
}

// contentOf says what is wrong with what a result says that it is of.
func contentOf(i *job.Job, r *capsule.Result) string {
	switch {
	case r.Order != capsule.Fingerprint(i.Order):
		return "its result is of another order"
	case r.Output == nil:
		return ""
	case r.Output.Program != i.Task.Program.Fingerprint:
		return "its result names another program"
	case r.Output.Inputs != i.Task.Root():
		return "its result names other inputs"
	case r.Output.Measurements == 0:
		return "its result is of no measurements"
	}
	return ""
}

// statedOf says which statement of a job lacks, or has no receipt.
func (w *opened) statedOf(j *Job, i *job.Job) string {
	order, result := capsule.Fingerprint(i.Order), capsule.Fingerprint(i.Stand.Result)
	type want struct {
		by     carnet.PartyID
		kind   ledger.Kind
		object carnet.Fingerprint
		word   string
	}
	all := []want{{j.World, ledger.JobOrdered, order, "ordered"}, {j.World, ledger.JobEnded, result, "ended"}}
	if j.away() {
		all = append(all, want{j.At, ledger.JobAccepted, order, "accepted"}, want{j.At, ledger.JobEnded, result, "ended"})
	}
	for _, x := range all {
		if !w.states(x.by, func(s *node.Stated) bool { return s.Kind == x.kind && s.Object == x.object }) {
			return fmt.Sprintf("%s has no receipted statement that it %s", x.by, x.word)
		}
	}
	return ""
}

// atDPM says what is wrong with what a job's DPM has of it.
func (w *opened) atDPM(world carnet.PartyID, i *job.Job) string {
	for _, k := range w.parties[i.At].Parts().DPM.Jobs() {
		if k.ID != i.ID || k.Peer != world {
			continue
		}
		if _, err := capsule.OpenOrder(k.Order, w.keys[world]); err != nil {
			return fmt.Sprintf("%s has an order that %s didn't sign: %v", i.At, world, err)
		}
		switch {
		case k.Order != i.Order:
			return fmt.Sprintf("%s has another order", i.At)
		case k.Result != i.Stand.Result:
			return fmt.Sprintf("%s has another result", i.At)
		}
		return ""
	}
	return fmt.Sprintf("%s doesn't know it", i.At)
}

// programName is a module's name, or the query.
func (s *setup) programName(i *job.Job) string {
	for name, program := range s.modules {
		if carnet.FingerprintOf(program) == i.Task.Program.Fingerprint {
			return name
		}
	}
	for _, query := range queries {
		if carnet.FingerprintOf([]byte(query)) == i.Task.Program.Fingerprint {
			return query
		}
	}
	return i.Task.Engine + " " + i.Task.Program.Fingerprint.String()
}

// queries are those of the stories.
var queries = []string{stressQuery, placesQuery, endlessQuery, warmth}

// secrets searches what vault and DPMs have at rest for what they may not know.
func (w *opened) secrets(ctx context.Context) error {
	// Only what can't stand in a file by chance.
	names := []string{string(w.s.sensors[0].id), swordTitle, skinTitle}
	for party := range titles {
		for _, title := range titles[party] {
			names = append(names, `"`+title+`"`)
		}
	}
	outputs := [][]byte{}
	for _, j := range w.report.Jobs {
		if len(j.output) > 16 {
			outputs = append(outputs, j.output)
		}
	}
	for _, p := range w.s.parties {
		if p.role != identity.Depot && p.role != identity.DPM {
			continue
		}
		var needles [][]byte
		for _, name := range names {
			needles = append(needles, []byte(name))
		}
		if p.role == identity.DPM {
			for _, world := range w.s.script.worlds {
				for _, i := range w.parties[world].World.Avatars() {
					needles = append(needles, i.ID[:], []byte(i.ID.String()))
				}
			}
		}
		found, err := search(filepath.Join(p.dir, "data"), append(needles, outputs...))
		if err != nil {
			return err
		}
		if p.role == identity.Depot {
			w.depot = append(w.depot, found...)
		} else {
			w.dpms = append(w.dpms, found...)
		}
	}
	return nil
}

// search says which files below a directory have one of the needles.
func search(dir string, needles [][]byte) (found []string, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, n := range needles {
			if bytes.Contains(text, n) {
				rel, _ := filepath.Rel(dir, path)
				found = append(found, fmt.Sprintf("%s has %.40q", rel, n))
			}
		}
		return nil
	})
	return found, err
}

// examine asks each party what is half done, while all of them run.
func (s *setup) examine(ctx context.Context) {
	s.half = nil
	for _, p := range s.parties {
		ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
		e, err := p.client.Examine(ctx)
		cancel()
		if err != nil {
			s.half = append(s.half, fmt.Sprintf("%s can't be asked: %v", p.name, err))
		}
		for _, f := range e.Findings {
			s.half = append(s.half, fmt.Sprintf("%s: %s %s: %s", p.name, f.Kind, f.About, f.Reason))
		}
	}
}
