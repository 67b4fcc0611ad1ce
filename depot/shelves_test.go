package depot

import (
	"crypto/ed25519"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/bodies"
	"carnet/shelf"
)

// someone is a party with the key that it shows its peers.
type someone struct {
	name carnet.PartyID
	key  ed25519.PrivateKey
	*Client
}

func (s someone) did() string { return shelf.Name(s.key.Public().(ed25519.PublicKey)) }

// town is what a depot knows of its peers.
type town map[carnet.PartyID]someone

func (t town) Caller(r *http.Request) (Party, error) {
	name, err := testCaller(r)
	return Party{name, t[name].did()}, err
}

func (t town) Named(did string) (carnet.PartyID, error) {
	for name, who := range t {
		if who.did() == did {
			return name, nil
		}
	}
	return "", carnet.Errorf(carnet.NotFound, "nobody shows that key")
}

func newTown(t *testing.T) (all town, handler http.Handler) {
	a, _ := start(t, testConfig(t, t.TempDir(), newStore()), bodies.Disk{})
	all = make(town)
	served := http.NewServeMux()
	served.Handle("/", a.Handler(testCaller))
	for _, pattern := range ShelfPatterns() {
		served.Handle(pattern, a.ShelfHandler(all))
	}
	s := httptest.NewTLSServer(served)
	t.Cleanup(s.Close)
	for _, name := range []carnet.PartyID{"arena", "citadel", "clinic"} {
		_, key, _ := ed25519.GenerateKey(nil)
		all[name] = someone{name, key, &Client{Base: s.URL, HTTP: &http.Client{Transport: as{name, s.Client().Transport}}}}
	}
	return all, served
}

// put stores an object of a giver's.
func (s someone) put(t *testing.T, body string, last uint64) shelf.Object {
	t.Helper()
	f, err := s.PutObject(t.Context(), []byte(body), carnet.Day)
	if err != nil {
		t.Fatal(err)
	}
	return shelf.Object{Fingerprint: f, Last: last}
}

