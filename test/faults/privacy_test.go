package faults_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/access"
	"carnet/api"
	"carnet/ledger"
	"carnet/node"
	"carnet/store/sqlite"
	"carnet/thing"
)

// store is every byte of every file below a directory, by name.
type store map[string][]byte

func readStore(t *testing.T, dir string) store {
	t.Helper()
	s := make(store)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		s[name], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// window is how long a shared run of bytes may not be.
const window = 8

// windows returns every run of 8 bytes of a store, sorted.
func (s store) windows() (all []uint64) {
	for _, b := range s {
		for i := 0; i+window <= len(b); i++ {
			all = append(all, binary.BigEndian.Uint64(b[i:]))
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func has(sorted []uint64, w uint64) bool {
	_, ok := slices.BinarySearch(sorted, w)
	return ok
}

// overlap is bytes that two stores share.
type overlap struct {
	file   string
	offset int
	bytes  []byte
}

// shared finds the runs of 8 bytes or more of s that other has, too. Bytes that
// are part of an allowed run, or of SQLite's own, are masked.
func (s store) shared(other, allowed []uint64) (runs []overlap) {
	for _, name := range slices.Sorted(maps.Keys(s)) {
		b := s[name]
		masked := structure(name, b)
		for i := 0; i+window <= len(b); i++ {
			if w := b[i : i+window]; plain(w) || has(allowed, binary.BigEndian.Uint64(w)) {
				for j := range window {
					masked[i+j] = true
				}
			}
		}
		for i := 0; i+window <= len(b); i++ {
			if slices.Contains(masked[i:i+window], true) || !has(other, binary.BigEndian.Uint64(b[i:])) {
				continue
			}
			if n := len(runs); n > 0 && runs[n-1].file == name && runs[n-1].offset+len(runs[n-1].bytes) > i {
				runs[n-1].bytes = b[runs[n-1].offset : i+window]
			} else {
				runs = append(runs, overlap{name, i, b[i : i+window]})
			}
		}
	}
	return runs
}

// plain says that a run has too little in it to tell anything: five or more of its
// eight bytes are zero, as in free space and small numbers; or four are 0 or 1, and the
// others the end of an id in hexadecimal, of which two ids in 65,536 have the same.
func plain(b []byte) bool {
	small, digits := 0, 0
	for _, c := range b {
		switch {
		case c <= 1:
			small++
		case '0' <= c && c <= '9' || 'a' <= c && c <= 'f':
			digits++
		}
	}
	return bytes.Count(b, []byte{0}) >= 5 || small >= 4 && small+digits == len(b) || isNow(b)
}

// isNow says that a run is a time of these hours, as frames have the time of their
// signature, in nanoseconds as CBOR has them: its first four bytes are every
// frame's of the same four seconds.
func isNow(b []byte) bool {
	at := bytes.IndexByte(b, 0x1b)
	if at < 0 || at+5 > len(b) {
		return false
	}
	seconds := int64(binary.BigEndian.Uint32(b[at+1:])) << 32 / 1e9
	return time.Since(time.Unix(seconds, 0)).Abs() < time.Hour
}

// sharesNothing searches the stores of each two worlds that don't share with each other
// for a shared run of 8 bytes: arena shares with citadel, and the clinic with nobody.
// Allowed is what the worlds of another town have as well, which shares no party,
// thing or key with this one (SQLite's structure, the schema, vocabulary, the
// recording's values), the depot's public identity, and receipts.
func sharesNothing(t *testing.T, dir, other string) {
	f, err := access.Read(filepath.Join(dir, "demo.json"))
	if err != nil {
		t.Fatal(err)
	}
	worlds := []string{"arena", "citadel", "clinic"}
	stores := make(map[string]store)
	var allowed []uint64
	allow := func(s store) { allowed = append(allowed, s.windows()...) }
	for _, world := range worlds {
		stores[world] = readStore(t, filepath.Join(dir, world, "data"))
		allow(readStore(t, filepath.Join(other, world, "data")))
	}
	for _, world := range worlds {
		allow(receipts(t, filepath.Join(dir, world)))
	}
	slices.Sort(allowed)
	allowed = slices.Compact(allowed)

	arena, clinic := stores["arena"], stores["clinic"]
	others := clinic.windows()
	for _, world := range []string{"arena", "citadel"} {
		runs := stores[world].shared(others, allowed)
		for i, r := range runs {
			if i == 20 {
				t.Errorf("and %d more", len(runs)-i)
				break
			}
			t.Errorf("%s and the clinic share %q (% x), in %s at %d", world, r.bytes, r.bytes, r.file, r.offset)
		}
		t.Logf("compared %d bytes of %s with %d; %d runs of %d bytes are allowed", stores[world].size(), world, clinic.size(), len(allowed), window)
	}
	// What is shared on purpose is found: batches that were copied.
	if runs := arena.shared(stores["citadel"].windows(), allowed); len(runs) == 0 {
		t.Error("arena and citadel have nothing in common, though batches were copied")
	}

	id := string(f.Things[0].ID)
	for _, secret := range []string{id, f.Things[0].Password} { // an owner's name is looked for by TestPlaintext
		for name, s := range stores {
			if at := s.find([]byte(secret)); at != "" {
				t.Errorf("%s has %q in %s", name, secret, at)
			}
		}
	}
	// The search finds what it is for.
	arena["state.db"] = append(arena["state.db"], id...)
	clinic["state.db-wal"] = append(clinic["state.db-wal"], id...)
	if runs := arena.shared(clinic.windows(), allowed); len(runs) == 0 || !bytes.Contains([]byte(id), runs[len(runs)-1].bytes) {
		t.Errorf("a thing's id planted in both stores isn't found: %v", runs)
	}
}

func (s store) size() (n int) {
	for _, b := range s {
		n += len(b)
	}
	return n
}

// find returns the first file that has secret.
func (s store) find(secret []byte) string {
	for _, name := range slices.Sorted(maps.Keys(s)) {
		if bytes.Contains(s[name], secret) {
			return name
		}
	}
	return ""
}

// receipts is the receipts of a world that hold under the depot's key: nothing but
// checkpoints, signatures and paths in its ledger.
func receipts(t *testing.T, dir string) store {
	t.Helper()
	config, err := node.ReadConfig(filepath.Join(dir, "carnet.toml"))
	if err != nil {
		t.Fatal(err)
	}
	inspection, err := node.Inspect(t.Context(), config, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := inspection.Close(); err != nil {
		t.Fatal(err)
	}
	key, err := ledger.ParseKey(inspection.Peers["vault"].Ledger)
	if err != nil {
		t.Fatal(err)
	}
	db, err := sqlite.Open(t.Context(), filepath.Join(dir, "data", "state.db"), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	world, err := db.Worlds(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	items, err := world.Statements(t.Context(), 0, 10_000)
	if err != nil || len(items) == 0 {
		t.Fatalf("%d statements, %v", len(items), err)
	}
	s := make(store)
	for _, item := range items {
		r, err := ledger.ParseReceipt(item.Receipt)
		if err != nil {
			t.Fatal(err)
		}
		if err := ledger.VerifyReceipt(key, item.Entry, r); err != nil {
			t.Fatal(err)
		}
		s[fmt.Sprint(item.ID)] = item.Receipt
	}
	return s
}

// TestPlaintext plants what nobody should find: a text, a number, an owner's name,
// passwords and tokens. No file of any party has them, whole stores and logs
// searched. In hub, whose thing it is, the thing's id is clear on purpose: rows are
// found by it. Nobody else has it.
func TestPlaintext(t *testing.T) {
	t.Parallel()
	const (
		text   = "Kestrel over Ravensbourne"
		number = 8675309.1357911131
		title  = "Grandfathers-wristwatch"
	)
	description := fmt.Sprintf(`{"@context": ["https://www.w3.org/2022/wot/td/v1.1", {"carnet": "urn:carnet:td#"}], "title": %q,
		"security": "nosec_sc", "securityDefinitions": {"nosec_sc": {"scheme": "nosec"}}, "properties": {
		"note": {"type": "string", "readOnly": true, "carnet:sensitivity": "personal", "forms": [{"href": "x"}]},
		"load": {"type": "number", "readOnly": true, "carnet:sensitivity": "personal", "forms": [{"href": "x"}]}}}`, title)
	v := newTown(t)
	added, err := v.hub.client.AddThing(t.Context(), api.NewThing{Owner: owner, Description: api.Description(description)})
	if err != nil {
		t.Fatal(err)
	}
	w := &watch{town: v, id: added.ID, password: added.Password, mappings: make(map[carnet.PartyID]thing.MappingInfo)}
	for world, purpose := range map[carnet.PartyID]string{"arena": "fitness", "clinic": "care"} {
		w.mappings[world] = w.mapTo(t.Context(), world, fmt.Sprintf(`{"properties": {"note": {}, "load": {}}, "purposes": [%q]}`, purpose))
	}
	now := time.Now().UnixNano()
	w.packs = [][]carnet.Measurement{{
		{Name: "note", Time: now, Value: carnet.String(text)}, {Name: "load", Time: now, Value: carnet.Float(number)},
	}, {{Name: "load", Time: now, Value: carnet.String(text)}}}
	w.acked = make([]bool, len(w.packs))
	w.send(0)
	if len(w.refusals) != 1 {
		t.Fatalf("refused: %v", w.refusals)
	}
	time.Sleep(3 * time.Second) // until worlds have compacted, too
	v.settle()
	for _, world := range v.worlds() {
		if ms, err := world.client.State(t.Context(), w.mappings[world.name].Avatar); err != nil || len(ms) != 2 {
			t.Errorf("%s has %v, %v", world.name, ms, err)
		}
	}
	for _, p := range v.parties() {
		p.kill(t) // so that what isn't in the files yet is in SQLite's logs
	}

	bits := math.Float64bits(number)
	for what, secret := range map[string]string{
		"the text": text, "the number in digits": "8675309.135", "the number": string(binary.BigEndian.AppendUint64(nil, bits)),
		"the number, little end first": string(binary.LittleEndian.AppendUint64(nil, bits)), "the owner's name": owner,
		"the thing's title": title, "the thing's password": added.Password, "the operator's token": v.hub.token,
		"the thing's id": string(added.ID),
	} {
		for _, p := range v.parties() {
			at := readStore(t, p.dir).find([]byte(secret))
			if strings.Contains(p.log.String(), secret) {
				at = "its log"
			}
			if clear := p == v.hub && what == "the thing's id"; (at != "") != clear {
				t.Errorf("%s in %s: %q", what, p.name, at)
			}
		}
	}
}
