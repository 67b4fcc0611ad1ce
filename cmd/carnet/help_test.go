package main

import "testing"

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
	for _, command := range [][]string{nil, {"thing"}, {"thing", "add"}, {"verify"}, {"demo"}} {
		got, want := u.try("", append([]string{"help"}, command...)...), u.try("", append(command, "--help")...)
		if got.code != 0 || got != want || got.out == "" {
			t.Errorf("carnet help %q: %+v, want %+v", command, got, want)
		}
	}
}
