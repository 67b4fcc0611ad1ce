package thing

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"slices"

	"carnet"
	"carnet/link"
)

// process is one start of the agent on its store. After the store was restored
// from an older copy, positions of the log are given out a second time; who gave
// a position out tells the two apart.
type process struct {
	ID   uint64 `json:"id"`   // random, 56 bits
	From uint64 `json:"from"` // the first position that it gives out
}

// maxProcesses is how many starts are remembered.
const maxProcesses = 1000

const processesID = "processes"

// begin records that a process has started on the store.
func (a *Agent) begin(ctx context.Context) error {
	var random [8]byte
	rand.Read(random[1:])
	a.process = process{binary.BigEndian.Uint64(random[:]), a.next}
	a.processes = append(a.processes, a.process)
	if over := len(a.processes) - maxProcesses; over > 0 {
		a.processes = a.processes[over:]
	}
	d, err := a.document(kindAgent, processesID, a.nextVersion(kindAgent, processesID), agentDocument{Processes: a.processes})
	if err != nil {
		return err
	}
	a.stored(d)
	return a.store.Commit(ctx, &Group{Documents: []carnet.Document{d}})
}

// start finds a process among the recorded ones.
func (a *Agent) start(id uint64) (index int, known bool) {
	index = slices.IndexFunc(a.processes, func(p process) bool { return p.ID == id })
	return index, index >= 0
}

// here turns a position that a process gave out into one of this store's log:
// what the process handled beyond the point where the next one took over was
// lost with a restore, and its positions were given out again. For a process
// that isn't known, which began after the copy was made, id is the last known one
// that the world heard of, 0 for none: the start after that took over.
func (a *Agent) here(id, position uint64) uint64 {
	index, _ := a.start(id)
	if index+1 < len(a.processes) {
		position = min(position, a.processes[index+1].From)
	}
	return position
}

// positionCipher seals log positions for one link, so that neither the worlds
// nor whoever sees both can compare them: one AES block holds the process and
// the position.
type positionCipher struct{ block cipher.Block }

func newPositionCipher(key [32]byte) (positionCipher, error) {
	block, err := aes.NewCipher(key[:])
	return positionCipher{block}, err
}

func (c positionCipher) seal(process, position uint64) (covers link.Covers) {
	binary.BigEndian.PutUint64(covers[:8], process)
	binary.BigEndian.PutUint64(covers[8:], position)
	c.block.Encrypt(covers[:], covers[:])
	return covers
}

func (c positionCipher) open(covers link.Covers) (process, position uint64, err error) {
	c.block.Decrypt(covers[:], covers[:])
	if covers[0] != 0 {
		return 0, 0, carnet.Errorf(carnet.Tampered, "the log position that the receiver gave back isn't one of this link")
	}
	return binary.BigEndian.Uint64(covers[:8]), binary.BigEndian.Uint64(covers[8:]), nil
}
