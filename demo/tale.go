package demo

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"carnet"
	"carnet/api"
	"carnet/api/client"
	"carnet/job"
)

// act is one of the things that happen in a story, in their order.
type act struct {
	name string // in a word or two
	says string // what happens, in a sentence, for people
	do   func(*tale, context.Context) error
}

// actFor is how long an act may take.
const actFor = 90 * time.Second

// tale is a story that is being told.
type tale struct {
	*setup
	options Options
	goOn    chan struct{} // closed when the devices may send their second half

	mu     sync.Mutex // guards what follows
	now    string     // what happens, in words
	done   int        // acts
	failed error
	homes  map[carnet.PartyID]carnet.AvatarID // the story's avatar in each world where it is
	jobs   map[string]api.Job                 // that are come back to
}

func newTale(s *setup, o Options) *tale {
	t := &tale{setup: s, options: o, goOn: make(chan struct{}), homes: make(map[carnet.PartyID]carnet.AvatarID), jobs: make(map[string]api.Job)}
	for _, world := range s.script.worlds {
		if m, mapped := s.sensors[0].mappings[world]; mapped {
			t.homes[world] = m.Avatar
		}
	}
	return t
}

// tell does the acts, one after the other, until one can't be done.
func (t *tale) tell(ctx context.Context) {
	begun := time.Now()
	goOn := sync.OnceFunc(func() { close(t.goOn) })
	defer goOn()
	for i, a := range t.script.acts {
		if i == t.script.hold {
			goOn()
		}
		t.doing(fmt.Sprintf("act %d of %d: %s", i+1, len(t.script.acts), a.says))
		acting, cancel := context.WithTimeout(ctx, actFor)
		err := a.do(t, acting)
		cancel()
		if err != nil {
			if ctx.Err() != nil {
				err = errors.New("the demo was ended first")
			}
			err = fmt.Errorf("act %d of %d, %s: %w", i+1, len(t.script.acts), a.name, err)
			t.doing("the story ends here: " + err.Error())
			t.mu.Lock()
			t.failed = err
			t.mu.Unlock()
			return
		}
		t.mu.Lock()
		t.done++
		t.mu.Unlock()
	}
	t.doing(fmt.Sprintf("the story is told, in %.1f s; the devices go on", time.Since(begun).Seconds()))
}

// doing says what happens now.
func (t *tale) doing(what string) {
	t.mu.Lock()
	t.now = what
	t.mu.Unlock()
	t.screen.say("%6.1fs  %s", time.Since(t.screen.begun).Seconds(), what)
}

// detail says more of what happens, in a line below it.
func (t *tale) detail(format string, args ...any) {
	t.screen.say("           "+format, args...)
}

func (t *tale) nowDoing() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return "now: " + t.now
}

// lives notes where the story's avatar is now.
func (t *tale) lives(in carnet.PartyID, id carnet.AvatarID, not carnet.PartyID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.homes[in] = id
	delete(t.homes, not)
}

// remember keeps a job that a later act comes back to.
func (t *tale) remember(as string, j api.Job) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.jobs[as] = j
}

func (t *tale) recall(as string) api.Job {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.jobs[as]
}

// progress is what each world and each DPM has now, in a line.
func (t *tale) progress(ctx context.Context) (lines []string) {
	for _, world := range t.script.worlds {
		t.mu.Lock()
		id, here := t.homes[world]
		t.mu.Unlock()
		if !here {
			lines = append(lines, fmt.Sprintf("%s  has nobody of this story", t.way(world)))
			continue
		}
		lines = append(lines, fmt.Sprintf("%s  %s", t.way(world), t.seen(ctx, world, id)))
	}
	for _, p := range t.parties {
		if p.client == nil {
			continue
		}
		if st, err := p.looks.Status(ctx); err == nil && st.DPM != nil {
			lines = append(lines, fmt.Sprintf("  %10s   %-7s  %s run, %d wait, %d have ended", "", p.name, number(st.DPM.Leased, "job"), st.DPM.Waiting+st.DPM.Ready, st.DPM.Ended))
		}
	}
	return lines
}

// seen is what a world has of an avatar.
func (t *tale) seen(ctx context.Context, world carnet.PartyID, id carnet.AvatarID) string {
	c := t.party(world).looks
	info, err := c.Avatar(ctx, id)
	if err != nil {
		return err.Error()
	}
	state, err := c.State(ctx, id)
	if err != nil {
		state = nil // shown as nothing yet
	}
	return fmt.Sprintf("%s: %s, now %s", info.Title, number(int(info.Measurements), "measurement"), shown(state, info.Withdrawn))
}

