package porter

import (
	"io"
	"net/http"
	"time"
)

// BodyWithin has a request's body arrive whole within a time; after that reading it
// fails. What is answered may take longer.
func BodyWithin(w http.ResponseWriter, r *http.Request, d time.Duration) {
	if r.Body == nil || r.Body == http.NoBody {
		return
	}
	limit := http.NewResponseController(w)
	if limit.SetReadDeadline(time.Now().Add(d)) == nil { // a writer without deadlines is a test's
		r.Body = &timedBody{r.Body, limit}
	}
}

// timedBody takes its deadline back once it is read.
type timedBody struct {
	io.ReadCloser
	limit *http.ResponseController
}

func (b *timedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		_ = b.limit.SetReadDeadline(time.Time{})
	}
	return n, err
}
