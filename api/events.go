package api

import (
	"context"
	"net/http"
	"sync"
	"time"

	"carnet/senml"
)

// events is a subscriber by server-sent events.
type events struct {
	limit    *http.ResponseController
	patience time.Duration
	frame    []byte       // send's
	fallen   func() error // why the call was ended and its connection's time is over; nil: it may go on

	mu sync.Mutex // pings come between frames
	w  http.ResponseWriter
}

func (o *events) send(_ context.Context, e event) (err error) {
	b := append(o.frame[:0], "id: "...)
	b = append(b, e.cursor...)
	b = append(b, "\ndata: "...)
	if b, err = senml.Append(b, senml.JSON, e.ms); err != nil { // one line: JSON escapes the others
		return err
	}
	o.frame = append(b, "\n\n"...)
	return o.write(o.frame)
}

// begin is an id without data: an EventSource remembers it and shows no event
// (WHATWG HTML §9.2.6).
func (o *events) begin(_ context.Context, cursor string) error {
	return o.write([]byte("id: " + cursor + "\n\n"))
}

// ping is a comment, which an EventSource leaves out.
func (o *events) ping(context.Context) error { return o.write([]byte(":\n\n")) }

// end says why the party ends the stream. It has no id: who may come again goes on
// after the last event.
func (o *events) end(why error) error {
	return o.write([]byte("event: end\ndata: " + why.Error() + "\n\n"))
}

func (o *events) write(b []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.limit.SetWriteDeadline(time.Now().Add(o.patience)); err != nil {
		return err
	}
	if err := o.fallen(); err != nil { // whoever ended it has the last word on its time, or had it before
		_ = o.limit.SetWriteDeadline(time.Unix(1, 0))
		return err
	}
	if _, err := o.w.Write(b); err != nil {
		return err
	}
	return o.limit.Flush()
}
