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
	ID     uint32 `json:"id"`     // random; 0 is none
	Before uint32 `json:"before"` // the one that ran before it on this store
	From   uint64 `json:"from"`   // the first position that it gives out
}

// maxProcesses is how many starts are remembered.
const maxProcesses = 1000

const processesID = "processes"

// begin records that a process has started on the store.
func (a *Agent) begin(ctx context.Context) error {
	var random [4]byte
	rand.Read(random[:])
	a.process = process{ID: max(1, binary.BigEndian.Uint32(random[:])), From: a.next}
	if n := len(a.processes); n > 0 {
		a.process.Before = a.processes[n-1].ID
	}
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
func (a *Agent) start(id uint32) (index int, known bool) {
	index = slices.IndexFunc(a.processes, func(p process) bool { return p.ID == id })
	return index, index >= 0
}

// known is the process itself if it is recorded here, else the one before it,
// and false if that isn't either.
func (a *Agent) known(p process) (id uint32, ok bool) {
	if _, ok := a.start(p.ID); ok {
		return p.ID, true
	}
	_, ok = a.start(p.Before)
	return p.Before, ok
}

// here turns a position that a process gave out into one of this store's log:
// what the process handled beyond the point where the next one took over was
// lost with a restore, and its positions were given out again. For a process
// that isn't recorded, which began after the copy was made, id is the last
// recorded one that ran before it, 0 for none: the start after that took over.
func (a *Agent) here(id uint32, position uint64) uint64 {
	index, _ := a.start(id)
	if index+1 < len(a.processes) {
		position = min(position, a.processes[index+1].From)
	}
	return position
}

// positionCipher seals log positions for one link, so that neither the worlds
// nor whoever sees both can compare them: one AES block holds a zero byte, the
// process, the one before it, and the position in 7 bytes.
type positionCipher struct{ block cipher.Block }

func newPositionCipher(key [32]byte) (positionCipher, error) {
	block, err := aes.NewCipher(key[:])
	return positionCipher{block}, err
}

func (c positionCipher) seal(p process, position uint64) (covers link.Covers) {
	binary.BigEndian.PutUint64(covers[8:], position)
	binary.BigEndian.PutUint32(covers[1:], p.ID)
	binary.BigEndian.PutUint32(covers[5:], p.Before)
	c.block.Encrypt(covers[:], covers[:])
	return covers
}

func (c positionCipher) open(covers link.Covers) (p process, position uint64, err error) {
	c.block.Decrypt(covers[:], covers[:])
	if covers[0] != 0 {
		return p, 0, carnet.Errorf(carnet.Tampered, "the log position that the receiver gave back isn't one of this link")
	}
	p.ID, p.Before = binary.BigEndian.Uint32(covers[1:]), binary.BigEndian.Uint32(covers[5:])
	covers[8] = 0
	return p, binary.BigEndian.Uint64(covers[8:]), nil
}
