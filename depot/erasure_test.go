package depot

import (
	"context"
	"crypto/ed25519"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"carnet"
	"carnet/bodies"
	"carnet/identity"
	"carnet/ledger"
)

func TestADeletionIsSignedOnceTheObjectsAreGone(t *testing.T) {
	ctx := t.Context()
	key := ed25519.NewKeyFromSeed(append(make([]byte, 31), 9))
	var stated []ledger.Statement
	a := objectsOnly(t, t.TempDir(), newStore(), bodies.Disk{})
	a.cfg.Key, a.cfg.Backups = key, time.Hour
	a.cfg.State = func(_ context.Context, s ledger.Statement) error { stated = append(stated, s); return nil }
	one, both, kept := put(t, a, "arena", "one"), put(t, a, "arena", "both"), put(t, a, "arena", "kept")
	put(t, a, "clinic", "both")
	q := Erasing{Erasure: carnet.ErasureID{4}, Order: carnet.Fingerprint{5}, Objects: []carnet.Fingerprint{one, both, {6}}}
	for range 2 { // asked again it is signed again
		token, err := a.Erase(ctx, "arena", q)
		if err != nil {
			t.Fatal(err)
		}
		d, err := identity.OpenDeletion(token)
		if err != nil || d.Erasure != q.Erasure || d.Order != q.Order || d.By != identity.DID(key.Public().(ed25519.PublicKey)) || d.Objects != 3 ||
			d.Role != identity.DeletedAtDepot || d.Unrecoverable.Sub(d.Unreadable) != time.Hour {
			t.Fatalf("signed %+v, %v", d, err)
		}
		if s := stated[len(stated)-1]; s.Kind != ledger.Erased || s.Object != carnet.FingerprintOf([]byte(token)) || s.Peer != "arena" {
			t.Errorf("stated %+v", s)
		}
	}
	for _, f := range []carnet.Fingerprint{one, both} {
		if _, _, err := a.Get(ctx, "arena", f); carnet.CodeOf(err) != carnet.NotFound {
			t.Errorf("%s is still there: %v", f, err)
		}
	}
	if _, _, err := a.Get(ctx, "arena", kept); err != nil {
		t.Errorf("what wasn't named is gone: %v", err)
	}
	if _, _, err := a.Get(ctx, "clinic", both); err != nil {
		t.Errorf("another's object is gone: %v", err)
	}
	if _, err := a.Erase(ctx, "arena", Erasing{Objects: make([]carnet.Fingerprint, MaxErasing+1)}); carnet.CodeOf(err) != carnet.TooLarge {
		t.Errorf("too many at once: %v", err)
	}
	a.cfg.State = func(context.Context, ledger.Statement) error { return carnet.Errorf(carnet.NoSpace, "full") }
	if _, err := a.Erase(ctx, "arena", q); carnet.CodeOf(err) != carnet.NoSpace {
		t.Errorf("a deletion that isn't stated: %v", err)
	}
}

// No deletion is signed while the bytes are on the disk: where the row was gone and they
// couldn't be erased, and where they came and no row could be stored.
func TestNoDeletionIsSignedWhileTheBytesAreThere(t *testing.T) {
	disk := new(faultyDisk)
	store := newStore()
	a := objectsOnly(t, t.TempDir(), store, disk)
	a.cfg.Key = ed25519.NewKeyFromSeed(append(make([]byte, 31), 9))
	there := func(f carnet.Fingerprint) bool {
		_, err := os.Stat(a.bodies.File(f))
		return err == nil
	}
	erase := func(f carnet.Fingerprint) error {
		_, err := a.Erase(t.Context(), "arena", Erasing{Erasure: carnet.ErasureID{4}, Objects: []carnet.Fingerprint{f}})
		return err
	}

	one := put(t, a, "arena", "one")
	for _, op := range []string{"overwrite", "remove"} {
		disk.set(op, syscall.EMFILE)
		for range 2 {
			if err := erase(one); err == nil || !there(one) {
				t.Errorf("%s fails: signed although the bytes are there: %v", op, err)
			}
		}
	}
	disk.set("", nil)
	if err := erase(one); err != nil || there(one) {
		t.Errorf("erased again: the bytes are there: %v, error %v", there(one), err)
	}

	two := carnet.FingerprintOf([]byte("two"))
	store.fail = context.Canceled
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.Put(ctx, "arena", two, carnet.Month, strings.NewReader("two")); err == nil || there(two) {
		t.Errorf("the bytes stay without a row, error %v", err)
	}
	store.fail = context.Canceled
	disk.set("overwrite", syscall.EMFILE)
	if err := a.Put(ctx, "arena", two, carnet.Month, strings.NewReader("two")); err == nil || !there(two) {
		t.Fatalf("the disk takes no overwriting and the bytes went, error %v", err)
	}
	disk.set("", nil)
	if err := erase(two); err != nil || there(two) {
		t.Errorf("signed while the bytes are there, error %v", err)
	}

	both := put(t, a, "clinic", "both")
	if err := erase(both); err != nil || !there(both) {
		t.Errorf("another's bytes are gone, error %v", err)
	}
}
