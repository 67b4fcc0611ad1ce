package link

import (
	"sync"

	"carnet"
)

// maxOutbox is how many bytes may wait for a sender that doesn't read.
const maxOutbox = 4 << 20

// outbox collects what a receiver has to say to one sender, so that nobody waits
// for a sender that doesn't read: its own goroutine writes. Acknowledgements are
// coalesced into the last one.
type outbox struct {
	codec codec
	wake  chan struct{} // capacity 1

	mu     sync.Mutex
	queue  []byte // owned by mu: encoded messages
	spare  []byte // owned by mu: the memory of the queue before
	acked  uint64 // owned by mu: to be acknowledged; 0: nothing
	closed bool   // owned by mu: nothing more is taken
}

func newOutbox(c codec) *outbox { return &outbox{codec: c, wake: make(chan struct{}, 1)} }

// message queues one control message.
func (o *outbox) message(k kind, m any) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return carnet.Errorf(carnet.Unavailable, "the connection has ended")
	}
	if len(o.queue) > maxOutbox {
		return carnet.Errorf(carnet.Unavailable, "the peer doesn't read what it is told")
	}
	o.settle()
	queue, err := o.codec.message(o.queue, k, m)
	if err != nil {
		return err
	}
	o.queue = queue
	o.signal()
	return nil
}

// acknowledge queues an acknowledgement in place of any that waits.
func (o *outbox) acknowledge(number uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.acked = number
	o.signal()
}

// settle queues the acknowledgement that waits: before a refusal, or the sender
// would end the connection without it. The caller holds mu.
func (o *outbox) settle() {
	if o.acked == 0 {
		return
	}
	// An array of one number is always encoded.
	if queue, err := o.codec.message(o.queue, kindAck, &ack{Number: o.acked}); err == nil {
		o.queue = queue
	}
	o.acked = 0
}

// close lets take end once all is taken.
func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	o.signal()
}

func (o *outbox) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// take returns what is to be written now, valid until the next take, and false
// once the outbox is closed and empty.
func (o *outbox) take() (data []byte, more bool) {
	for {
		o.mu.Lock()
		o.settle()
		data, closed := o.queue, o.closed
		o.queue, o.spare = o.spare[:0], data
		o.mu.Unlock()
		if len(data) > 0 {
			return data, true
		}
		if closed {
			return nil, false
		}
		<-o.wake
	}
}
