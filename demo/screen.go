package demo

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"carnet"
	"carnet/thing"

	"golang.org/x/term"
)

// screen shows people what goes on. On a terminal it ends with live progress and, under
// it, the lines to paste. Its methods may be called concurrently.
type screen struct {
	to       io.Writer
	terminal bool
	size     func() (columns, rows int) // of the terminal; 0: not known
	begun    time.Time

	mu    sync.Mutex
	paste []string // stands under the progress
	drawn drawn    // on the terminal now
}

// drawn is what stands at the end of a terminal, and can be wiped.
type drawn struct {
	columns, rows int      // of the terminal then
	lines         []string // whole, the progress first
	progress      int      // how many of them are progress
	under         int      // rows of what stands under them
}

// as reports whether it takes the same room on the same terminal as another.
func (d drawn) as(other drawn) bool {
	return d.columns == other.columns && d.rows == other.rows && d.progress == other.progress && d.under == other.under
}

func newScreen(o Options) *screen {
	v := &screen{to: o.Progress, terminal: o.Terminal, size: func() (int, int) { return 0, 0 }}
	if f, ok := o.Progress.(*os.File); ok {
		v.size = func() (int, int) {
			columns, rows, err := term.GetSize(int(f.Fd()))
			if err != nil {
				return 0, 0
			}
			return columns, rows
		}
	}
	return v
}

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

// wipe takes away what is drawn. A terminal that has become narrower or wider since has
// broken its lines anew.
func (v *screen) wipe() {
	columns, up := 0, 0
	if len(v.drawn.lines) > 0 {
		columns, _ = v.size()
	}
	for _, line := range v.drawn.lines {
		up += rowsOf(line, columns)
	}
	if up > 0 {
		fmt.Fprintf(v.to, "\r\033[%dA\033[J", up)
	}
	v.drawn = drawn{}
}

// draw has the terminal end with the progress and the lines to paste. Where it is too
// low for both, these are printed once, above it.
func (v *screen) draw(progress []string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	var now drawn
	now.columns, now.rows = v.size()
	for _, line := range v.paste {
		now.under += rowsOf(line, now.columns)
	}
	if now.rows > 0 && len(v.paste) > 0 && max(len(progress), 1)+now.under >= now.rows {
		v.wipe()
		fmt.Fprintln(v.to, strings.Join(v.paste, "\n"))
		v.paste, now.under = nil, 0
	}
	if room := now.rows - 1 - now.under; now.rows > 0 && len(progress) > room {
		progress = progress[:max(room, 0)]
	}
	if now.progress = len(progress); now.progress+now.under == 0 {
		return
	}
	progress = fit(progress, now.columns)
	now.lines = slices.Concat(progress, v.paste)
	if now.as(v.drawn) { // what stands under them stays, and may be marked by whoever copies it
		v.drawn = now
		fmt.Fprintf(v.to, "\r\033[%dA", now.progress+now.under)
		for _, line := range progress {
			fmt.Fprintf(v.to, "\033[2K%s\n", line)
		}
		if now.under > 0 {
			fmt.Fprintf(v.to, "\033[%dB", now.under)
		}
		return
	}
	v.wipe()
	v.drawn = now
	fmt.Fprintln(v.to, strings.Join(now.lines, "\n"))
}

// rowsOf is how many rows a line takes.
func rowsOf(line string, columns int) int {
	if n := len([]rune(line)); columns > 0 && n > columns {
		return (n + columns - 1) / columns
	}
	return 1
}

// begin notes that playing begins; a terminal ends with the lines to paste from now on.
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
	v.say("playing %s%s; everything about this demo is in %s%s", number(s.total(), "message"), s.cut(), filepath.Join(s.dir, "demo.json"), removed)
	if v.terminal {
		v.say("%s", s.howToEnd(o))
		v.mu.Lock()
		v.paste = append([]string{""}, strings.Split(s.paste(), "\n")...)
		v.mu.Unlock()
		v.draw(nil)
	}
}