// await tries until what it calls says yes. What fails only for the moment is tried
// again.
func await(ctx context.Context, what string, done func() (bool, error)) error {
	for {
		ok, err := done()
		if err != nil && carnet.CodeOf(err) != carnet.Unavailable && ctx.Err() == nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if ok && err == nil {
			return nil
		}
		if pause(ctx, 100*time.Millisecond) != nil {
			if err != nil {
				return fmt.Errorf("%s, which didn't come about in time: %w", what, err)
			}
			return fmt.Errorf("%s, which didn't come about in time", what)
		}
	}
}

// shows waits until an avatar's state has all of the properties.
func (t *tale) shows(ctx context.Context, world carnet.PartyID, id carnet.AvatarID, properties ...string) error {
	return await(ctx, fmt.Sprintf("wait until %s has %v", world, properties), func() (bool, error) {
		info, err := t.party(world).looks.Avatar(ctx, id)
		have := make(map[string]bool)
		for _, name := range info.Properties {
			have[name] = true
		}
		for _, name := range properties {
			if !have[name] {
				return false, err
			}
		}
		return true, err
	})
}

// moduleVersion is that of every module of the stories.
const moduleVersion = "1.0.0"

// addModules has each world sign the modules that it will have run, and put them at the
// vault.
func (t *tale) addModules(ctx context.Context) error {
	for _, world := range t.script.worlds {
		for _, name := range t.script.modules[world] {
			var m api.Module
			err := await(ctx, fmt.Sprintf("%s adds the module %s", world, name), func() (ok bool, err error) {
				m, err = t.party(world).client.AddModule(ctx, api.NewModule{Name: name, Version: moduleVersion, Program: t.modules[name]})
				return true, err
			})
			if err != nil {
				return err
			}
			t.detail("%s signed %s, of %d bytes, which are at the vault", world, m.ID, m.Program.Size)
		}
	}
	return nil
}

// runs orders a job, and waits until it has ended as done.
func (t *tale) runs(ctx context.Context, world carnet.PartyID, what string, n api.NewJob) (j api.Job, err error) {
	c := t.party(world).client
	err = await(ctx, fmt.Sprintf("%s orders %s at %s", world, what, n.At), func() (bool, error) {
		j, err = c.RunJob(ctx, n)
		return true, err
	})
	if err != nil {
		return j, err
	}
	if j, err = ended(ctx, c, j); err != nil {
		return j, fmt.Errorf("%s waits for %s of %s: %w", world, what, n.At, err)
	}
	if j.Output == nil {
		return j, carnet.Errorf(carnet.Conflict, "%s at %s ended as %s: %s", what, n.At, j.Outcome, j.Why)
	}
	t.detail("%s had %s compute %s over %s: %d bytes came back, sealed and signed", world, n.At, what, number(int(j.Output.Measurements), "measurement"), j.Output.Size)
	return j, nil
}

// ended waits until a job has ended.
func ended(ctx context.Context, c *client.Client, j api.Job) (api.Job, error) {
	for j.State != job.Ended {
		next, err := c.Job(ctx, j.ID, true)
		if err != nil {
			return j, err
		}
		j = next
	}
	return j, nil
}

// repeats has a world compute a job itself once more, and waits until both outputs are
// compared.
func (t *tale) repeats(ctx context.Context, world carnet.PartyID, what string, of api.Job) error {
	c := t.party(world).client
	again, err := c.RepeatJob(ctx, of.ID, api.Repetition{})
	if err != nil {
		return fmt.Errorf("%s repeats %s: %w", world, what, err)
	}
	err = await(ctx, fmt.Sprintf("wait until %s has compared %s", world, what), func() (bool, error) {
		again, err = c.Job(ctx, again.ID, false)
		return again.Comparison != "" || again.State == job.Ended && again.Output == nil, err
	})
	if err != nil {
		return err
	}
	if again.Output == nil {
		return carnet.Errorf(carnet.Conflict, "the repetition of %s ended as %s: %s", what, again.Outcome, again.Why)
	}
	t.detail("%s computed %s itself, and compared: %s", world, what, again.Comparison)
	return nil
}
