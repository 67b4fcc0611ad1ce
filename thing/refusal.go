package thing

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"carnet"
)

// Refusal is one message that was refused for good.
type Refusal struct {
	Time   time.Time   `json:"time"`
	Code   carnet.Code `json:"code"`
	Reason string      `json:"reason"`
	Fix    string      `json:"fix,omitempty"`
	Sent   string      `json:"sent,omitempty"` // the beginning of what came
}

// sentKept is how much of a refused message is kept.
const sentKept = 256

func (a *Agent) refusalRow(t *Thing, why *carnet.Error, payload []byte) (RefusalRow, error) {
	now := a.now().UTC()
	r := Refusal{Time: now, Code: why.Code, Reason: why.Reason, Fix: why.Fix, Sent: printable(payload)}
	plain, err := json.Marshal(r)
	if err != nil {
		return RefusalRow{}, err
	}
	body, err := a.rest.Seal(nil, refusalAAD(t.id), plain)
	return RefusalRow{Thing: t.id, Time: now.UnixNano(), Code: why.Code, Body: body}, err
}

// printable is the beginning of a payload, with what isn't ASCII shown as dots.
func printable(payload []byte) string {
	b := slices.Clone(payload[:min(len(payload), sentKept)])
	for i, c := range b {
		if c < ' ' || c > '~' {
			b[i] = '.'
		}
	}
	return string(b)
}

// Refusals returns the newest refusals of a thing, newest first.
func (a *Agent) Refusals(ctx context.Context, id carnet.ThingID, limit int) ([]Refusal, error) {
	if _, err := a.thing(id); err != nil {
		return nil, err
	}
	rows, err := a.store.Refusals(ctx, id, limit)
	if err != nil {
		return nil, err
	}
	refusals := make([]Refusal, 0, len(rows))
	for _, row := range rows {
		plain, err := a.rest.Open(nil, refusalAAD(id), row.Body)
		if err != nil {
			return nil, err
		}
		var r Refusal
		if err := json.Unmarshal(plain, &r); err != nil {
			return nil, err
		}
		refusals = append(refusals, r)
	}
	return refusals, nil
}

// outsideTime says why a measurement's time isn't accepted.
func (a *Agent) outsideTime(m *carnet.Measurement, now int64) *carnet.Error {
	at := time.Unix(0, m.Time).UTC().Format(time.RFC3339)
	if m.Time > now {
		return carnet.Errorf(carnet.TooNew, "%s was measured at %s, %s ahead of the agent's clock; at most %s is accepted",
			m.Name, at, length(time.Duration(m.Time-now)), length(time.Duration(a.maxAhead))).
			WithFix("set the device's clock")
	}
	return carnet.Errorf(carnet.TooOld, "%s was measured at %s, %s ago; at most %s is accepted",
		m.Name, at, length(time.Duration(now-m.Time)), length(time.Duration(a.maxAge))).
		WithFix("send data sooner, or have the operator raise max_age of [things]")
}

// length writes a time for people: days where it has some.
func length(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d >= 2*day:
		return fmt.Sprintf("%d days", d/day)
	case d >= day:
		return "1 day " + (d % day).Round(time.Hour).String()
	}
	return d.Round(time.Second).String()
}

// Attach gives the thing a way out to a device that is connected now.
func (s *Session) Attach(o Outbox) {
	s.thing.mu.Lock()
	s.thing.outboxes = append(s.thing.outboxes, o)
	s.thing.mu.Unlock()
	if s.over() { // a renewal that hasn't found this one
		o.Cut(renewed)
	}
}

// Detach takes back what Attach gave.
func (s *Session) Detach(o Outbox) {
	s.thing.mu.Lock()
	defer s.thing.mu.Unlock()
	s.thing.outboxes = slices.DeleteFunc(s.thing.outboxes, func(have Outbox) bool { return have == o })
}

// RefusalsTopic is where a thing hears why its messages were refused.
func RefusalsTopic(id carnet.ThingID) string { return "things/" + string(id) + "/refusals" }

// MeasurementsTopic is where a thing publishes.
func MeasurementsTopic(id carnet.ThingID) string { return "things/" + string(id) + "/measurements" }

// Told is what a thing hears on its refusals topic.
type Told struct {
	Code   carnet.Code `json:"code"`
	Reason string      `json:"reason"`
	Fix    string      `json:"fix,omitempty"`
}

// tellRefusal publishes a refusal to the thing's devices that listen.
func (t *Thing) tellRefusal(why *carnet.Error) {
	t.mu.Lock()
	outboxes := slices.Clone(t.outboxes)
	t.mu.Unlock()
	if len(outboxes) == 0 {
		return
	}
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false) // people read it
	err := e.Encode(Told{why.Code, why.Reason, why.Fix})
	if err != nil {
		return // three strings always encode
	}
	payload := bytes.TrimSpace(text.Bytes())
	for _, o := range outboxes {
		o.Send(RefusalsTopic(t.id), "application/json", payload)
	}
}
