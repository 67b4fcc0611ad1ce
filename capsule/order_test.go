package capsule

import (
	"crypto/ed25519"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"carnet"
)

// An order names a policy once for each avatar that it has an input of, with its version;
// anything else is neither signed nor read.
func TestAnOrderNamesPoliciesOfItsInputs(t *testing.T) {
	made := time.Now().UTC().Truncate(time.Second)
	content := Content{Fingerprint: carnet.FingerprintOf([]byte("program")), Size: 7}
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	for name, c := range map[string]struct {
		policies []Policy
		why      string
	}{
		"none":               {},
		"of one of them":     {policies: []Policy{{"a2", 7}}},
		"of both":            {policies: []Policy{{"a1", 1}, {"a2", 7}}},
		"of another avatar":  {[]Policy{{"a3", 1}}, "no input"},
		"of no version":      {[]Policy{{"a1", 0}}, "without a version"},
		"of two versions":    {[]Policy{{"a1", 1}, {"a2", 1}, {"a1", 2}}, "two policies"},
		"twice the same one": {[]Policy{{"a1", 1}, {"a1", 1}}, "two policies"},
	} {
		o := Order{
			Job: carnet.NewJobID(), By: "arena", For: "arena", Purpose: "fitness", Policies: c.policies, Made: made, Until: made.Add(time.Minute),
			Task: Task{
				Engine: "sql", Program: content, To: 1, Limits: Limits{Memory: 64 << 20, Milliseconds: 1000, Output: 1 << 20, Parts: 8},
				Inputs: []Input{{Content: content, Avatar: "a1", Batches: 1}, {Content: content, Avatar: "a2", Batches: 1}},
			},
		}
		signed, err := o.Sign(key)
		if (err == nil) != (c.why == "") || err != nil && !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s: signed, %v; want %q", name, err, c.why)
		}
		if err != nil {
			continue
		}
		read, err := OpenOrder(signed, key.Public().(ed25519.PublicKey))
		want, _ := json.Marshal(o)
		if got, _ := json.Marshal(read); err != nil || string(got) != string(want) {
			t.Errorf("%s: it is read as %s, %v; want %s", name, got, err, want)
		}
	}
}
