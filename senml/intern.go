package senml

// interner gives one string for equal bytes, so that a name that comes a
// million times is allocated once. What it holds is bounded: a sender that
// makes up names costs allocations, not memory.
type interner struct {
	recent [64]string // by hash; a hit costs one comparison
	all    map[string]string
}

// internMax bounds the strings an interner holds; at the bound it starts anew.
const internMax = 2048

// find returns the string equal to b if it is held.
func (t *interner) find(b []byte) (string, bool) {
	if len(b) == 0 {
		return "", true
	}
	slot := &t.recent[internHash(b)]
	if *slot == string(b) {
		return *slot, true
	}
	s, ok := t.all[string(b)]
	if ok {
		*slot = s
	}
	return s, ok
}

// add holds a new string.
func (t *interner) add(b []byte) string {
	if t.all == nil {
		t.all = make(map[string]string)
	} else if len(t.all) >= internMax {
		clear(t.all)
	}
	s := string(b)
	t.all[s] = s
	t.recent[internHash(b)] = s
	return s
}

// internHash mixes the length and three bytes: names of one device differ there.
func internHash(b []byte) int {
	n := len(b)
	return (n*7 + int(b[0])*3 + int(b[n/2])*5 + int(b[n-1])) & 63
}
