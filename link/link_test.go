package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"carnet"
)

func TestEverythingArrivesOnceAndInOrder(t *testing.T) {
	n := newNet(t, nil)
	source := newSource(n.hub, n.arena.id, 1000, 3)
	s, _, _ := n.run(t, n.config(source))
	await(t, "the last acknowledgement", source.done)
	n.exactlyOnce(t, 1000)
	st := s.Status()
	if !st.Connected || st.Incarnation != 1 || st.Acked != 334 || st.Connections != 1 {
		t.Errorf("status %+v, want connected, incarnation 1, 334 acknowledged, 1 connection", st)
	}
	if source.announced != "reception key" {
		t.Errorf("announcement %q", source.announced)
	}
}

// cutConn breaks after a number of bytes, counting both directions.
type cutConn struct {
	net.Conn
	mu   sync.Mutex
	left int
}

func (c *cutConn) spend(n int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left -= n; c.left < 0 {
		c.Conn.Close()
		return errors.New("cut")
	}
	return nil
}

func (c *cutConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == nil {
		err = c.spend(n)
	}
	return n, err
}

func (c *cutConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	part := min(len(p), max(c.left, 0))
	c.mu.Unlock()
	if _, err := c.Conn.Write(p[:part]); err != nil {
		return 0, err
	}
	if err := c.spend(len(p)); err != nil {
		return part, err
	}
	return len(p), nil
}

func TestConnectionsCutAtRandomBytesLoseAndDoubleNothing(t *testing.T) {
	n := newNet(t, nil)
	source := newSource(n.hub, n.arena.id, 1000, 1)
	cfg := n.config(source)
	random := rand.New(rand.NewPCG(1, 2))
	cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &cutConn{Conn: c, left: random.IntN(15_000)}, nil
	}
	s, _, _ := n.run(t, cfg)
	await(t, "the last acknowledgement", source.done)
	n.exactlyOnce(t, 1000)
	if c := s.Status().Connections; c < 10 {
		t.Errorf("%d connections: the cuts cut nothing", c)
	} else {
		t.Logf("%d connections, %d resumes", c, source.resumed)
	}
}

func TestReceiverRestartsAndSenderResumes(t *testing.T) {
	n := newNet(t, nil)
	source := newSource(n.hub, n.arena.id, 300, 1)
	cfg := n.config(source)
	cfg.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
		n.mu.Lock()
		address := n.address
		n.mu.Unlock()
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	resumed := make(chan struct{}, 300)
	source.onResume = func() { resumed <- struct{}{} }
	n.run(t, cfg)
	for range 3 {
		await(t, "the source to be resumed", resumed)
		n.stop()
		n.serve(t, nil)
	}
	await(t, "the last acknowledgement", source.done)
	n.exactlyOnce(t, 300)
	if source.resumed < 4 {
		t.Errorf("the source was resumed %d times in 3 restarts", source.resumed)
	}
}

func TestCallIsHandledBeforeLaterFrames(t *testing.T) {
	n := newNet(t, nil)
	source := newSource(n.hub, n.arena.id, 40, 1)
	var s *Sender
	started := make(chan struct{})
	replies := make(chan error, 40)
	source.onNext = func(number uint64) error {
		<-started
		if number%10 == 5 {
			// As a source does that doesn't wait for the answer.
			sent := make(chan struct{})
			go func() {
				close(sent)
				_, err := s.Call(context.Background(), fmt.Sprint(number), []byte("bag"))
				replies <- err
			}()
			<-sent
		}
		if number%10 == 0 {
			if body, err := s.Call(context.Background(), fmt.Sprint(number), []byte("bag")); err != nil || string(body) != "bag" {
				return fmt.Errorf("call answered %q, %v", body, err)
			}
		}
		return nil
	}
	s, ended, _ := n.run(t, n.config(source))
	close(started)
	select {
	case <-source.done:
	case err := <-ended:
		t.Fatal(err)
	}
	frames := 0
	for _, e := range n.sink.events {
		if e == "frame" {
			frames++
			continue
		}
		var number int
		fmt.Sscanf(e, "call %d", &number)
		if number%10 == 0 && frames > number-1 {
			t.Errorf("call made before frame %d was handled after it: %v", number, frames)
		}
	}
}

