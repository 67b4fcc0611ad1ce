package node

import (
	"testing"

	"carnet/thing"
	"carnet/wire/mqtt"
)

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