func (s someone) index(t *testing.T, taker string, serial uint64, until time.Time, objects ...shelf.Object) shelf.Signed {
	t.Helper()
	now := time.Now().Unix()
	signed, err := shelf.Sign(s.key, shelf.Index{Taker: taker, Incarnation: 4, Serial: serial, First: 18, Time: min(now, until.Unix()-1), Until: until.Unix()}, objects)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func wants(t *testing.T, what string, err error, code carnet.Code) {
	t.Helper()
	if carnet.CodeOf(err) != code || code == "" && err != nil {
		t.Errorf("%s: %v, want %q", what, err, code)
	}
}

// A shelf is the taker's that it names, and what it names is all that is read of it.
func TestAShelfIsForItsTaker(t *testing.T) {
	all, _ := newTown(t)
	ctx, arena, citadel, clinic := t.Context(), all["arena"], all["citadel"], all["clinic"]
	one, other := arena.put(t, "one", 19), arena.put(t, "not on it", 20)
	later := time.Now().Add(time.Hour)
	signed := arena.index(t, citadel.did(), 1, later, one)
	wants(t, "put", arena.PutShelf(ctx, citadel.did(), signed), "")
	for _, by := range []someone{citadel} {
		got, err := by.Shelf(ctx, arena.did())
		if err != nil || got.Index != signed.Index || len(got.Objects) != 1 || got.Objects[0] != one {
			t.Errorf("%s reads %+v, %v", by.name, got, err)
		}
		body, err := by.Shelved(ctx, arena.did(), one.Fingerprint)
		if string(body) != "one" || err != nil {
			t.Errorf("%s reads %q, %v", by.name, body, err)
		}
	}
	_, err := clinic.Shelf(ctx, arena.did())
	wants(t, "another taker", err, carnet.NotFound)
	_, err = clinic.Shelved(ctx, arena.did(), one.Fingerprint)
	wants(t, "another taker's object", err, carnet.NotFound)
	_, err = clinic.OwnShelf(ctx, citadel.did())
	wants(t, "another giver", err, carnet.NotFound)
	wants(t, "another's deletion", clinic.DeleteShelf(ctx, citadel.did()), carnet.NotFound)
	_, err = citadel.Shelved(ctx, arena.did(), other.Fingerprint)
	wants(t, "an object that isn't on it", err, carnet.NotFound)
	_, err = citadel.GetObject(ctx, one.Fingerprint)
	wants(t, "the object itself", err, carnet.NotFound)
	_, err = citadel.Shelf(ctx, "nobody")
	wants(t, "of nobody", err, carnet.NotFound)
	wants(t, "delete", arena.DeleteShelf(ctx, citadel.did()), "")
	_, err = citadel.Shelf(ctx, arena.did())
	wants(t, "read after the end", err, carnet.NotFound)
	_, err = citadel.Shelved(ctx, arena.did(), one.Fingerprint)
	wants(t, "an object after the end", err, carnet.NotFound)
	if _, err := arena.GetObject(ctx, one.Fingerprint); err != nil {
		t.Errorf("the giver's object: %v", err)
	}
}

// A depot takes a giver's own next index for objects that are there, and no other.
func TestAShelfIsTheGiversNext(t *testing.T) {
	all, _ := newTown(t)
	ctx, arena, citadel, clinic := t.Context(), all["arena"], all["citadel"], all["clinic"]
	one, two := arena.put(t, "one", 19), arena.put(t, "two", 25)
	later, to := time.Now().Add(time.Hour), citadel.did()
	wants(t, "another's signature", arena.PutShelf(ctx, to, clinic.index(t, to, 1, later, one)), carnet.Malformed)
	wants(t, "for another taker", arena.PutShelf(ctx, clinic.did(), arena.index(t, to, 1, later, one)), carnet.Forbidden)
	swapped := arena.index(t, to, 1, later, one)
	swapped.Objects = []shelf.Object{{Fingerprint: two.Fingerprint, Last: 19}}
	wants(t, "another list than was signed", arena.PutShelf(ctx, to, swapped), carnet.Tampered)
	wants(t, "an object that isn't there", arena.PutShelf(ctx, to, arena.index(t, to, 1, later, shelf.Object{Fingerprint: carnet.FingerprintOf(nil), Last: 19})), carnet.NotFound)
	wants(t, "another's object", clinic.PutShelf(ctx, to, clinic.index(t, to, 1, later, one)), carnet.NotFound)
	wants(t, "over", arena.PutShelf(ctx, to, arena.index(t, to, 1, time.Now(), one)), carnet.Malformed)
	second := arena.index(t, to, 2, later, one, two)
	wants(t, "the second", arena.PutShelf(ctx, to, second), "")
	wants(t, "the second again", arena.PutShelf(ctx, to, second), "")
	wants(t, "the first, late", arena.PutShelf(ctx, to, arena.index(t, to, 1, later, one)), carnet.Conflict)
	wants(t, "another second", arena.PutShelf(ctx, to, arena.index(t, to, 2, later, one)), carnet.Conflict)
	wants(t, "junk", arena.PutShelf(ctx, to, shelf.Signed{Index: strings.Repeat("x", 99)}), carnet.Malformed)
	if own, err := arena.OwnShelf(ctx, to); err != nil || own.Index != second.Index {
		t.Errorf("%+v, %v", own, err)
	}
	// One that is put late, after its objects are gone, is refused.
	wants(t, "delete", arena.DeleteShelf(ctx, to), "")
	wants(t, "delete an object", arena.DeleteObject(ctx, one.Fingerprint), "")
	wants(t, "late", arena.PutShelf(ctx, to, arena.index(t, to, 3, later, one, two)), carnet.NotFound)
}

// Nobody reads a shelf from its end on.
func TestAShelfEnds(t *testing.T) {
	all, _ := newTown(t)
	ctx, arena, citadel := t.Context(), all["arena"], all["citadel"]
	one := arena.put(t, "one", 19)
	end := time.Now().Add(2 * time.Second).Truncate(time.Second)
	wants(t, "put", arena.PutShelf(ctx, citadel.did(), arena.index(t, citadel.did(), 1, end, one)), "")
	time.Sleep(time.Until(end))
	_, err := citadel.Shelf(ctx, arena.did())
	wants(t, "after its end", err, carnet.NotFound)
	_, err = citadel.Shelved(ctx, arena.did(), one.Fingerprint)
	wants(t, "an object after its end", err, carnet.NotFound)
}
