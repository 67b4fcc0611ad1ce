package node

import (
	"context"
	"errors"
	"time"

	"carnet"
	"carnet/activity"
	"carnet/policy"
	"carnet/senml"
	"carnet/thing"
	"carnet/wire/mqtt"
)

// devices lets MQTT connections in as things. What a device may is asked once a
// connection, and once a topic of it.
type devices struct {
	agent *thing.Agent
	guard *activity.Guard
}

// patience is how long a device's question may take to be decided and recorded.
const patience = 10 * time.Second

// Authenticate implements mqtt.Backend: the user is the thing's id.
func (d devices) Authenticate(ctx context.Context, c mqtt.Connect) (mqtt.Device, error) {
	session, err := d.agent.Authenticate(c.User, c.Password)
	if err != nil {
		d.agent.Deny(c.User, c.Remote)
		return nil, err
	}
	id := session.Thing()
	found := newDevice(session, d.guard)
	return found, found.ask(ctx, "connect", policy.Resource{Kind: policy.ThingResource, ID: string(id)}, true)
}

// session is what a connection needs of a thing's: a *thing.Session.
type session interface {
	Thing() carnet.ThingID
	Submit(format senml.Format, payload []byte, sink thing.Sink, token uint64)
	Refuse(why *carnet.Error, payload []byte, sink thing.Sink, token uint64)
	Attach(thing.Outbox)
	Detach(thing.Outbox)
}

// device is one connection of a thing.
type device struct {
	session                session
	guard                  *activity.Guard
	measurements, refusals string
	sink                   outcomes

	publishes bool            // to its own topic: the hot path asks nothing else
	decided   map[topic]error // what was asked: nil is permitted
}

func newDevice(s session, g *activity.Guard) *device {
	id := s.Thing()
	return &device{session: s, guard: g, measurements: thing.MeasurementsTopic(id), refusals: thing.RefusalsTopic(id), decided: make(map[topic]error)}
}

// topic is a use of one.
type topic struct {
	action policy.Action
	name   string
}

// maxTopics is how many topics a connection may ask for.
const maxTopics = 16

// ID implements mqtt.Device.
func (d *device) ID() string { return string(d.session.Thing()) }

func (d *device) ask(ctx context.Context, action policy.Action, about policy.Resource, own bool) error {
	_, err := d.guard.Ask(ctx, activity.Call{
		Who: policy.Principal{Kind: policy.Device, Name: d.ID()}, Action: action, Resource: about, Via: activity.MQTT,
		Look: func(context.Context) (activity.Known, error) {
			return activity.Known{Facts: policy.Facts{Own: own}, Visible: true}, nil
		},
	})
	return err
}

// may asks whether the device may use a topic, at its first use. An answer that
// could not be had or recorded isn't kept.
func (d *device) may(action policy.Action, name string, own bool) error {
	of := topic{action, name}
	err, known := d.decided[of]
	if known {
		return err
	}
	if len(d.decided) >= maxTopics {
		return carnet.Errorf(carnet.Unavailable, "the connection has used %d topics, which is all it may", maxTopics).WithFix("use this thing's own")
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err = d.ask(ctx, action, policy.Resource{Kind: policy.TopicResource, ID: name[:min(len(name), maxTopic)]}, own)
	if err == nil || carnet.CodeOf(err) == carnet.Forbidden {
		d.decided[of] = err
	}
	return err
}

// maxTopic bounds what of a topic's name is recorded.
const maxTopic = 256

// Publish implements mqtt.Device.
func (d *device) Publish(m mqtt.Message, sink mqtt.Sink, token uint64) {
	to := d.outcomesTo(sink)
	own := string(m.Topic) == d.measurements
	if !own || !d.publishes {
		err := d.may("publish", string(m.Topic), own)
		switch {
		case err == nil:
			d.publishes = own
		case carnet.CodeOf(err) == carnet.Forbidden && own:
			d.session.Refuse(refusal(err), m.Payload, to, token)
			return
		case carnet.CodeOf(err) != carnet.Forbidden:
			sink.Done(token, mqtt.Retry(unavailable(err)))
			return
		}
	}
	if !own {
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

// unavailable is what fails for the moment, whatever it is.
func unavailable(err error) *carnet.Error {
	if e, ok := errors.AsType[*carnet.Error](err); ok {
		return e
	}
	return carnet.Errorf(carnet.Unavailable, "the message could not be let in").WithFix("send it again")
}

// Broke implements mqtt.Device.
func (d *device) Broke(why *carnet.Error) { d.session.Refuse(why, nil, nobody{}, 0) }

// nobody waits for an outcome.
type nobody struct{}

func (nobody) Done(uint64, thing.Outcome) {}
func (nobody) Flush()                     {}

// Subscribe implements mqtt.Device.
func (d *device) Subscribe(filter string) (byte, error) {
	own := filter == d.refusals
	if err := d.may("hear", filter, own); err != nil && (own || carnet.CodeOf(err) != carnet.Forbidden) {
		return 0, err
	}
	if !own {
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
