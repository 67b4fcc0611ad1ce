package account

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"carnet"
)

// cheap is a hash with the least that a file may ask for.
func cheap(t *testing.T, password string) Password {
	t.Helper()
	p := Password{memory: leastMemory, passes: 1, lanes: 1, salt: [16]byte{1}}
	p.hash = p.of(password)
	return p
}

// accounts have one user, alice, whose password is right-password.
func accounts(t *testing.T, c Config) *Accounts {
	t.Helper()
	c.Users = filepath.Join(t.TempDir(), "users.json")
	c.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	if err := WriteUsers(c.Users, []User{{"alice", "owner", cheap(t, "right-password")}, {"bob", "operator", cheap(t, "other-password")}}); err != nil {
		t.Fatal(err)
	}
	a, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	a.dummy = cheap(t, "nobody's, and of no use") // as dear as the users'
	return a
}

func signIn(t *testing.T, a *Accounts, name, password string) (*Session, Secrets) {
	t.Helper()
	s, secrets, err := a.SignIn(t.Context(), name, password, "192.0.2.1")
	if err != nil {
		t.Fatal(err)
	}
	return s, secrets
}

func TestASessionNeedsBothSecrets(t *testing.T) {
	a := accounts(t, Config{})
	s, shown := signIn(t, a, "alice", "right-password")
	if s.Name() != "alice" || s.Role() != "owner" || len(shown.ID) < 43 || len(shown.Key) < 43 || shown.ID == shown.Key {
		t.Fatalf("signed in as %s, %s with %+v", s.Name(), s.Role(), shown)
	}
	if found, err := a.Session(shown); err != nil || found != s {
		t.Errorf("the session isn't found: %v", err)
	}
	_, other := signIn(t, a, "alice", "right-password")
	for _, wrong := range []Secrets{{}, {ID: shown.ID}, {Key: shown.Key}, {shown.Key, shown.ID}, {shown.ID, other.Key}, {shown.ID, shown.Key + "x"}} {
		if found, err := a.Session(wrong); found != nil || carnet.CodeOf(err) != carnet.Unauthenticated {
			t.Errorf("%+v is taken: %v", wrong, err)
		}
	}
	for id, kept := range a.sessions {
		if strings.Contains(fmt.Sprintf("%s %s", id[:], kept.key[:]), shown.ID) {
			t.Error("a secret is kept in the clear")
		}
	}
}

func TestSessionsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := accounts(t, Config{Idle: time.Minute, Lifetime: 3 * time.Minute, Sessions: 2})
		open := func(s Secrets) bool { _, err := a.Session(s); return err == nil }

		_, idle := signIn(t, a, "alice", "right-password")
		time.Sleep(59 * time.Second)
		if !open(idle) {
			t.Error("ended before it idled")
		}
		time.Sleep(61 * time.Second)
		if open(idle) {
			t.Error("open though it idled")
		}

		s, busy := signIn(t, a, "alice", "right-password")
		for range 5 {
			time.Sleep(30 * time.Second)
			if !open(busy) {
				t.Error("ended though it was used")
			}
		}
		time.Sleep(31 * time.Second)
		if open(busy) {
			t.Error("open longer than a session lasts")
		}
		if s.Done().Err() == nil {
			t.Error("what runs for an ended session isn't told")
		}

		_, first := signIn(t, a, "alice", "right-password")
		time.Sleep(time.Second)
		_, second := signIn(t, a, "alice", "right-password")
		_, others := signIn(t, a, "bob", "other-password")
		time.Sleep(time.Second)
		third, _ := signIn(t, a, "alice", "right-password")
		if open(first) || !open(second) || !open(others) {
			t.Error("a third session of two ends the oldest of that user, and no other")
		}
		a.SignOut(third)
		if third.Done().Err() == nil || !open(second) {
			t.Error("signing out ends that session, and no other")
		}
		a.SignOutEverywhere("alice")
		if open(second) || !open(others) {
			t.Error("signing out everywhere ends that user's sessions, and no others")
		}
	})
}

func TestAChangedRecordSignsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := accounts(t, Config{})
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = a.Run(ctx) })
		alice, _ := signIn(t, a, "alice", "right-password")
		bob, _ := signIn(t, a, "bob", "other-password")

		good, err := os.ReadFile(a.config.Users)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(a.config.Users, good[:len(good)/2], 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		if alice.Done().Err() != nil || bob.Done().Err() != nil {
			t.Error("half a file signs people out")
		}
		if _, err := Put(a.config.Users, User{"alice", "owner", cheap(t, "a new password")}); err == nil {
			t.Error("a user is put into half a file")
		}

		if err := os.WriteFile(a.config.Users, good, 0o600); err != nil {
			t.Fatal(err)
		}
		if replaced, err := Put(a.config.Users, User{"alice", "owner", cheap(t, "a new password")}); err != nil || !replaced {
			t.Fatal(replaced, err)
		}
		time.Sleep(250 * time.Millisecond)
		if alice.Done().Err() == nil || bob.Done().Err() != nil {
			t.Error("another password signs out whose it is, and nobody else")
		}
		if _, _, err := a.SignIn(t.Context(), "alice", "right-password", "::1"); err == nil {
			t.Error("the old password is taken")
		}
		signIn(t, a, "alice", "a new password")
		if err := Remove(a.config.Users, "bob"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(250 * time.Millisecond)
		if bob.Done().Err() == nil {
			t.Error("who is gone from the file is still signed in")
		}
		stop()
		running.Wait()
		if len(a.sessions) != 0 {
			t.Error("sessions outlive the console")
		}
	})
}

func TestGuessingGetsSlower(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := accounts(t, Config{})
		try := func(name, password, from string) error {
			_, _, err := a.SignIn(t.Context(), name, password, from)
			return err
		}
		for i := range freeOfOne {
			if err := try("alice", "a wrong password", "192.0.2.9"); carnet.CodeOf(err) != carnet.Unauthenticated || Wait(err) != 0 {
				t.Fatalf("failure %d: %v", i, err)
			}
		}
		err := try("alice", "right-password", "192.0.2.9")
		if carnet.CodeOf(err) != carnet.Unavailable || Wait(err) != firstWait {
			t.Errorf("the right password after too many wrong ones: %v, wait %s", err, Wait(err))
		}
		if err := try("alice", "right-password", "192.0.2.1"); err != nil {
			t.Errorf("from elsewhere: %v", err) // or else anybody could keep alice out
		}
		time.Sleep(firstWait)
		if err := try("alice", "a wrong password", "192.0.2.9"); carnet.CodeOf(err) != carnet.Unauthenticated {
			t.Errorf("after the wait: %v", err)
		}
		if err := try("alice", "a wrong password", "192.0.2.9"); Wait(err) != 2*firstWait {
			t.Errorf("the next wait is %s", Wait(err))
		}
		time.Sleep(2 * firstWait)
		if err := try("alice", "right-password", "192.0.2.9"); err != nil {
			t.Errorf("the right password after the wait: %v", err)
		}
		for range freeOfOne - 1 {
			if err := try("alice", "a wrong password", "192.0.2.9"); Wait(err) != 0 {
				t.Errorf("failures before a success still count: %v", err)
			}
		}

		// Of one address, whatever the names.
		for i := range freeOfAddress {
			_ = try(fmt.Sprint("user", i), "a wrong password", "192.0.2.77")
		}
		if err := try("alice", "right-password", "192.0.2.77"); Wait(err) == 0 {
			t.Errorf("an address that guessed names: %v", err)
		}
		time.Sleep(forgetAfter + mostWait)
		if err := try("alice", "right-password", "192.0.2.77"); err != nil {
			t.Errorf("it isn't forgotten: %v", err)
		}
	})
}

