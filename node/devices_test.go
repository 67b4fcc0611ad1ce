package node

import (
	"context"
	"fmt"
	"log/slog"
	"testing"

	"carnet"
	"carnet/activity"
	"carnet/policy"
	"carnet/senml"
	"carnet/thing"
	"carnet/wire/mqtt"
)

// handed is a thing's session that counts what comes to it.
type handed struct{ submitted, refused int }

func (h *handed) Thing() carnet.ThingID { return "watch-7" }
func (h *handed) Submit(_ senml.Format, _ []byte, sink thing.Sink, token uint64) {
	h.submitted++
	sink.Done(token, thing.Outcome{})
}
func (h *handed) Refuse(why *carnet.Error, _ []byte, sink thing.Sink, token uint64) {
	h.refused++
	sink.Done(token, thing.Outcome{Refused: why})
}
func (h *handed) Attach(thing.Outbox) {}
func (h *handed) Detach(thing.Outbox) {}

// outcome takes the outcome of one message.
type outcome struct{ got mqtt.Outcome }

func (o *outcome) Done(_ uint64, got mqtt.Outcome) { o.got = got }
func (o *outcome) Flush()                          {}

// remembered keeps activity records in memory.
type remembered struct {
	all  []activity.Record
	fail error
}

func (r *remembered) Add(_ context.Context, one activity.Record) error {
	if r.fail == nil {
		r.all = append(r.all, one)
	}
	return r.fail
}

func connection(t *testing.T, house string) (*device, *handed, *remembered) {
	t.Helper()
	a, err := policy.NewAuthorizer(map[string][]byte{"house.cedar": []byte(house)}, false)
	if err != nil {
		t.Fatal(err)
	}
	to, log := &handed{}, &remembered{}
	return newDevice(to, &activity.Guard{Authorizer: a, Recorder: log, Log: slog.New(slog.DiscardHandler)}), to, log
}

func publish(d *device, topic string) mqtt.Outcome {
	var o outcome
	d.Publish(mqtt.Message{Topic: []byte(topic), Payload: []byte("[]")}, &o, 1)
	return o.got
}

// Each topic that a device uses is decided and recorded once, and no message
// comes to the agent before.
func TestNoTopicWithoutADecisionAndARecord(t *testing.T) {
	d, to, log := connection(t, "")
	for range 3 {
		if got := publish(d, "things/watch-7/measurements"); got != mqtt.Stored() {
			t.Errorf("its own topic: %+v", got)
		}
	}
	publish(d, "things/watch-8/measurements")
	publish(d, "things/watch-8/measurements")
	for range 2 {
		if qos, err := d.Subscribe("things/watch-7/refusals"); qos != 1 || err != nil {
			t.Errorf("its own refusals: %d, %v", qos, err)
		}
		if _, err := d.Subscribe("#"); carnet.CodeOf(err) != carnet.Forbidden {
			t.Errorf("everything: %v", err)
		}
	}
	if to.submitted != 3 || to.refused != 2 {
		t.Errorf("%+v came to the agent, want 3 taken and 2 refused", to)
	}
	want := []string{"publish things/watch-7/measurements true", "publish things/watch-8/measurements false", "hear things/watch-7/refusals true", "hear # false"}
	for i, r := range log.all {
		got := fmt.Sprint(r.Action, " ", r.Resource.ID, " ", r.Permitted)
		if i >= len(want) || got != want[i] || r.Who != (policy.Principal{Kind: policy.Device, Name: "watch-7"}) || r.Via != activity.MQTT || r.Policy == "" {
			t.Errorf("record %d is %s of %+v", i, got, r)
		}
	}
	if len(log.all) != len(want) {
		t.Errorf("%d records, want %d", len(log.all), len(want))
	}
}

func TestADeviceThatIsForbiddenIsRefused(t *testing.T) {
	d, to, log := connection(t, `@id("quarantine") forbid (principal == Thing::"watch-7", action, resource);`)
	if publish(d, "things/watch-7/measurements"); to.submitted != 0 || to.refused != 1 {
		t.Errorf("%+v came to the agent", to)
	}
	if _, err := d.Subscribe("things/watch-7/refusals"); carnet.CodeOf(err) != carnet.Forbidden {
		t.Errorf("its refusals: %v", err)
	}
	if len(log.all) != 2 || log.all[0].Rule != "quarantine" {
		t.Errorf("recorded as %+v", log.all)
	}
}

// What can't be recorded isn't taken, and isn't acknowledged either.
func TestADeviceUnrecordedWaits(t *testing.T) {
	d, to, log := connection(t, "")
	log.fail = carnet.Errorf(carnet.NoSpace, "the disk is full")
	got := publish(d, "things/watch-7/measurements")
	if to.submitted+to.refused != 0 || got == mqtt.Stored() || got == (mqtt.Outcome{}) {
		t.Errorf("%+v came to the agent, and the outcome is %+v", to, got)
	}
	if _, err := d.Subscribe("things/watch-7/refusals"); carnet.CodeOf(err) != carnet.NoSpace {
		t.Errorf("its refusals: %v", err)
	}
	log.fail = nil
	if publish(d, "things/watch-7/measurements"); to.submitted != 1 {
		t.Errorf("once there is space, %+v came to the agent", to)
	}
}

// Foreign topics don't fill the log.
func TestForeignTopicsAreCounted(t *testing.T) {
	d, to, log := connection(t, "")
	for i := range 100 {
		publish(d, fmt.Sprintf("things/watch-%d/measurements", 100+i))
	}
	if len(log.all) != maxTopics || to.refused != maxTopics {
		t.Errorf("%d records, %d refused messages, want %d of each", len(log.all), to.refused, maxTopics)
	}
}

// told notes the outcomes that a connection hears.
type told struct{ outcomes int }

func (t *told) Done(uint64, mqtt.Outcome) { t.outcomes++ }
func (t *told) Flush()                    {}

// A will has a sink of its own, while messages before it are still to be stored.
func TestAWillLeavesOthersOutcomesAlone(t *testing.T) {
	d := new(device)
	connection, will := new(told), new(told)
	message := d.outcomesTo(connection)
	d.outcomesTo(will).Done(0, thing.Outcome{})
	message.Done(1, thing.Outcome{})
	if again := d.outcomesTo(connection); again != message {
		t.Error("a connection's messages have several sinks")
	}
	if connection.outcomes != 1 || will.outcomes != 1 {
		t.Errorf("the connection hears %d outcomes, the will %d; want 1 each", connection.outcomes, will.outcomes)
	}
}
