package api

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/entity"
	"carnet/policy"
	"carnet/porter"
)

// slow is a world whose history is there when it is told so.
type slow struct {
	world
	asked  chan struct{}
	answer chan struct{}
}

func (w slow) History(context.Context, carnet.AvatarID, avatar.Query) ([]carnet.Measurement, bool, error) {
	w.asked <- struct{}{}
	<-w.answer
	return []carnet.Measurement{{Name: "heart_rate", Time: 1e18, Value: carnet.Value{Kind: carnet.Number, Num: 60}}}, false, nil
}

// Only so many history queries run at once: with one token, and at all. A place
// is free again when its query is answered.
func TestOnlySoManyHistoryQueries(t *testing.T) {
	w := slow{asked: make(chan struct{}), answer: make(chan struct{})}
	few := usual
	few.queries, few.queriesOfOne = 3, 2
	s := &server{party: "arena", world: w, limits: few, guard: watched(t), log: slog.New(slog.DiscardHandler),
		tokens: func(token string) (Principal, bool) { return policy.Bearer(token, policy.Service), true }}
	h, err := s.handler()
	if err != nil {
		t.Fatal(err)
	}
	ask := func(token string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodGet, "/v1/avatars/"+carnet.NewAvatarID().String()+"/history", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	var running sync.WaitGroup
	begin := func(token string) {
		running.Go(func() {
			if w := ask(token); w.Code != http.StatusOK {
				t.Errorf("%s is answered with %d %s", token, w.Code, w.Body)
			}
		})
		<-w.asked
	}
	refused := func(token string) {
		t.Helper()
		w := ask(token)
		var p Problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != http.StatusTooManyRequests || p.Code != carnet.Unavailable || p.Fix == "" ||
			w.Header().Get("Retry-After") == "" {
			t.Errorf("%s is answered with %d %v %s", token, w.Code, w.Header(), w.Body)
		}
	}
	begin("alice")
	begin("alice")
	refused("alice")
	begin("bob")
	refused("bob")
	refused("carol")
	w.answer <- struct{}{}
	w.answer <- struct{}{}
	w.answer <- struct{}{}
	running.Wait()
	begin("carol")
	begin("carol")
	close(w.answer)
	running.Wait()
	if s.queries.count() != 0 || len(s.queries.by) != 0 {
		t.Errorf("%d queries run after all, by %v", s.queries.count(), s.queries.by)
	}
}

// A connection keeps its place while a call is under way whose caller is known, and
// gives it up at any other time: while nothing was asked, and between calls.
func TestACallOfSomebodysKeepsItsConnection(t *testing.T) {
	w := slow{asked: make(chan struct{}), answer: make(chan struct{})}
	s := &server{party: "arena", world: w, limits: usual, guard: watched(t), log: slog.New(slog.DiscardHandler),
		tokens: func(token string) (Principal, bool) { return policy.Bearer(token, policy.Service), token != "" }}
	h, err := s.handler()
	if err != nil {
		t.Fatal(err)
	}
	served := httptest.NewUnstartedServer(h)
	served.Config.ConnContext = porter.WithConn
	served.Listener = porter.New(1, 1).Listen(served.Listener)
	served.Start()
	defer served.Close()
	dial := func() net.Conn {
		conn, err := net.Dial("tcp", served.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		return conn
	}
	cutOff := func(which string, conn net.Conn) {
		t.Helper()
		if _, err := conn.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
			t.Errorf("%s reads %v", which, err)
		}
	}
	silent := dial()
	caller := dial()
	cutOff("who says nothing", silent)
	io.WriteString(caller, "GET /v1/avatars/"+carnet.NewAvatarID().String()+"/history HTTP/1.1\r\nHost: arena\r\nAuthorization: Bearer alice\r\n\r\n")
	<-w.asked
	cutOff("who comes while another's call is under way", dial())
	w.answer <- struct{}{}
	answer, err := http.ReadResponse(bufio.NewReader(caller), nil)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("the call is answered with %v, %v", answer, err)
	}
	io.Copy(io.Discard, answer.Body)
	dial()
	cutOff("who asks for nothing more", caller)
}

