package demo

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"carnet"
	"carnet/thing"

	"golang.org/x/term"
)

// screen shows people what goes on. Its methods may be called concurrently.
type screen struct {
	to       io.Writer
	terminal bool
	begun    time.Time

	mu    sync.Mutex
	lines int // of live progress on the terminal now
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

// begin notes that playing begins, and on a terminal prints the lines to paste.
func (v *screen) begin(s *setup, o Options) {
	v.begun = time.Now()
	if v.to == nil {
		return
	}
	v.say("the console is at %s: sign in as %s, password %s", s.console.url(), strings.Join(s.console.names(), ", "), s.console.password)
	removed := ""
	if o.temporary() {
		removed = ", in a directory that is removed at the end (--keep keeps it)"
	}
	v.say("playing %d messages; everything about this demo is in %s%s", s.total(), filepath.Join(s.dir, "demo.json"), removed)
	if v.terminal {
		v.say("\n%s", s.paste())
		v.say("%s", s.howToEnd(o))
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
		lines := v.fit(v.progress(ctx, s))
		if ctx.Err() != nil { // its questions were cut off: the answers say nothing of the parties
			return
		}
		v.mu.Lock()
		if v.terminal {
			v.wipe()
			v.lines = len(lines)
		}
		fmt.Fprintln(v.to, strings.Join(lines, "\n"))
		v.mu.Unlock()
	}
}

// fit cuts lines to the terminal's width: one that wraps could not be wiped.
func (v *screen) fit(lines []string) []string {
	f, ok := v.to.(*os.File)
	if !v.terminal || !ok {
		return lines
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil || width < 20 {
		return lines
	}
	for i, line := range lines {
		if r := []rune(line); len(r) > width {
			lines[i] = string(r[:width-1]) + "…"
		}
	}
	return lines
}

func (v *screen) progress(ctx context.Context, s *setup) []string {
	d, took := s.sent(), time.Since(v.begun)
	lines := []string{fmt.Sprintf("%6.1fs  devices → hub   %d of %d messages acknowledged, %d refused, %.0f measurements/s",
		took.Seconds(), d.Acknowledged, s.total(), d.Refused, float64(d.Measurements)/took.Seconds())}
	if s.tale != nil {
		lines = append([]string{s.tale.nowDoing()}, lines...)
		return append(lines, s.tale.progress(ctx)...)
	}
	behind := s.behind(ctx)
	for _, world := range s.script.worlds {
		c := s.party(world).looks
		for _, w := range s.sensors {
			if _, mapped := w.mappings[world]; !mapped {
				continue
			}
			info, err := c.Avatar(ctx, w.mappings[world].Avatar)
			if err != nil {
				lines = append(lines, fmt.Sprintf("%s  %v", s.way(world), err))
				continue
			}
			state, err := c.State(ctx, info.ID)
			if err != nil {
				state = nil // shown as nothing yet
			}
			now := "now " + shown(state)
			if n := behind[world]; info.Measurements == 0 && n > 0 {
				now = fmt.Sprintf("nothing has come yet: hub has %s to decide for it", number(int(n), "message"))
			}
			lines = append(lines, fmt.Sprintf("%s  the %s: %s, %s", s.way(world), w.name, number(int(info.Measurements), "measurement"), now))
		}
	}
	return lines
}

// behind says how many messages hub hasn't decided for each world yet.
func (s *setup) behind(ctx context.Context) map[carnet.PartyID]uint64 {
	all := make(map[carnet.PartyID]uint64)
	st, err := s.party("hub").looks.Status(ctx)
	if err != nil || st.Things == nil {
		return all // it is shown with the next lines
	}
	for _, l := range st.Things.Links {
		all[l.World] = l.Lag
	}
	return all
}

// way is how a world gets what it holds: citadel most of it by arena's share.
func (s *setup) way(world carnet.PartyID) string {
	return fmt.Sprintf("  %10s → %-7s", cmp.Or(s.script.ways[world], "hub"), world)
}

// shown is an avatar's state in a line.
func shown(state []carnet.Measurement) string {
	var parts []string
	for _, m := range state {
		part := fmt.Sprintf("%s %.6g", m.Name, m.Value.Num)
		switch m.Unit {
		case "", "1":
		case "lat", "lon":
			part += "°"
		default:
			part += " " + m.Unit
		}
		parts = append(parts, part)
	}
	if len(parts) == 0 {
		return "nothing yet"
	}
	return strings.Join(parts, ", ")
}

// paste is the lines that somebody who looks at the demo may try, from the
// demo's directory, whose access file every command finds by itself. What is
// secret in them lies in files that only their owner reads.
func (s *setup) paste() string {
	first := "cd " + s.dir
	if path, err := os.Executable(); err == nil && filepath.Base(path) == "carnet" {
		first += "; PATH=" + filepath.Dir(path) + ":$PATH"
	}
	return strings.Join(append([]string{"In other terminals, to begin with:", "  " + first}, s.script.paste(s)...), "\n")
}

// program is how this program is called from a shell that has begun as paste says.
func program() string {
	if path, err := os.Executable(); err == nil && filepath.Base(path) != "carnet" {
		return path
	}
	return "carnet"
}

// pastePlain is what may be tried in the demo without a story.
func (s *setup) pastePlain() []string {
	w, program := s.sensors[0], program()
	host, port, _ := strings.Cut(w.address, ":")
	return []string{
		"Watch live what clinic gets:",
		fmt.Sprintf("  %s avatar watch %s", program, w.mappings["clinic"].Avatar),
		"Send a measurement of your own, and see it pass there:",
		fmt.Sprintf("  mosquitto_pub -h %s -p %s --cafile hub/ca.pem -u %s -P %s -q 1 -V 5 -t %s -m '[{\"n\":\"heart_rate\",\"v\":142}]'",
			host, port, w.id, w.password, thing.MeasurementsTopic(w.id)),
		"Read what arena and clinic see of it:",
		"  curl -sSK arena.curl; curl -sSK clinic.curl",
		"Read the avatar in citadel, which gets heart rate and speed by arena's share, and see the share:",
		fmt.Sprintf("  %s avatar show %s; %s share list", program, w.mappings["citadel"].Avatar, program),
		"Change what arena gets, and so what it shares (heart rate to the nearest 20; its speed stays the last one it got), and see above:",
		fmt.Sprintf("  echo '{\"properties\":{\"heart_rate\":{\"round\":20}},\"purposes\":[\"fitness\"]}' | %s thing view set %s/arena --file -", program, w.id),
		"Prove what arena was sent, as often as you like:",
		fmt.Sprintf("  D=$(mktemp -d proof-XXXX) && %s avatar evidence %s --out $D && %s verify $D", program, w.mappings["arena"].Avatar, program),
	}
}

// howToEnd says how a demo that stays ends, and what is left of it.
func (s *setup) howToEnd(o Options) string {
	end := "\nCtrl-C ends it, and checks what each world holds"
	if !o.Stay {
		end = fmt.Sprintf("\nIt ends by itself after %s, or with Ctrl-C, and checks what each world holds", o.For)
	}
	if o.temporary() {
		return end + "; then the directory is removed (--keep keeps it).\n"
	}
	return end + "; the directory stays.\n"
}

func (s *setup) curlFile(world carnet.PartyID) string {
	return filepath.Join(s.dir, string(world)+".curl")
}

// writeCurl writes curl's side of the lines to paste: the addresses, and the
// tokens that a command line would show to everybody on the machine.
func (s *setup) writeCurl() error {
	for _, world := range []carnet.PartyID{"arena", "clinic"} {
		p := s.party(world)
		if p == nil {
			continue
		}
		text := fmt.Sprintf("url = \"%s/v1/avatars/%s/state\"\ncacert = %q\nheader = \"Authorization: Bearer %s\"\nwrite-out = \"  <- %s\\n\"\n",
			p.client.Base, s.sensors[0].mappings[world].Avatar, p.ca(), p.token, world)
		if err := os.WriteFile(s.curlFile(world), []byte(text), 0o600); err != nil {
			return fmt.Errorf("write curl's file: %w", err)
		}
	}
	return nil
}
