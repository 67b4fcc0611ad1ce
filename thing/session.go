package thing

import (
	"context"
	"errors"

	"carnet"
	"carnet/senml"
)

// Session takes the messages of one connection of one thing. It is used by one
// goroutine at a time.
type Session struct {
	agent   *Agent
	thing   *Thing
	decoder *senml.Decoder

	measurements []carnet.Measurement // of the message at hand
	properties   []uint16
	columns      []byte
	sealed       []byte
}

// Thing names the session's thing.
func (s *Session) Thing() carnet.ThingID { return s.thing.id }

// Submit takes one message. Exactly one sink.Done(token, …) follows, from any
// goroutine, once the message's fate is on disk (or is to be tried again).
// payload is not used after the return. Submit blocks while the agent can't take
// more.
func (s *Session) Submit(format senml.Format, payload []byte, sink Sink, token uint64) {
	now := s.agent.now().UnixNano()
	var err error
	s.measurements, err = s.decoder.Decode(s.measurements[:0], format, payload, now)
	if err == nil {
		err = s.check(now)
	}
	if err != nil {
		s.refuse(err, payload, sink, token)
		return
	}
	s.accept(now, sink, token)
}

// Refuse records that the session's device sent something that can't be
// accepted, with the outcome that Submit would have.
func (s *Session) Refuse(why *carnet.Error, payload []byte, sink Sink, token uint64) {
	s.refuse(why, payload, sink, token)
}

// check holds every measurement to the thing's description and to the accepted
// range of time.
func (s *Session) check(now int64) error {
	d := s.thing.description
	oldest, newest := now-s.agent.maxAge, now+s.agent.maxAhead
	s.properties = s.properties[:0]
	for i := range s.measurements {
		m := &s.measurements[i]
		p, known := d.Lookup(m.Name)
		if !known {
			return d.Unknown(m.Name)
		}
		if err := d.Check(p, m); err != nil {
			return err
		}
		if m.Time < oldest || m.Time > newest {
			return s.agent.outsideTime(m, now)
		}
		m.Name, m.Unit = p.Name, p.Unit
		s.properties = append(s.properties, uint16(p.Index))
	}
	if _, err := d.Arrange(s.measurements); err != nil {
		return err
	}
	for i := range s.measurements { // Arrange may have moved some
		if name := s.measurements[i].Name; name != d.Properties[s.properties[i]].Name {
			p, _ := d.Lookup(name)
			s.properties[i] = uint16(p.Index)
		}
	}
	return nil
}

// accept drops duplicates, seals what is new, and adds it to the open group. It
// holds the thing's mutex from the duplicate check to the group, so that of two
// equal measurements that come at once one is the duplicate.
func (s *Session) accept(now int64, sink Sink, token uint64) {
	t, a := s.thing, s.agent
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := s.dropDuplicates(); err != nil {
		t.seen.forget()
		sink.Done(token, Outcome{Retry: retryOf(err)})
		sink.Flush()
		return
	}
	if len(s.measurements) > 0 {
		var err error
		if s.sealed, err = a.sealMessage(s.sealed[:0], t, now, s.seal()); err != nil {
			t.seen.forget()
			sink.Done(token, Outcome{Retry: retryOf(err)})
			sink.Flush()
			return
		}
	}
	full := a.add(func(g *group) {
		if len(s.measurements) > 0 {
			from := len(g.measurements)
			g.measurements = append(g.measurements, s.measurements...)
			g.properties = append(g.properties, s.properties...)
			g.body = append(g.body, s.sealed...)
			g.entries = append(g.entries, entry{t, from, len(g.measurements)})
		}
		g.acks = append(g.acks, ack{sink: sink, token: token})
	})
	if full != nil {
		t.seen.forget()
		sink.Done(token, Outcome{Retry: full})
		sink.Flush()
	}
}

func (s *Session) seal() []byte {
	s.columns = senml.AppendColumns(s.columns[:0], s.measurements)
	return s.columns
}

// dropDuplicates keeps what neither the log nor the message before holds. The
// fields of an object's value stay together: one of them that is new makes the
// value new.
func (s *Session) dropDuplicates() error {
	kept := 0
	for i := 0; i < len(s.measurements); {
		n := s.thing.description.Properties[s.properties[i]].Fields()
		fresh := false
		for j := i; j < i+n; j++ {
			isNew, err := s.thing.seen.admit(s.properties[j], &s.measurements[j], func(bucket int64) (map[identity]struct{}, error) {
				return s.load(bucket, kept, i, j)
			})
			if err != nil {
				return err
			}
			fresh = fresh || isNew
		}
		if fresh {
			copy(s.measurements[kept:], s.measurements[i:i+n])
			copy(s.properties[kept:], s.properties[i:i+n])
			kept += n
		}
		i += n
	}
	s.measurements, s.properties = s.measurements[:kept], s.properties[:kept]
	return nil
}

// load returns what a bucket holds already: in the log, and of this message what
// was kept so far, [0, kept), and what is being looked at, [from, to).
func (s *Session) load(bucket int64, kept, from, to int) (map[identity]struct{}, error) {
	has, err := s.agent.loadBucket(context.Background(), s.thing, bucket)
	if err != nil {
		return nil, err
	}
	for _, part := range [...][2]int{{0, kept}, {from, to}} {
		for k := part[0]; k < part[1]; k++ {
			if m := &s.measurements[k]; bucketOf(m.Time) == bucket {
				has[identity{s.properties[k], m.Time, m.Value}] = struct{}{}
			}
		}
	}
	return has, nil
}

func (s *Session) refuse(err error, payload []byte, sink Sink, token uint64) {
	why := refusalOf(err)
	row, serr := s.agent.refusalRow(s.thing, why, payload)
	if serr != nil {
		sink.Done(token, Outcome{Retry: retryOf(serr)})
		sink.Flush()
		return
	}
	full := s.agent.add(func(g *group) {
		g.refusals = append(g.refusals, row)
		g.acks = append(g.acks, ack{sink: sink, token: token, outcome: Outcome{Refused: why}})
	})
	if full != nil {
		sink.Done(token, Outcome{Retry: full})
		sink.Flush()
		return
	}
	s.thing.tellRefusal(why)
}

// refusalOf gives an error that a device is told the form of one.
func refusalOf(err error) *carnet.Error {
	if e, ok := errors.AsType[*carnet.Error](err); ok {
		return e
	}
	return carnet.Errorf(carnet.Malformed, "%v", err)
}

// retryOf gives an error that passes the form of one; what went wrong inside
// stays inside.
func retryOf(err error) *carnet.Error {
	if e, ok := errors.AsType[*carnet.Error](err); ok && (e.Code == carnet.NoSpace || e.Code == carnet.Unavailable) {
		return e
	}
	return carnet.Errorf(carnet.Unavailable, "the things agent can't take the message for the moment").WithFix("send it again later")
}
