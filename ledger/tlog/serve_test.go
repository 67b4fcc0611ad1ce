package tlog

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"carnet/ledger"
)

func get(t *testing.T, h http.Handler, method, path string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, "/", nil)
	r.URL.Path = path
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestAuditorsReadCheckpointTilesAndEntries(t *testing.T) {
	l, _ := start(t, config(t, scratch(t), newIndex()))
	mustAppend(t, l, entries(0, 300))
	h := l.Handler()

	cp, err := ledger.ParseCheckpoint(l.Key(), get(t, h, "GET", "/checkpoint").Body.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if cp.Size != 300 {
		t.Errorf("checkpoint of size %d, want 300", cp.Size)
	}
	for path, size := range map[string]int{
		"/tile/0/000":            256 * 32,
		"/tile/0/001.p/44":       44 * 32,
		"/tile/entries/000":      256 * (2 + 32), // 16-bit length before each
		"/tile/entries/001.p/44": 44 * (2 + 32),
	} {
		if w := get(t, h, "GET", path); w.Code != http.StatusOK || w.Body.Len() != size {
			t.Errorf("%s: status %d, %d bytes, want 200 and %d", path, w.Code, w.Body.Len(), size)
		}
	}
}

func TestAuditorsReadNothingElse(t *testing.T) {
	l, _ := start(t, config(t, scratch(t), newIndex()))
	mustAppend(t, l, entries(0, 1))
	h := l.Handler()
	for _, path := range []string{
		"/", "/.lock", "/.state/treeState", "/tile", "/tile/", "/tile/0", "/tile/0/", "/tile/0/001", "/tile/0/../../.lock",
		"/tile/../.state/treeState", "/tile/entries/../../.lock", "/checkpoint/", "//checkpoint", "/tile/0/000.p", "/tile/0/000.p/",
		"/tile/0/x000/x001", "/tile/0/0000", "/tile/-1/000", "/tile/0/000.p/1/..", "/tile/0/000.p/1.p/1", "/tile/0/000\x00",
	} {
		if w := get(t, h, "GET", path); w.Code != http.StatusNotFound {
			t.Errorf("%s: status %d, want 404", path, w.Code)
		}
	}
	if w := get(t, h, "POST", "/checkpoint"); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: status %d, want 405", w.Code)
	}
}

func FuzzTilePath(f *testing.F) {
	for _, s := range []string{"tile/0/000", "tile/entries/x001/234.p/8", "tile/1/../000", "tile/0/x000/x001", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		if !isTilePath(path) {
			return
		}
		for _, c := range []byte(path) {
			if c != '/' && c != '.' && (c < '0' || c > '9') && (c < 'a' || c > 'z') {
				t.Fatalf("%q has a character that no tile has", path)
			}
		}
		for i := range len(path) - 1 {
			if path[i:i+2] == ".." || path[i:i+2] == "//" || path[i:i+2] == "/." {
				t.Fatalf("%q can leave the directory", path)
			}
		}
	})
}
