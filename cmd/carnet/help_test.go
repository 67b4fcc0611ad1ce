package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// TestHelpInEveryForm: help is a command, a flag, and what nothing at all means; the
// version is a command and a flag.
func TestHelpInEveryForm(t *testing.T) {
	for _, row := range []struct {
		args, as []string
	}{
		{nil, []string{"help"}},
		{[]string{"--version"}, []string{"version"}},
		{[]string{"--version", "--json"}, []string{"version", "--json"}},
	} {
		got, want := inside(t, row.args...), inside(t, row.as...)
		if got.code != 0 || got != want || got.out == "" || got.err != "" {
			t.Errorf("carnet %q: %+v, want %+v", row.args, got, want)
		}
	}
	u := newUser(t) // --help ends the process
	for _, command := range [][]string{nil, {"thing"}, {"thing", "add"}, {"verify"}, {"demo"}, {"dpm"}, {"owner", "approve"}, {"console", "user"}} {
		got, want := u.try("", append([]string{"help"}, command...)...), u.try("", append(command, "--help")...)
		if got.code != 0 || got != want || got.out == "" {
			t.Errorf("carnet help %q: %+v, want %+v", command, got, want)
		}
	}
}

// TestTheTableHasEveryCommand holds the table of docs/design/cli.md against the commands.
func TestTheTableHasEveryCommand(t *testing.T) {
	text, err := os.ReadFile("../../docs/design/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	told, quoted := make(map[string]bool), regexp.MustCompile("`([a-z]+(?:[ -][a-z]+)*)[^`]*`")
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, "|")
		if len(cells) < 4 {
			continue
		}
		group := ""
		for _, m := range quoted.FindAllStringSubmatch(cells[1], -1) {
			words := strings.Fields(m[1])
			if told[strings.Join(words, " ")] = true; len(words) > 1 {
				group = strings.Join(words[:len(words)-1], " ") // list, show: of the same
			}
			told[strings.TrimSpace(group+" "+words[len(words)-1])] = true
		}
	}
	var c commands
	parser, err := kong.New(&c, kong.ExplicitGroups(groups))
	if err != nil {
		t.Fatal(err)
	}
	for _, leaf := range parser.Model.Leaves(true) {
		path := func(n *kong.Node) (words string) {
			for ; n != nil && n.Type == kong.CommandNode; n = n.Parent {
				words = strings.TrimSpace(n.Name + " " + words)
			}
			return words
		}
		meant := leaf.Parent.DefaultCmd == leaf && told[path(leaf.Parent)] // without its own name
		if !told[path(leaf)] && !meant {
			t.Errorf("the table of cli.md lacks %q", path(leaf))
		}
	}
}

// TestCommandsOfThePagesAreCommands reads the commands that pages show indented: each is one,
// with flags that there are.
func TestCommandsOfThePagesAreCommands(t *testing.T) {
	shown := regexp.MustCompile(`(?m)^    (?:\w+\$ +)?carnet ([^#\n]*)`)
	for page, least := range map[string]int{"../../docs/operations/parties.md": 9, "../../docs/design/cli.md": 40} {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		all := shown.FindAllStringSubmatch(string(text), -1)
		if len(all) < least {
			t.Errorf("%s has %d commands", page, len(all))
		}
		for _, m := range all {
			args := regexp.MustCompile(`"[^"]*"|\S+`).FindAllString(strings.Replace(m[1], "AVATAR", strings.Repeat("0", 32), 1), -1)
			var c commands
			parser, err := kong.New(&c, kong.ExplicitGroups(groups))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := parser.Parse(args); err != nil && !strings.Contains(err.Error(), "no such file") {
				t.Errorf("%s: carnet %s: %v", page, m[1], err)
			}
		}
	}
}
