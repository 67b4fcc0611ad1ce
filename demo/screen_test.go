package demo

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/api/client"
	"carnet/thing"
)

// What the demo itself cuts off as it ends is no party's silence.
func TestACutQuestionIsntShown(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	asked := make(chan struct{}, 16)
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		<-r.Context().Done()
	}))
	defer slow.Close()
	looks := &client.Client{Base: slow.URL, HTTP: slow.Client()}
	w := watch()
	w.mappings = map[carnet.PartyID]thing.MappingInfo{"arena": {}}
	s := &setup{script: &script{worlds: []carnet.PartyID{"arena"}}, parties: []*party{{name: "hub", looks: looks}, {name: "arena", looks: looks}}, sensors: []*sensor{w}}
	var text strings.Builder
	v := &screen{to: &text, terminal: true, begun: time.Now()}
	ended := make(chan struct{})
	go func() { defer close(ended); v.follow(ctx, s) }()
	<-asked
	cancel()
	<-ended
	if text.Len() > 0 {
		t.Errorf("it shows %q", text.String())
	}
}
