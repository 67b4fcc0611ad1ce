package node

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"carnet"
	"carnet/depot"
	"carnet/store/postgres"
	"carnet/store/sqlite"
)

// breakable is a database that fails when a test says so.
type breakable struct {
	failed chan struct{}
	why    error
}

func (b *breakable) Failed() <-chan struct{} { return b.failed }
func (b *breakable) Failure() error          { return b.why }

// Whichever database can't make changes durable any more, the watch ends with it,
// and the process with 74.
func TestWatchEndsWithTheFirstFailure(t *testing.T) {
	for which := range 2 {
		dbs := []*breakable{{failed: make(chan struct{})}, {failed: make(chan struct{})}}
		s := &stores{dbs: []database{dbs[0], dbs[1]}}
		ended := make(chan error, 1)
		go func() { ended <- s.watch(t.Context()) }()
		dbs[which].why = fmt.Errorf("commit: %w", sqlite.ErrDurability)
		close(dbs[which].failed)
		if err := <-ended; !Durability(err) {
			t.Errorf("database %d fails: the watch ends with %v", which, err)
		}
	}
}

func TestWatchEndsWithItsContext(t *testing.T) {
	s := &stores{dbs: []database{&breakable{failed: make(chan struct{})}}}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.watch(ctx); err != nil {
		t.Errorf("the watch ends with %v", err)
	}
}

func TestDurability(t *testing.T) {
	for _, err := range []error{sqlite.ErrDurability, postgres.ErrDurability, depot.ErrFsync} {
		if !Durability(fmt.Errorf("store frames: %w", err)) {
			t.Errorf("%v doesn't end the process with 74", err)
		}
	}
	for _, err := range []error{nil, errors.New("closed"), context.Canceled, carnet.Errorf(carnet.NoSpace, "the disk is full")} {
		if Durability(err) {
			t.Errorf("%v ends the process with 74", err)
		}
	}
}

// A second process would write that it has taken over from the first, which goes on.
func TestOneProcessHasAParty(t *testing.T) {
	dir := t.TempDir()
	alone, err := claimData(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := claimData(dir); carnet.CodeOf(err) != carnet.Conflict {
		t.Errorf("a second process: %v", err)
	}
	if err := alone.Release(); err != nil {
		t.Fatal(err)
	}
	if alone, err = claimData(dir); err != nil {
		t.Fatalf("after the first has ended: %v", err)
	}
	if err := alone.Release(); err != nil {
		t.Fatal(err)
	}
}
