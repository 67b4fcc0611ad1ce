package porter

import (
	"bytes"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestPanicsAreTold(t *testing.T) {
	var told bytes.Buffer
	var server bytes.Buffer // what net/http logs by itself
	s := httptest.NewUnstartedServer(TellPanics(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/fails":
			var none *http.Request
			_ = none.Method
		case "/aborts":
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(w, "answered")
	}), slog.New(slog.NewTextHandler(&told, &slog.HandlerOptions{Level: slog.LevelError}))))
	s.Config.ErrorLog = log.New(&server, "", 0)
	s.Start()
	for path, answers := range map[string]bool{"/": true, "/fails": false, "/aborts": false} {
		told.Reset()
		a, err := http.Get(s.URL + path)
		if err == nil {
			a.Body.Close()
		}
		if (err == nil) != answers {
			t.Errorf("%s is answered %v, %v", path, a, err)
		}
		is := strings.Contains(told.String(), "level=ERROR") && strings.Contains(told.String(), "path=/fails") && strings.Contains(told.String(), "nil pointer") && strings.Contains(told.String(), "panic_test.go")
		if is != (path == "/fails") || !is && told.Len() > 0 {
			t.Errorf("%s is told as %q", path, told.String())
		}
	}
	s.Close()
	if server.Len() > 0 {
		t.Errorf("net/http tells it, too: %s", &server)
	}
}
