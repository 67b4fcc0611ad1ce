package api

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"carnet"
	"carnet/avatar"
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
	s := &server{party: "arena", world: w, limits: few, log: slog.New(slog.DiscardHandler),
		tokens: func(token string) (Principal, bool) { return Principal{token, Reader}, true }}
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
	if s.asked.running != 0 || len(s.asked.by) != 0 {
		t.Errorf("%d queries run after all, by %v", s.asked.running, s.asked.by)
	}
}