func TestNoFrameIsStoredWhileAnEarlierCallRuns(t *testing.T) {
	n := newNet(t, nil)
	accepted, outcome := make(chan struct{}, 100), make(chan string, 1)
	n.sink.onAccept = func() { accepted <- struct{}{} }
	n.sink.onCall = func(string, []byte) ([]byte, error) {
		select {
		case <-accepted:
			outcome <- "a frame sent after the call was stored before the call had ended"
		case <-time.After(100 * time.Millisecond): // the frame is in the receiver's queue long since
			outcome <- ""
		}
		return nil, nil
	}
	c := n.registered(t)
	source := newSource(n.hub, n.arena.id, 1, 1)
	source.incarnation = 1
	f, err := source.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	message, err := c.codec.message(nil, kindCall, &call{ID: 1, Kind: "bag", Body: []byte{1}})
	if err != nil {
		t.Fatal(err)
	}
	var head [headerSize]byte
	putHeader(head[:], kindFrame, len(f.Bytes))
	if err := c.writeRaw(message, head[:], f.Bytes); err != nil {
		t.Fatal(err)
	}
	if bad := await(t, "the call", outcome); bad != "" {
		t.Error(bad)
	}
	await(t, "the frame", accepted)
}

func TestAcknowledgementsGoBeforeARefusal(t *testing.T) {
	c, err := newCodec()
	if err != nil {
		t.Fatal(err)
	}
	o := newOutbox(c)
	o.acknowledge(4)
	o.acknowledge(5)
	if err := o.message(kindRefuse, &refuse{Number: 6}); err != nil {
		t.Fatal(err)
	}
	o.close()
	data, more := o.take()
	want, err := c.message(nil, kindAck, &ack{Number: 5})
	if err != nil {
		t.Fatal(err)
	}
	if !more || !bytes.HasPrefix(data, want) || kind(data[len(want)+4]) != kindRefuse {
		t.Errorf("the outbox says %x, want the last acknowledgement, then the refusal", data)
	}
	if _, more := o.take(); more {
		t.Error("the outbox says more after it is closed and empty")
	}
}

func TestCallErrors(t *testing.T) {
	n := newNet(t, nil)
	n.sink.onCall = func(kind string, body []byte) ([]byte, error) {
		switch kind {
		case "forbidden":
			return nil, carnet.Errorf(carnet.Forbidden, "not for you").WithFix("ask the owner")
		case "broken":
			return nil, errors.New("password of the database is hunter2")
		}
		return make([]byte, 2<<20), nil
	}
	source := newSource(n.hub, n.arena.id, 1, 1)
	s, _, _ := n.run(t, n.config(source))
	await(t, "the last acknowledgement", source.done)
	for _, c := range []struct {
		kind string
		want carnet.Error
	}{
		{"forbidden", carnet.Error{Code: carnet.Forbidden, Reason: "not for you", Fix: "ask the owner"}},
		{"broken", carnet.Error{Code: carnet.Unavailable, Reason: "the receiver can't do that at the moment"}},
		{"too large an answer", carnet.Error{Code: carnet.TooLarge, Reason: `the answer to call "too large an answer" has 2097152 bytes, a link carries 1044480`, Fix: "ask for less at once"}},
	} {
		_, err := s.Call(t.Context(), c.kind, nil)
		if e, ok := errors.AsType[*carnet.Error](err); !ok || *e != c.want {
			t.Errorf("call %s: %#v, want %+v", c.kind, err, c.want)
		}
	}
	if _, err := s.Call(t.Context(), strings.Repeat("k", maxKind+1), nil); carnet.CodeOf(err) != carnet.TooLarge {
		t.Errorf("a call with too long a kind: %v", err)
	}
	if st := s.Status(); st.Connections != 1 {
		t.Errorf("a call that failed ended the connection: %+v", st)
	}
}

