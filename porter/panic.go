package porter

import (
	"log/slog"
	"net/http"
	"runtime/debug"
)

// TellPanics has a panic of a handler in the log, as the error that it is: net/http puts
// it among what strangers cause. Its connection, or of HTTP/2 its stream, then ends
// without an answer.
func TellPanics(h http.Handler, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			why := recover()
			if why == nil {
				return
			}
			if why != http.ErrAbortHandler { // which is how a handler ends an answer that it began
				log.Error("what answers a request panicked", "method", r.Method, "path", r.URL.Path, "panic", why, "stack", string(debug.Stack()))
			}
			panic(http.ErrAbortHandler)
		}()
		h.ServeHTTP(w, r)
	})
}
