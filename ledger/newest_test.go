package ledger

import "testing"

// What a party shows is the largest checkpoint that it had or gets, of this ledger.
func TestOutboxKeepsTheNewestCheckpoint(t *testing.T) {
	d := &testDepot{t: t, signer: testSigner(t, "vault.example/ledger", 1), submitted: make(map[Entry]int)}
	signed := func(n int) []byte { return d.receipts(make([]Entry, n))[0].Checkpoint }
	for name, c := range map[string]struct{ had, got, want []byte }{
		"none":                         {nil, nil, nil},
		"from before":                  {signed(3), nil, signed(3)},
		"of another ledger":            {[]byte("elsewhere\n3\n"), nil, nil},
		"from before and larger":       {signed(5), signed(2), signed(5)},
		"from before, and a receipt's": {signed(2), signed(5), signed(5)},
		"a receipt's":                  {nil, signed(4), signed(4)},
	} {
		o, err := NewOutbox(OutboxConfig{Store: &memoryOutbox{}, Submitter: d, Key: d.signer.Key(), Newest: c.had})
		if err != nil {
			t.Fatal(err)
		}
		if c.got != nil {
			cp, err := ParseCheckpoint(d.signer.Key(), c.got)
			if err != nil {
				t.Fatal(err)
			}
			batch := []Item{{ID: 1, Entry: NewSalt()}}
			for range cp.Size - 1 {
				batch = append(batch, Item{Entry: NewSalt()})
			}
			d.answer = func(_ int, entries []Entry) ([]Receipt, error) { return d.receipts(entries), nil }
			if err := o.send(t.Context(), batch); err != nil {
				t.Fatal(err)
			}
			// The tree is of other entries: only its size is like the wanted one's.
			cp, err = ParseCheckpoint(d.signer.Key(), o.Newest())
			want, werr := ParseCheckpoint(d.signer.Key(), c.want)
			if err != nil || werr != nil || cp.Size != want.Size {
				t.Errorf("%s: %+v, %v; want %+v, %v", name, cp, err, want, werr)
			}
			continue
		}
		if have := o.Newest(); string(have) != string(c.want) {
			t.Errorf("%s: %q, want %q", name, have, c.want)
		}
	}
}
