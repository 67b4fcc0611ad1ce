package main

import (
	"testing"
	"time"

	"carnet"
	"carnet/activity"
)

// Of several parties the newest records are shown, oldest first, and no place to go on: that
// is one party's.
func TestTheNewestOfSeveralParties(t *testing.T) {
	found := recorded{Next: 7, Stopped: 3}
	for i, party := range []carnet.PartyID{"hub", "hub", "hub", "arena", "arena"} {
		found.Records = append(found.Records, recordOf{party, activity.Record{ID: uint64(i), Time: time.Unix(int64(i%3), 0)}})
	}
	got := newest(found, 3) // of the seconds 0, 1, 2 and 0, 1
	if len(got.Records) != 3 || got.Next != 0 || got.Stopped != 0 {
		t.Fatalf("it is %+v", got)
	}
	for i, want := range []uint64{1, 4, 2} {
		if got.Records[i].ID != want {
			t.Errorf("record %d is %+v, want number %d", i, got.Records[i], want)
		}
	}
}
