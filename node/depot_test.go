package node

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"carnet"
	"carnet/depot"
)

// A depot that takes a request and never answers is as good as away.
func TestAHangingDepotIsGivenUp(t *testing.T) {
	end := make(chan struct{})
	hangs := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-end }))
	defer hangs.Close()
	defer close(end)
	client := depot.Client{Base: hangs.URL, HTTP: depotHTTP(nil, nil, 10*time.Millisecond)}
	if _, err := client.PutObject(t.Context(), []byte("sealed"), carnet.Day); carnet.CodeOf(err) != carnet.Unavailable {
		t.Errorf("storing at a depot that hangs: %v", err)
	}
}

// A depot must not make its peers call others.
func TestADepotDoesntSendItsPeersElsewhere(t *testing.T) {
	called := make(chan string, 1)
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { called <- r.Method + " " + r.URL.Path }))
	defer other.Close()
	sends := httptest.NewServer(http.RedirectHandler(other.URL+"/inside", http.StatusTemporaryRedirect))
	defer sends.Close()
	client := depot.Client{Base: sends.URL, HTTP: depotHTTP(nil, nil, time.Minute)}
	if _, err := client.PutObject(t.Context(), []byte("sealed"), carnet.Day); err == nil {
		t.Error("a redirection counts as stored")
	}
	select {
	case what := <-called:
		t.Errorf("the depot made its peer call %s", what)
	default:
	}
}
