package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"carnet/td"
)

// TestMachinesOfTheirOwn plays what docs/design/cli.md says of parties on machines of
// their own, line by line: each machine is a directory, and an address instead of a
// name. What is sent is copied, and who is told the words is told the other side's.
func TestMachinesOfTheirOwn(t *testing.T) {
	text, err := os.ReadFile("../../docs/design/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	lines := regexp.MustCompile(`(?m)^    (\w+)\$ +carnet (.*)$|^    (\w+)\$ +cd (\w+)$`).FindAllStringSubmatch(string(text), -1)
	if len(lines) < 30 {
		t.Fatalf("there are %d lines", len(lines))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	t.Cleanup(cancel)
	o := operators{t: t, machines: make(map[string]user), told: make(map[string]string)}
	for i, name := range []string{"hub", "arena", "vault"} {
		o.machines[name] = user{t, ctx, t.TempDir()}
		o.addresses = append(o.addresses, name+".example.org", fmt.Sprintf("127.0.0.%d", i+2))
	}
	for _, line := range lines {
		if at, dir := line[3], line[4]; at != "" {
			u := o.machines[at]
			u.dir = filepath.Join(u.dir, dir)
			o.machines[at] = u
			continue
		}
		command, comment, _ := strings.Cut(line[2], " # ")
		o.does(line[1], strings.TrimSpace(command), strings.TrimSpace(comment))
	}
}

// operators are who does what the page says.
type operators struct {
	t         *testing.T
	machines  map[string]user
	addresses []string          // a name, its address, and so on
	last      string            // who read out words that the other side hasn't answered
	words     string            // those
	told      map[string]string // by machine: the other side's
}

var listeners = map[string][]string{"things": {"http", "mqtt"}, "world": {"http", "link"}, "depot": {"http", "r2"}}

func (o *operators) does(at, command, comment string) {
	o.t.Helper()
	u := o.machines[at]
	var args []string
	for _, arg := range regexp.MustCompile(`"[^"]*"|\S+`).FindAllString(strings.NewReplacer(o.addresses...).Replace(command), -1) {
		args = append(args, strings.Trim(arg, `"`))
	}
	switch {
	case args[0] == "party": // on ports that are free
		host := args[slices.Index(args, "--host")+1]
		for _, l := range listeners[args[3]] {
			args = append(args, "--listen-"+l+"="+elsewhere(o.t, host, address(o.t)))
		}
	case comment == "runs on":
		u.serves(args...)
		return
	case args[1] == "accept" && args[len(args)-2] == "--words":
		args[len(args)-1] = o.told[at]
	case args[0] == "thing" && args[1] == "add":
		u.write("watch.td.json", string(td.Watch()))
		u.write("view.json", `{"properties":{"heart_rate":{}},"purposes":["fitness"]}`)
	}
	out := u.does(args...)
	if to, ok := strings.CutPrefix(comment, "send it to "); ok {
		data, err := os.ReadFile(filepath.Join(u.dir, args[len(args)-1]))
		if err != nil {
			o.t.Fatal(err)
		}
		o.machines[to].write(args[len(args)-1], string(data))
	}
	switch {
	case comment == "read out the words":
		o.readOut(at, u, args, out)
	case args[0] == "peer" && args[1] == "list":
		for strings.Count(out, " active ") != 2 && u.ctx.Err() == nil { // the confirmations come
			time.Sleep(50 * time.Millisecond)
			out = u.does(args...)
		}
	case args[0] == "avatar" && strings.Count(out, "\n") != 2:
		o.t.Errorf("arena has\n%s", out)
	}
}

var spoken = regexp.MustCompile(`words +((?:[A-Z2-7]{4} ?){6})`)

// readOut shows the words once they are there, and tells them to the other side.
func (o *operators) readOut(at string, u user, args []string, out string) {
	o.t.Helper()
	for !spoken.MatchString(out) && u.ctx.Err() == nil {
		time.Sleep(50 * time.Millisecond)
		out = u.does(args...)
	}
	words := strings.TrimSpace(spoken.FindStringSubmatch(out)[1])
	if o.last == "" {
		o.last, o.words = at, words
		return
	}
	o.told[at], o.told[o.last] = o.words, words
	o.last = ""
}

// serves runs a party until it serves.
func (u user) serves(args ...string) {
	u.t.Helper()
	p := u.starts(args...)
	p.says(p.err, "party runs")
}
