package thing

import (
	"testing"
	"time"

	"carnet"
	"carnet/td"
)

// connection is the way to a device, as long as nobody cuts it.
type connection struct{ cut int }

func (c *connection) Send(string, string, []byte) bool { return true }
func (c *connection) Cut(string)                       { c.cut++ }

// From the answer on nobody is the thing by its password of before: not who is connected,
// not who was just let in, and not after a restart.
func TestAnotherPassword(t *testing.T) {
	h := newHub(t)
	before, other := h.add(td.Watch()), h.add(td.Watch())
	before.send(heart(time.Now(), 60))
	slow := before.again()
	var connected, late, others, after connection
	before.session.Attach(&connected)
	other.session.Attach(&others)
	password, err := h.agent.RenewPassword(t.Context(), before.id)
	if err != nil {
		t.Fatal(err)
	}
	slow.session.Attach(&late)
	if connected.cut != 1 || late.cut != 1 || others.cut != 0 {
		t.Errorf("cut off are who was connected %d times, who was let in just before %d, another thing %d", connected.cut, late.cut, others.cut)
	}
	for name, d := range map[string]*device{"connected": before, "let in": slow} {
		d.submit(heart(time.Now(), 61))
		if o := d.outcome(); carnet.CodeOf(o.Retry) != carnet.Unauthenticated {
			t.Errorf("what comes of who was %s ends with %+v", name, o)
		}
	}
	holds := func(when string) {
		t.Helper()
		if _, err := h.agent.Authenticate(string(before.id), []byte(before.password)); carnet.CodeOf(err) != carnet.Unauthenticated {
			t.Errorf("%s the password of before is answered with %v", when, err)
		}
		now := h.session(before.id, password)
		now.session.Attach(&after)
		now.send(heart(time.Now(), 62))
		h.session(other.id, other.password).send(heart(time.Now(), 63))
	}
	holds("at once")
	h.restart()
	holds("after a restart")
	if after.cut != 0 {
		t.Error("who has the new password is cut off")
	}
	again, err := h.agent.RenewPassword(t.Context(), before.id)
	if err != nil || again == password {
		t.Errorf("a second one: %v", err)
	}
	if _, err := h.agent.RenewPassword(t.Context(), "nobody"); carnet.CodeOf(err) != carnet.NotFound {
		t.Errorf("of a thing that isn't there: %v", err)
	}
}