func TestCallWithoutConnectionIsUnavailable(t *testing.T) {
	n := newNet(t, nil)
	s, err := NewSender(n.config(newSource(n.hub, n.arena.id, 1, 1)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Call(t.Context(), "k", nil); carnet.CodeOf(err) != carnet.Unavailable {
		t.Errorf("call without a connection: %v", err)
	}
}

func TestTraceAndNotify(t *testing.T) {
	n := newNet(t, nil)
	source := newSource(n.hub, n.arena.id, 5, 1)
	s, _, _ := n.run(t, n.config(source))
	await(t, "the last acknowledgement", source.done)
	p, ok, err := s.Trace(t.Context(), 3)
	if err != nil || !ok || p != n.sink.frames[2] {
		t.Errorf("trace 3: %v %v %v", p, ok, err)
	}
	if _, ok, err := s.Trace(t.Context(), 6); ok || err != nil {
		t.Errorf("trace 6 found a frame that isn't there: %v", err)
	}
	for i := range 100 {
		if err := n.server.Notify("hub", "demand", fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	// The reply to a call comes after what was notified before it.
	if _, err := s.Call(t.Context(), "sync", nil); err != nil {
		t.Fatal(err)
	}
	source.mu.Lock()
	defer source.mu.Unlock()
	if len(source.notices) != 100 || source.notices[99] != "demand 99" {
		t.Errorf("%d notices arrived: %v", len(source.notices), source.notices)
	}
	if err := n.server.Notify("stranger", "demand", nil); carnet.CodeOf(err) != carnet.Unavailable {
		t.Errorf("notify of a party that isn't connected: %v", err)
	}
}

// A sender is told what it missed at each connection, though it sends nothing: once it
// is welcomed, and once its source is resumed.
func TestASenderIsToldWhenItIsWelcomed(t *testing.T) {
	n := newNet(t, nil)
	n.sink.onAnnounce = func(party carnet.PartyID) {
		if err := n.server.Notify(party, "early", nil); carnet.CodeOf(err) != carnet.Unavailable {
			t.Errorf("notify of a party that isn't welcomed yet: %v", err)
		}
	}
	n.sink.onWelcome = func(party carnet.PartyID) {
		for i := range 3 {
			if err := n.server.Notify(party, "missed", fmt.Append(nil, i)); err != nil {
				t.Error(err)
			}
		}
	}
	source := newSource(n.hub, n.arena.id, 0, 1)
	source.onResume = func() {
		source.mu.Unlock()
		time.Sleep(100 * time.Millisecond)
		source.mu.Lock()
		if len(source.notices) > 3*(source.resumed-1) {
			t.Errorf("%v are told before the source is resumed", source.notices)
		}
	}
	n.run(t, n.config(source))
	for times := 1; times <= 2; times++ {
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			source.mu.Lock()
			notices := slices.Clone(source.notices)
			source.mu.Unlock()
			if len(notices) == 3*times && notices[3*times-1] == "missed 2" {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("connected %d times, it was told %v", times, notices)
			}
		}
		n.server.Disconnect("hub")
	}
}

func TestNewerProcessFencesTheOlder(t *testing.T) {
	n := newNet(t, nil)
	old := newSource(n.hub, n.arena.id, 10, 1)
	_, oldEnded, _ := n.run(t, n.config(old))
	await(t, "the old process's last acknowledgement", old.done)
	newer := newSource(n.hub, n.arena.id, 20, 1)
	s, _, _ := n.run(t, n.config(newer))
	if err := await(t, "the old process to be fenced", oldEnded); carnet.CodeOf(err) != carnet.Fenced || fixOf(err) != "stop this process if a newer one runs, else start it again" {
		t.Errorf("the old process ended with %v, want fenced", err)
	}
	await(t, "the new process's last acknowledgement", newer.done)
	n.exactlyOnce(t, 20)
	if st := s.Status(); st.Connections != 1 {
		t.Errorf("the old process disturbed the new one: %+v", st)
	}
}

func TestForkIsRefusedAlarmedAndFenced(t *testing.T) {
	alarms := make(chan *carnet.Error, 10)
	n := newNet(t, func(c *ServerConfig) {
		c.Alarm = func(_ carnet.PartyID, err *carnet.Error) { alarms <- err }
	})
	source := newSource(n.hub, n.arena.id, 20, 1)
	source.onNext = func(number uint64) error {
		if number == 5 {
			source.last.Hash[0] ^= 1
		}
		return nil
	}
	cfg := n.config(source)
	_, ended, _ := n.run(t, cfg)
	if err := await(t, "the sender to stop", ended); carnet.CodeOf(err) != carnet.Forked {
		t.Errorf("sender ended with %v, want forked", err)
	}
	if err := await(t, "the alarm", alarms); err.Code != carnet.Forked {
		t.Errorf("alarm %v, want forked", err)
	}
	n.exactlyOnce(t, 4)
	if n.sink.state.Incarnation != 2 {
		t.Errorf("incarnation %d is current, want 2, which nobody has", n.sink.state.Incarnation)
	}
	again := newSource(n.hub, n.arena.id, 20, 1)
	n.run(t, n.config(again))
	await(t, "a new process's last acknowledgement", again.done)
	n.exactlyOnce(t, 20)
}

func TestRefusalsForTheMomentAreTriedAgain(t *testing.T) {
	n := newNet(t, nil)
	attempts := 0
	n.sink.onAccept = func() {
		attempts++
		n.sink.refuse = nil
		if attempts%2 == 1 && attempts < 6 {
			n.sink.refuse = carnet.Errorf(carnet.NoSpace, "the disk is full")
		}
	}
	source := newSource(n.hub, n.arena.id, 50, 1)
	s, _, _ := n.run(t, n.config(source))
	await(t, "the last acknowledgement", source.done)
	n.exactlyOnce(t, 50)
	if st := s.Status(); st.Connections < 2 || !strings.Contains(st.LastError, "the disk is full") {
		t.Errorf("status %+v: want the refusal's reason", st)
	}
}

// TestASourceThatBeginsAnewIsNotPutOff: it is no failure, so the waits don't grow.
func TestASourceThatBeginsAnewIsNotPutOff(t *testing.T) {
	n := newNet(t, nil)
	source := newSource(n.hub, n.arena.id, 3, 1)
	var times int
	source.onNext = func(uint64) error {
		if times++; times <= 12 {
			return ErrAnew
		}
		return nil
	}
	cfg := n.config(source)
	cfg.MinBackoff, cfg.MaxBackoff = 5*time.Millisecond, time.Minute
	began := time.Now()
	n.run(t, cfg)
	await(t, "the last acknowledgement", source.done)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("after 12 beginnings the first frame came after %v", took)
	}
}

func TestSourceErrorEndsRun(t *testing.T) {
	n := newNet(t, nil)
	source := newSource(n.hub, n.arena.id, 10, 1)
	broken := errors.New("log row 7 is damaged")
	source.onNext = func(number uint64) error {
		if number == 7 {
			return broken
		}
		return nil
	}
	_, ended, _ := n.run(t, n.config(source))
	if err := await(t, "the sender to stop", ended); !errors.Is(err, broken) {
		t.Errorf("sender ended with %v, want the source's error", err)
	}
}

func TestTamperedFrameIsRefused(t *testing.T) {
	alarms := make(chan *carnet.Error, 100)
	n := newNet(t, func(c *ServerConfig) {
		c.Alarm = func(_ carnet.PartyID, err *carnet.Error) {
			select {
			case alarms <- err:
			default:
			}
		}
		c.Peer = func(pin [32]byte) (Peer, bool) {
			return Peer{Party: "hub", Pin: pin, Key: newParty(t, "hub").public()}, true
		}
	})
	n.run(t, n.config(newSource(n.hub, n.arena.id, 3, 1)))
	if err := await(t, "the alarm", alarms); err.Code != carnet.Tampered {
		t.Errorf("alarm %v, want tampered", err)
	}
	n.exactlyOnce(t, 0)
}

func TestConfigsAreChecked(t *testing.T) {
	n := newNet(t, nil)
	source := newSource(n.hub, n.arena.id, 3, 1)
	for name, change := range map[string]func(*SenderConfig){
		"no party":       func(c *SenderConfig) { c.Self = "" },
		"bad peer":       func(c *SenderConfig) { c.Peer.Party = "Arena" },
		"no address":     func(c *SenderConfig) { c.Peer.Address = "arena" },
		"no pin":         func(c *SenderConfig) { c.Peer.Pin = [32]byte{} },
		"no certificate": func(c *SenderConfig) { c.Certificate.Certificate = nil },
		"no source":      func(c *SenderConfig) { c.Source = nil },
		"window":         func(c *SenderConfig) { c.Window = maxWindow + 1 },
	} {
		cfg := n.config(source)
		change(&cfg)
		if _, err := NewSender(cfg); err == nil {
			t.Errorf("sender config with %s was taken", name)
		}
	}
	for name, change := range map[string]func(*ServerConfig){
		"no party":       func(c *ServerConfig) { c.Self = "" },
		"no certificate": func(c *ServerConfig) { c.Certificate.Certificate = nil },
		"no peers":       func(c *ServerConfig) { c.Peer = nil },
		"no sink":        func(c *ServerConfig) { c.Sink = nil },
		"window":         func(c *ServerConfig) { c.Window = -1 },
		"frame size":     func(c *ServerConfig) { c.MaxFrame = 1 << 30 },
	} {
		cfg := n.server.ServerConfig
		change(&cfg)
		if _, err := NewServer(cfg); err == nil {
			t.Errorf("server config with %s was taken", name)
		}
	}
}

func fixOf(err error) string {
	if e, ok := errors.AsType[*carnet.Error](err); ok {
		return e.Fix
	}
	return ""
}