// cut says what is played where that isn't all that was recorded.
func (s *setup) cut() string {
	recorded, played := 0, 0
	for _, d := range s.devices {
		for _, r := range d.sensor.recordings {
			recorded += len(r.Measurements)
		}
		for _, p := range d.packs {
			played += len(p.measurements)
		}
	}
	if played == recorded {
		return ""
	}
	return fmt.Sprintf(", with %d of the %s that were recorded, the last (--for plays longer, --speed max all)", played, number(recorded, "measurement"))
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
		if ctx.Err() != nil { // its questions were cut off: the answers say nothing of the parties
			return
		}
		if v.terminal {
			v.draw(lines)
			continue
		}
		v.say("%s", strings.Join(lines, "\n"))
	}
}

// fit cuts lines to the terminal's width: of one that wraps only a part would be written over.
func fit(lines []string, columns int) []string {
	if columns == 0 {
		return lines
	}
	for i, line := range lines {
		if r := []rune(line); len(r) > columns {
			lines[i] = string(r[:columns-1]) + "…"
		}
	}
	return lines
}

func (v *screen) progress(ctx context.Context, s *setup) []string {
	d, took := s.sent(), time.Since(v.begun)
	lines := []string{fmt.Sprintf("%6.1fs  devices → hub   %d of %d messages acknowledged, %d refused, %s",
		took.Seconds(), d.Acknowledged, s.total(), d.Refused, perSecond(float64(d.Measurements)/took.Seconds()))}
	lines = append(lines, s.refusedOthers(ctx)...)
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
			now := "now " + shown(state, info.Withdrawn)
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

// perSecond says how many measurements come in a second: where they are few, with a decimal.
func perSecond(rate float64) string {
	text := strconv.FormatFloat(rate, 'f', map[bool]int{true: 1, false: 0}[rate < 9.95], 64)
	if text == "1.0" {
		return "1 measurement/s"
	}
	return text + " measurements/s"
}

// oldAfter is how much older than the newest value of an avatar one is that is said to be.
const oldAfter = time.Minute

// shown is an avatar's state in a line: what is given now, and then whose last value it
// keeps.
func shown(state []carnet.Measurement, withdrawn []string) string {
	var parts []string
	newest := int64(math.MinInt64)
	for _, m := range state {
		newest = max(newest, m.Time)
	}
	for _, m := range state {
		if slices.Contains(withdrawn, m.Name) {
			continue
		}
		part := fmt.Sprintf("%s %.6g", m.Name, m.Value.Num)
		switch m.Unit {
		case "", "1":
		case "lat", "lon":
			part += "°"
		default:
			part += " " + m.Unit
		}
		if old := time.Duration(newest - m.Time); old > oldAfter {
			n, unit := int(old/time.Minute), "min"
			if old >= 2*time.Hour {
				n, unit = int(old/time.Hour), "h"
			}
			part += fmt.Sprintf(" (%d %s before)", n, unit)
		}
		parts = append(parts, part)
	}
	if len(parts) == 0 {
		parts = []string{"nothing yet"}
		if len(withdrawn) > 0 {
			parts[0] = "nothing"
		}
	}
	if len(withdrawn) > 0 {
		parts = append(parts, "no longer given: "+strings.Join(withdrawn, " and "))
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
		"Read what arena and clinic have now (the watch goes on sending):",
		"  curl -sSK arena.curl; curl -sSK clinic.curl",
		"Change what arena gets, and so what it shares (heart rate to the nearest 20; its speed stays the last one it got), and see above:",
		fmt.Sprintf("  echo '{\"properties\":{\"heart_rate\":{\"round\":20}},\"purposes\":[\"fitness\"]}' | %s thing view set %s/arena --file -", program, w.id),
		"Prove what arena was sent, as often as you like:",
		fmt.Sprintf("  D=$(mktemp -d proof-XXXX) && %s avatar evidence %s --out $D && %s verify $D", program, w.mappings["arena"].Avatar, program),
	}
}

// howToEnd says how a demo that stays ends, and what is left of it.
func (s *setup) howToEnd(o Options) string {
	end := "Ctrl-C ends it, and checks what each world holds"
	if !o.Stay {
		end = fmt.Sprintf("It ends by itself after %s, or with Ctrl-C, and checks what each world holds", o.For)
	}
	if o.temporary() {
		return end + "; then the directory is removed (--keep keeps it)."
	}
	return end + "; the directory stays."
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