// All avatars of another world are one caller: it has as many as it likes.
func TestAvatarsOfAWorldAreOneCaller(t *testing.T) {
	l := places{what: "history queries", all: 3, ofOne: 1}
	one := platformOf(entity.ForeignPrincipal("citadel", "did:key:a"))
	leave, err := l.enter(one)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.enter(platformOf(entity.ForeignPrincipal("citadel", "did:key:b"))); err == nil {
		t.Error("another avatar of the world has a place of its own")
	}
	for _, p := range []Principal{entity.ForeignPrincipal("clinic", "did:key:a"), policy.Bearer("alice", policy.User)} {
		if _, err := l.enter(platformOf(p)); err != nil {
			t.Errorf("%s finds no place: %v", p.Name, err)
		}
	}
	leave()
}

// However many avatars other worlds have, they leave live subscriptions to each other and
// to the world's own users.
func TestOtherWorldsLeavePlacesToFollow(t *testing.T) {
	few := usual
	few.live, few.liveOfOne = 64, 4
	s := &server{party: "arena", world: slow{}, limits: few, guard: watched(t), log: slog.New(slog.DiscardHandler), tokens: func(string) (Principal, bool) { return Principal{}, false }}
	if _, err := s.handler(); err != nil {
		t.Fatal(err)
	}
	var leave []func()
	opens := func(p Principal) bool {
		out, err := s.live.enter(p)
		if err == nil {
			leave = append(leave, out)
		}
		return err == nil
	}
	fill := func(world carnet.PartyID) (n int) {
		for avatar := 0; ; avatar++ {
			before := n
			for opens(entity.ForeignPrincipal(world, fmt.Sprint("did:key:", avatar))) {
				n++
			}
			if n == before {
				return n
			}
		}
	}
	alice := policy.Bearer("alice", policy.User)
	var got []int
	for _, world := range []carnet.PartyID{"citadel", "clinic", "bay", "port", "gym"} {
		got = append(got, fill(world))
		if !opens(alice) && len(got) <= few.liveOfOne {
			t.Errorf("%v are open of other worlds, and none is left to a user", got)
		}
	}
	if want := []int{8, 8, 8, 8, 0}; !slices.Equal(got, want) {
		t.Errorf("other worlds have %v places, want %v", got, want)
	}
	if one := s.live.by[entity.ForeignPrincipal("citadel", "did:key:0")]; one != few.liveOfOne {
		t.Errorf("an avatar has %d", one)
	}
	for _, out := range leave {
		out()
		out()
	}
	if s.live.count() != 0 || len(s.live.by) != 0 {
		t.Errorf("%d are open after all, of %v", s.live.count(), s.live.by)
	}
}

// stuck makes a bundle when it is told so.
type stuck struct {
	Proofs
	asked  chan struct{}
	answer chan struct{}
	read   chan struct{}
}

func (p stuck) Evidence(context.Context, carnet.AvatarID, avatar.Query) (func(io.Writer) error, error) {
	p.asked <- struct{}{}
	<-p.answer
	return func(w io.Writer) error {
		p.asked <- struct{}{}
		<-p.read
		_, err := w.Write([]byte("tar"))
		return err
	}, nil
}

// Bundles fill the disk until they are read: only so many are made at once, and a
// place is taken until the last byte is.
func TestOnlySoManyBundles(t *testing.T) {
	p := stuck{asked: make(chan struct{}), answer: make(chan struct{}), read: make(chan struct{})}
	s := &server{party: "arena", world: slow{}, proofs: p, limits: usual, guard: watched(t), log: slog.New(slog.DiscardHandler),
		tokens: func(token string) (Principal, bool) { return policy.Bearer(token, policy.Administrator), true }}
	h, err := s.handler()
	if err != nil {
		t.Fatal(err)
	}
	ask := func(token string) int {
		r := httptest.NewRequest(http.MethodGet, "/v1/avatars/"+carnet.NewAvatarID().String()+"/evidence", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code
	}
	done := make(chan int)
	begin := func(token string) {
		go func() { done <- ask(token) }()
		<-p.asked
	}
	refused := func(token string) {
		t.Helper()
		if code := ask(token); code != http.StatusTooManyRequests {
			t.Errorf("%s is answered with %d", token, code)
		}
	}
	begin("alice")
	refused("alice")
	begin("bob")
	refused("carol")
	for range 2 {
		p.answer <- struct{}{} // it is made
		<-p.asked
	}
	refused("alice")
	refused("carol")
	for range 2 {
		p.read <- struct{}{}
		if code := <-done; code != http.StatusOK {
			t.Errorf("answered with %d", code)
		}
	}
	if n := s.bundles.count(); n != 0 {
		t.Errorf("%d places are taken after all", n)
	}
}
