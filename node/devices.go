package node

import (
	"context"

	"carnet"
	"carnet/senml"
	"carnet/thing"
	"carnet/wire/mqtt"
)

// devices lets MQTT connections in as things.
type devices struct{ agent *thing.Agent }

// Authenticate implements mqtt.Backend: the user is the thing's id.
func (d devices) Authenticate(_ context.Context, c mqtt.Connect) (mqtt.Device, error) {
	session, err := d.agent.Authenticate(c.User, c.Password)
	if err != nil {
		return nil, err
	}
	id := session.Thing()
	return &device{session: session, measurements: thing.MeasurementsTopic(id), refusals: thing.RefusalsTopic(id)}, nil
}

// device is one connection of a thing.
type device struct {
	session                *thing.Session
	measurements, refusals string
	sink                   outcomes
}

// ID implements mqtt.Device.
func (d *device) ID() string { return string(d.session.Thing()) }

// Publish implements mqtt.Device.
func (d *device) Publish(m mqtt.Message, sink mqtt.Sink, token uint64) {
	to := d.outcomesTo(sink)
	if string(m.Topic) != d.measurements {
		d.session.Refuse(carnet.Errorf(carnet.Forbidden, "topic %.80q is not this thing's", m.Topic).
			WithFix("publish to %s", d.measurements), m.Payload, to, token)
		return
	}
	if len(m.Payload) == 0 {
		d.session.Refuse(carnet.Errorf(carnet.Malformed, "the message is empty").WithFix("send a SenML pack"), nil, to, token)
		return
	}
	format, err := senml.FormatOf(string(m.ContentType), m.Payload[0])
	if err != nil {
		d.session.Refuse(refusal(err), m.Payload, to, token)
		return
	}
	d.session.Submit(format, m.Payload, to, token)
}

// outcomesTo is where the outcomes of messages with this sink go. A connection has
// one sink, and its will another: the outcomes of messages before the will may
// come meanwhile.
func (d *device) outcomesTo(sink mqtt.Sink) *outcomes {
	if d.sink.to == nil {
		d.sink.to = sink
	}
	if d.sink.to == sink {
		return &d.sink
	}
	return &outcomes{to: sink}
}

func refusal(err error) *carnet.Error {
	if code := carnet.CodeOf(err); code != "" {
		return carnet.Errorf(code, "%v", err)
	}
	return carnet.Errorf(carnet.Malformed, "%v", err)
}

// Broke implements mqtt.Device.
func (d *device) Broke(why *carnet.Error) { d.session.Refuse(why, nil, nobody{}, 0) }

// nobody waits for an outcome.
type nobody struct{}

func (nobody) Done(uint64, thing.Outcome) {}
func (nobody) Flush()                     {}

// Subscribe implements mqtt.Device.
func (d *device) Subscribe(filter string) (byte, error) {
	if filter != d.refusals {
		return 0, carnet.Errorf(carnet.Forbidden, "topic filter %.80q is not this thing's", filter).WithFix("subscribe to %s", d.refusals)
	}
	return 1, nil
}

// Attach implements mqtt.Device.
func (d *device) Attach(o mqtt.Outbox) { d.session.Attach(o) }

// Detach implements mqtt.Device.
func (d *device) Detach(o mqtt.Outbox) { d.session.Detach(o) }

// outcomes tells a connection what became of its messages.
type outcomes struct{ to mqtt.Sink }

// Done implements thing.Sink.
func (s *outcomes) Done(token uint64, o thing.Outcome) {
	switch {
	case o.Retry != nil:
		s.to.Done(token, mqtt.Retry(o.Retry))
	case o.Refused != nil:
		s.to.Done(token, mqtt.Refused(o.Refused))
	default:
		s.to.Done(token, mqtt.Stored())
	}
}

// Flush implements thing.Sink.
func (s *outcomes) Flush() { s.to.Flush() }
