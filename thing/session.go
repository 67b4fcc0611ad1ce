package thing

import (
	"errors"

	"carnet"
	"carnet/senml"
)

// Session takes the messages of one connection of one thing. It is used by one
// goroutine at a time.
type Session struct {
	agent *Agent
	thing *Thing
	by    *secret // the thing's when the session was opened
}

// pack is a message at hand. Sessions share a few of them: memory that the
// message before has used is still in a cache, a thousand sessions' isn't.
type pack struct {
	agent   *Agent
	thing   *Thing
	decoder *senml.Decoder

	measurements []carnet.Measurement
	properties   []uint16
	columns      []byte
	sealed       []byte
}

func newPack() *pack { return &pack{decoder: senml.NewDecoder(senml.Limits{})} }

// Thing names the session's thing.
func (s *Session) Thing() carnet.ThingID { return s.thing.id }

// over reports whether the thing has another password by now.
func (s *Session) over() bool { return s.thing.secret.Load() != s.by }

// Submit takes one message. Exactly one sink.Done(token, …) follows, from any
// goroutine, once the message's fate is on disk (or is to be tried again).
// payload is not used after the return. Submit blocks while the agent can't take
// more.
func (s *Session) Submit(format senml.Format, payload []byte, sink Sink, token uint64) {
	if s.over() {
		sink.Done(token, Outcome{Retry: carnet.Errorf(carnet.Unauthenticated, renewed).WithFix("connect with it")})
		sink.Flush()
		return
	}
	now := s.agent.now().UnixNano()
	p := s.agent.packs.Get().(*pack)
	defer s.agent.packs.Put(p)
	p.agent, p.thing = s.agent, s.thing
	var err error
	p.measurements, err = p.decoder.Decode(p.measurements[:0], format, payload, now)
	if err == nil {
		err = p.check(now)
	}
	if err != nil {
		s.refuse(err, payload, sink, token)
		return
	}
	p.accept(now, sink, token)
	s.agent.makeRoom()
}

// Refuse records that the session's device sent something that can't be
// accepted, with the outcome that Submit would have.
func (s *Session) Refuse(why *carnet.Error, payload []byte, sink Sink, token uint64) {
	s.refuse(why, payload, sink, token)
}

// check holds every measurement to the thing's description and to the accepted
// range of time.
func (p *pack) check(now int64) error {
	d := p.thing.description
	oldest, newest := now-p.agent.maxAge, now+p.agent.maxAhead
	p.properties = p.properties[:0]
	for i := range p.measurements {
		m := &p.measurements[i]
		property, known := d.Lookup(m.Name)
		if !known {
			return d.Unknown(m.Name)
		}
		if err := d.Check(property, m); err != nil {
			return err
		}
		if m.Time < oldest || m.Time > newest {
			return p.agent.outsideTime(m, now)
		}
		m.Name, m.Unit = property.Name, property.Unit
		p.properties = append(p.properties, uint16(property.Index))
	}
	if _, err := d.Arrange(p.measurements); err != nil {
		return err
	}
	for i := range p.measurements { // Arrange may have moved some
		if name := p.measurements[i].Name; name != d.Properties[p.properties[i]].Name {
			property, _ := d.Lookup(name)
			p.properties[i] = uint16(property.Index)
		}
	}
	return nil
}

// accept drops duplicates, seals what is new, and adds it to the open group. It
// holds the thing's mutex from the duplicate check to the group, so that of two
// equal measurements that come at once one is the duplicate.
func (p *pack) accept(now int64, sink Sink, token uint64) {
	t, a := p.thing, p.agent
	t.mu.Lock()
	defer t.mu.Unlock()
	came := len(p.measurements)
	if err := p.dropDuplicates(); err != nil {
		t.seen.forget()
		sink.Done(token, Outcome{Retry: retryOf(err)})
		sink.Flush()
		return
	}
	if len(p.measurements) > 0 {
		var err error
		if p.sealed, err = a.sealMessage(p.sealed[:0], t, now, p.seal()); err != nil {
			t.seen.forget()
			sink.Done(token, Outcome{Retry: retryOf(err)})
			sink.Flush()
			return
		}
	}
	full := a.add(func(g *group) {
		if len(p.measurements) > 0 {
			from := len(g.samples)
			for i := range p.measurements {
				g.samples = append(g.samples, g.texts.pack(p.properties[i], &p.measurements[i]))
			}
			g.body = append(g.body, p.sealed...)
			g.entries = append(g.entries, entry{t, from, len(g.samples)})
		}
		g.acks = append(g.acks, ack{sink: sink, token: token})
	})
	if full != nil {
		t.seen.forget()
		sink.Done(token, Outcome{Retry: full})
		sink.Flush()
		return
	}
	t.duplicates += uint64(came - len(p.measurements))
}

// makeRoom has all things forget what they hold to know duplicates by, where that is
// too much: those that nobody is busy with.
func (a *Agent) makeRoom() {
	if a.held.Load() <= maxHeldOfAll {
		return
	}
	for _, t := range a.allThings() {
		if t.mu.TryLock() {
			t.seen.forget()
			t.mu.Unlock()
		}
	}
}

func (p *pack) seal() []byte {
	p.columns = senml.AppendColumns(p.columns[:0], p.measurements)
	return p.columns
}

// dropDuplicates keeps what neither the log nor the message before holds. The
// fields of an object's value stay together: one of them that is new makes the
// value new.
func (p *pack) dropDuplicates() error {
	kept, seen := 0, &p.thing.seen
	for i := 0; i < len(p.measurements); {
		n := p.thing.description.Properties[p.properties[i]].Fields()
		fresh := false
		for j := i; j < i+n; j++ {
			isNew, err := seen.admit(p.properties[j], &p.measurements[j], func(bucket int64) error { return p.load(bucket, kept, i, j) })
			if err != nil {
				return err
			}
			fresh = fresh || isNew
		}
		if fresh {
			copy(p.measurements[kept:], p.measurements[i:i+n])
			copy(p.properties[kept:], p.properties[i:i+n])
			kept += n
		}
		i += n
	}
	seen.looked()
	p.measurements, p.properties = p.measurements[:kept], p.properties[:kept]
	return nil
}

// load looks up what the log holds in a bucket; or, when the message has more late
// buckets than are held as sets, or there is no room for this one, which of its own
// measurements the log holds, so that no part of the log is read again and again for a
// message. Of the message itself, [0, kept) was kept so far and [from, to) is being
// looked at.
func (p *pack) load(bucket int64, kept, from, to int) error {
	a, t := p.agent, p.thing
	wide := t.seen.late(p.properties[to:], p.measurements[to:]) > maxSets
	var has map[identity]struct{}
	var err error
	if !wide {
		has, err = a.loadBucket(a.life, t, bucket, maxHeld-t.seen.held)
		wide = errors.Is(err, errCrowded)
	}
	if wide {
		ids := make(map[identity]struct{})
		p.eachIdentity(to, len(p.measurements), func(id identity) { ids[id] = struct{}{} })
		has, err = a.heldOf(a.life, t, ids)
	}
	if err != nil {
		return err
	}
	add := func(id identity) {
		if wide || bucketOf(id.time) == bucket {
			has[id] = struct{}{}
		}
	}
	p.eachIdentity(0, kept, add)
	p.eachIdentity(from, to, add)
	if wide {
		t.seen.wide = has
	} else {
		t.seen.keep(bucket, has)
	}
	return nil
}

func (p *pack) eachIdentity(from, to int, do func(identity)) {
	for i := from; i < to; i++ {
		do(identity{p.properties[i], p.measurements[i].Time, p.measurements[i].Value})
	}
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
