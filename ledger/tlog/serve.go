package tlog

import (
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strings"
)

// Handler serves the ledger to auditors as C2SP tlog-tiles, from the files:
// GET checkpoint, tile/… and tile/entries/…. It shows nothing that isn't public
// by design. The caller strips whatever prefix it serves the ledger under.
func (l *Log) Handler() http.Handler { return tileServer{l.cfg.Dir} }

type tileServer struct{ dir string }

const maxTilePath = 128

func (s tileServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "read only", http.StatusMethodNotAllowed)
		return
	}
	path := strings.TrimPrefix(r.URL.Path, "/")
	switch {
	case path == checkpointPath:
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-cache")
	case isTilePath(path):
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Cache-Control", "max-age=31536000, immutable")
	default:
		http.NotFound(w, r)
		return
	}
	s.serve(w, r, path)
}

func (s tileServer) serve(w http.ResponseWriter, r *http.Request, path string) {
	root, err := os.OpenRoot(s.dir)
	if err != nil {
		http.Error(w, "the ledger cannot be read", http.StatusInternalServerError)
		return
	}
	defer root.Close()
	f, err := root.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		w.Header().Del("Cache-Control")
		http.NotFound(w, r)
		return
	}
	if err != nil {
		http.Error(w, "the ledger cannot be read", http.StatusInternalServerError)
		return
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.IsDir() {
		w.Header().Del("Cache-Control")
		http.NotFound(w, r)
		return
	}
	// A failed write means that the auditor went away.
	_, _ = io.Copy(w, f)
}

// isTilePath reports whether path has the form of tlog-tiles: tile/L/N[.p/W] or
// tile/entries/N[.p/W], where N is groups of three digits, all but the last
// with an x before.
func isTilePath(path string) bool {
	rest, ok := strings.CutPrefix(path, "tile/")
	if !ok || len(path) > maxTilePath {
		return false
	}
	level, rest, _ := strings.Cut(rest, "/")
	if level != "entries" && !isNumber(level, 2) {
		return false
	}
	number, width, partial := strings.Cut(rest, ".p/")
	if partial && !isNumber(width, 3) {
		return false
	}
	groups := strings.Split(number, "/")
	for i, g := range groups {
		if i < len(groups)-1 {
			if g, ok = strings.CutPrefix(g, "x"); !ok {
				return false
			}
		}
		if len(g) != 3 || !isNumber(g, 3) {
			return false
		}
	}
	return true
}

// isNumber reports whether s is 1 to most decimal digits.
func isNumber(s string, most int) bool {
	return len(s) >= 1 && len(s) <= most && strings.Trim(s, "0123456789") == ""
}
