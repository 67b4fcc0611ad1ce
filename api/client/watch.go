package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strings"

	"carnet"
	"carnet/senml"

	"github.com/coder/websocket"
)

// Event is what an avatar's stream said at once. The first of who watches from now
// on has no measurements: its cursor is where the watch begins. Who stores the cursor with what
// it did with the event goes on after it without loss or doubling.
type Event struct {
	Cursor       string
	Measurements []carnet.Measurement
}

// maxFrame bounds one live frame.
const maxFrame = 64 << 20

// Watch follows an avatar: after a cursor that an event had, from the beginning
// for a cursor that is empty, from now on for nil. The iteration ends when the
// caller stops it, and otherwise with an error: ctx's, or carnet.Unavailable when
// the connection ended, after which the caller goes on with its last cursor.
func (c *Client) Watch(ctx context.Context, id carnet.AvatarID, after *string) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		conn, err := c.dial(ctx, id, after)
		if err != nil {
			yield(Event{}, err)
			return
		}
		defer conn.CloseNow()
		d := newDecoder()
		for {
			e, err := readEvent(ctx, conn, d)
			if !yield(e, err) {
				conn.Close(websocket.StatusNormalClosure, "")
				return
			}
			if err != nil {
				return
			}
		}
	}
}

func (c *Client) dial(ctx context.Context, id carnet.AvatarID, after *string) (*websocket.Conn, error) {
	address := strings.TrimSuffix(c.Base, "/") + avatarPath(id) + "/live"
	if after != nil {
		address += "?" + url.Values{"after": {*after}}.Encode()
	}
	conn, answer, err := websocket.Dial(ctx, address, &websocket.DialOptions{
		HTTPClient: c.http(), HTTPHeader: http.Header{"Authorization": {"Bearer " + c.Token}},
	})
	if err != nil && answer != nil && answer.StatusCode >= 400 {
		// coder/websocket keeps the first 1,024 bytes of the answer.
		body, rerr := io.ReadAll(answer.Body)
		return nil, errors.Join(refusal(answer.StatusCode, body), rerr)
	}
	if err != nil && ctx.Err() == nil {
		return nil, carnet.Errorf(carnet.Unavailable, "it can't be reached: %s", carnet.Unreached(err.Error())).WithFix("go on after the last cursor")
	}
	if err != nil {
		return nil, ctx.Err()
	}
	conn.SetReadLimit(maxFrame)
	return conn, nil
}

func readEvent(ctx context.Context, conn *websocket.Conn, d *senml.Decoder) (Event, error) {
	_, frame, err := conn.Read(ctx)
	if err != nil {
		return Event{}, ended(ctx, err)
	}
	return parseFrame(frame, d)
}

// ParseFrame reads one live frame of JSON: {"cursor": …, "pack": [SenML]}.
func ParseFrame(frame []byte) (Event, error) { return parseFrame(frame, newDecoder()) }

func parseFrame(frame []byte, d *senml.Decoder) (Event, error) {
	var f struct {
		Cursor string          `json:"cursor"`
		Pack   json.RawMessage `json:"pack"`
	}
	if err := json.Unmarshal(frame, &f); err != nil {
		return Event{}, fmt.Errorf("read a live frame: %w", err)
	}
	if string(f.Pack) == "[]" { // where a subscription from now on begins
		return Event{Cursor: f.Cursor}, nil
	}
	ms, err := d.Decode(nil, senml.JSON, f.Pack, 0)
	if err != nil {
		return Event{}, fmt.Errorf("read a live frame: %w", err)
	}
	return Event{f.Cursor, ms}, nil
}

// ended says why a live connection ended.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if e, ok := errors.AsType[websocket.CloseError](err); ok {
		return carnet.Errorf(carnet.Unavailable, "the party ended the subscription: %s", e.Reason).WithFix("go on after the last cursor")
	}
	return carnet.Errorf(carnet.Unavailable, "the subscription ended: %s", carnet.Unreached(err.Error())).WithFix("go on after the last cursor")
}