func TestManyAttemptsAtOnceAreNoMoreThanManyInARow(t *testing.T) {
	g := newGuesses()
	now := time.Now()
	admitted := 0
	for range 50 {
		if _, err := g.enter("alice", "192.0.2.1", now); err == nil {
			admitted++
		}
	}
	if admitted != freeOfOne {
		t.Errorf("%d of 50 attempts that aren't decided yet are admitted, want %d", admitted, freeOfOne)
	}
}

// Who signs in takes back the wait for their own attempt, and not the one that others'
// failures have brought meanwhile.
func TestAWaitIsTakenBackByItsOwnAttempt(t *testing.T) {
	for _, o := range []outcome{succeeded, undecided} {
		g, now := newGuesses(), time.Now()
		enter := func(name string) func(outcome) {
			t.Helper()
			leave, err := g.enter(name, "192.0.2.1", now)
			if err != nil {
				t.Fatal(err)
			}
			return leave
		}
		own := enter("bob")
		for i := range freeOfAddress - 1 {
			enter(fmt.Sprint("user", i))(failed)
		}
		own(o)
		if _, err := g.enter("alice", "192.0.2.1", now); Wait(err) != firstWait {
			t.Errorf("after %d failures and another's attempt, the next waits %s: %v", freeOfAddress-1, Wait(err), err)
		}
		now = now.Add(firstWait)
		enter("bob")(o) // it alone brings a wait, and takes it back
		enter("bob")(o)
	}
}

func TestGuessersAreBounded(t *testing.T) {
	g := newGuesses()
	now := time.Now()
	for i := range 3 * mostGuessers {
		if _, err := g.enter("alice", fmt.Sprint(i), now.Add(time.Duration(i))); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(g.all); n > mostGuessers {
		t.Errorf("%d records, more than %d", n, mostGuessers)
	}
}

// TestAnUnknownNameCostsTheSame counts hashes rather than time.
func TestAnUnknownNameCostsTheSame(t *testing.T) {
	a := accounts(t, Config{})
	_, _, unknown := a.SignIn(t.Context(), "nobody", "right-password", "192.0.2.3")
	_, _, wrong := a.SignIn(t.Context(), "alice", "wrong-password", "192.0.2.4")
	if unknown == nil || wrong == nil || unknown.Error() != wrong.Error() {
		t.Errorf("an unknown name says %v, a wrong password %v", unknown, wrong)
	}
	a.dummy = cheap(t, "right-password") // even what the dummy is made of lets nobody in
	if _, _, err := a.SignIn(t.Context(), "nobody", "right-password", "192.0.2.5"); err == nil {
		t.Error("nobody has signed in")
	}
	// Without a turn for hashing neither is answered.
	for range hashedAtOnce {
		a.hashing.working <- struct{}{}
	}
	for _, name := range []string{"nobody", "alice"} {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, _, err := a.SignIn(ctx, name, "wrong-password", "192.0.2.6"); err != context.Canceled {
			t.Errorf("%s is answered without a hash: %v", name, err)
		}
	}
}

func TestHashingIsBounded(t *testing.T) {
	h := newHashing()
	for range hashedAtOnce + hashingWaits {
		h.inside <- struct{}{}
	}
	if _, err := h.check(t.Context(), Password{}, "x"); Wait(err) == 0 || carnet.CodeOf(err) != carnet.Unavailable {
		t.Errorf("one more: %v", err)
	}
}

// An IPv6 network is one guesser, however many addresses it uses.
func TestGuessesFromOneNetwork(t *testing.T) {
	a := accounts(t, Config{})
	for i := range 2 * freeOfAddress {
		if _, _, err := a.SignIn(t.Context(), "alice", "a wrong password", fmt.Sprintf("2001:db8:1:2::%x", i)); Wait(err) != 0 {
			if i < freeOfOne {
				t.Errorf("attempt %d must wait", i)
			}
			return
		}
	}
	t.Error("nobody had to wait")
}
