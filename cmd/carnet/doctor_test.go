package main

import (
	"bytes"
	"testing"
	"time"

	"carnet"
)

func TestWhatADoctorSays(t *testing.T) {
	e := examined{Party: "arena", Examination: carnet.Examination{
		Examined: map[string]int{"moves": 2, "items": 0, "avatars": 7},
		Findings: []carnet.Finding{
			{Kind: "avatar", About: "a1", Wrong: true, Reason: "it keeps still", Fix: "please report it"},
			{Kind: "move", About: "x1", Since: time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC), Reason: "it is on its way\x1b[2J"},
		},
	}}
	var out bytes.Buffer
	if err := showExamination(streams{out: &out}, e); err != nil {
		t.Fatal(err)
	}
	want := "arena: 2 findings (avatars: 7, moves: 2)\n" +
		"  WRONG  avatar a1: it keeps still; please report it\n" +
		"  WAITS  move x1, since 2026-11-28T12:00:00Z: it is on its way"
	if got := out.String(); len(got) < len(want) || got[:len(want)] != want || bytes.ContainsRune(out.Bytes(), 0x1b) {
		t.Errorf("it says\n%s", got)
	}
}
