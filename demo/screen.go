package demo

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"carnet"
	"carnet/avatar"
)

// screen shows people what goes on. Its methods may be called concurrently.
type screen struct {
	to       io.Writer
	terminal bool
	begun    time.Time
	total    int

	mu     sync.Mutex
	device Device
	lines  int // of live progress on the terminal now
}

func newScreen(o Options) *screen { return &screen{to: o.Progress, terminal: o.Terminal} }

// say prints a line.
func (v *screen) say(format string, args ...any) {
	if v.to == nil {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.wipe()
	fmt.Fprintf(v.to, format+"\n", args...)
}

func (v *screen) wipe() {
	if v.lines > 0 {
		fmt.Fprintf(v.to, "\033[%dA\033[J", v.lines)
		v.lines = 0
	}
}

func (v *screen) sent(d Device) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.device = d
}

// begin notes that playing begins, and on a terminal prints the lines to paste.
func (v *screen) begin(s *setup, total int) {
	v.begun, v.total = time.Now(), total
	if v.to == nil {
		return
	}
	v.say("playing %d messages; everything about this demo is in %s", total, filepath.Join(s.dir, "demo.json"))
	if v.terminal {
		v.say("\n%s", s.paste())
	}
}

// follow shows live progress until ctx ends.
func (v *screen) follow(ctx context.Context, s *setup) {
	if v.to == nil {
		return
	}
	every := 5 * time.Second
	if v.terminal {
		every = time.Second
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		lines := v.progress(ctx, s)
		v.mu.Lock()
		if v.terminal {
			v.wipe()
			v.lines = len(lines)
		}
		fmt.Fprintln(v.to, strings.Join(lines, "\n"))
		v.mu.Unlock()
	}
}

func (v *screen) progress(ctx context.Context, s *setup) []string {
	v.mu.Lock()
	d := v.device
	v.mu.Unlock()
	took := time.Since(v.begun)
	lines := []string{fmt.Sprintf("%6.1fs  watch → hub     %d of %d messages acknowledged, %d refused, %.0f measurements/s",
		took.Seconds(), d.Acknowledged, v.total, d.Refused, float64(d.Measurements)/took.Seconds())}
	for _, world := range []carnet.PartyID{"arena", "clinic"} {
		c := s.party(world).client
		info, err := c.Avatar(ctx, s.watch.mappings[world].Avatar)
		if err != nil {
			lines = append(lines, fmt.Sprintf("         hub → %-8s  %v", world, err))
			continue
		}
		state, err := c.State(ctx, info.ID)
		if err != nil {
			state = nil
		}
		lines = append(lines, fmt.Sprintf("         hub → %-8s  %d measurements: %s", world, info.Measurements, shown(info, state)))
	}
	return lines
}

// shown is an avatar's state in a line.
func shown(info avatar.Info, state []carnet.Measurement) string {
	var parts []string
	for _, m := range state {
		parts = append(parts, fmt.Sprintf("%s %.6g %s", m.Name, m.Value.Num, m.Unit))
	}
	if len(parts) == 0 {
		return "nothing yet"
	}
	return strings.Join(parts, ", ")
}

// paste is the five lines that somebody who looks at the demo may try.
func (s *setup) paste() string {
	hub, arena, clinic := s.party("hub"), s.party("arena"), s.party("clinic")
	w := &s.watch
	host, port, _ := strings.Cut(w.address, ":")
	file := filepath.Join(s.dir, "demo.json")
	carnetCommand := "carnet --access " + file
	curl := func(p *party, world carnet.PartyID) string {
		return fmt.Sprintf("curl -s --cacert %s -H 'Authorization: Bearer %s' %s/v1/avatars/%s/state", p.ca(), p.token, p.client.Base, w.mappings[world].Avatar)
	}
	return strings.Join([]string{
		"Send a measurement of your own:",
		fmt.Sprintf("  mosquitto_pub -h %s -p %s --cafile %s -u %s -P %s -q 1 -V 5 -t things/%s/measurements -m '[{\"n\":\"heart_rate\",\"u\":\"beat/min\",\"v\":142}]'",
			host, port, hub.ca(), w.id, w.password, w.id),
		"Read both views:",
		"  " + curl(arena, "arena") + "; echo; " + curl(clinic, "clinic"),
		"Watch live:",
		fmt.Sprintf("  %s avatar watch %s", carnetCommand, w.mappings["clinic"].Avatar),
		"Change what arena sees (its heart rate to the nearest 20, no speed):",
		fmt.Sprintf("  echo '{\"properties\":{\"heart_rate\":{\"round\":20}},\"purposes\":[\"fitness\"]}' | %s thing view set %s/arena --file -", carnetCommand, w.id),
		"Prove what was sent (after the demo has ended with --evidence DIR):",
		"  carnet verify DIR",
	}, "\n")
}
