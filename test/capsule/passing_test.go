package capsule_test

import (
	"testing"

	"carnet"
)

// A job whose content is there is ready, also if that couldn't be stored when the last of it
// came.
func TestAJobIsReadyThoughTheDiskWasFull(t *testing.T) {
	c := &clock{}
	forge, arena := newOffice(t, c, "forge"), newCustomer(t, c, "arena", 2)
	forge.opens("arena", arena.key)
	d, client := arena.draftFor(forge), forge.client("arena")
	_, err := client.Submit(t.Context(), d.order.Job, d.sign())
	must(t, err)
	must(t, client.PutContent(t.Context(), d.order.Job, d.contents()[0]))
	forge.disk.full.Store(1)
	codeIs(t, "the last content, with a full disk", client.PutContent(t.Context(), d.order.Job, d.contents()[1]), carnet.NoSpace)
	eventually(t, "it is ready", func() bool { return forge.agent.Counts().Ready == 1 })
}
