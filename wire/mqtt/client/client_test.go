package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"carnet/wire/mqtt/packet"
)

// script is a server that does what a test tells it to.
type script struct {
	t *testing.T
	v packet.Version
	r reader
}

// play connects a client to a script. Act runs after CONNECT was answered.
func play(t *testing.T, cfg Config, ack packet.Connack, act func(s *script)) (*Client, error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { ln.Close() })
	done := make(chan struct{})
	t.Cleanup(func() { <-done })
	v := max(cfg.Version, packet.V311)
	go func() {
		defer close(done)
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		s := &script{t, v, reader{conn: conn}}
		s.expect(packet.CONNECT)
		s.send(packet.AppendConnack(nil, &ack, v))
		if act != nil {
			act(s)
		}
	}()
	cfg.Address = ln.Addr().String()
	return Dial(t.Context(), cfg)
}

func (s *script) send(b []byte) {
	if _, err := s.r.conn.Write(b); err != nil {
		s.t.Errorf("script: %v", err)
	}
}

func (s *script) expect(want packet.Type) (packet.Header, []byte) {
	s.r.conn.SetReadDeadline(time.Now().Add(30 * time.Second)) // a hung test fails
	h, body, err := s.r.next()
	if err != nil || h.Type != want {
		s.t.Errorf("script: got %v, %v; want %v", h.Type, err, want)
	}
	return h, body
}

func (s *script) publish() (p packet.Publish) {
	h, body := s.expect(packet.PUBLISH)
	if err := p.Parse(h.Flags, body, s.v); err != nil {
		s.t.Errorf("script: %v", err)
	}
	return p
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestCountsOutcomes(t *testing.T) {
	acks := make(chan Ack, 10)
	c, err := play(t, Config{Version: packet.V5, Acknowledged: func(a Ack) { acks <- a }}, packet.Connack{}, func(s *script) {
		for i := range 3 {
			p := s.publish()
			if string(p.Payload) != fmt.Sprint(i) || string(p.Properties.Bytes(packet.ContentType)) != "text/plain" {
				t.Errorf("got %+v", p)
			}
			reason, text := packet.Success, ""
			if i == 1 {
				reason, text = packet.PayloadFormatInvalid, "not SenML"
			}
			s.send(packet.AppendAck(nil, p.ID, reason, text, s.v))
		}
		s.expect(packet.DISCONNECT)
	})
	must(t, err)
	for i := range 3 {
		must(t, c.Publish(Message{Topic: "a", ContentType: "text/plain", Payload: []byte(fmt.Sprint(i)), QoS: 1, Tag: uint64(100 + i)}))
	}
	must(t, c.Drain(t.Context()))
	for i := range 3 {
		a := <-acks
		if a.Tag != uint64(100+i) || a.Reason.Failed() != (i == 1) || (a.Text != "") != (i == 1) {
			t.Errorf("acknowledgement %d: %+v", i, a)
		}
	}
	st := c.Stats()
	if st.Published != 3 || st.Acknowledged != 2 || st.Refused[packet.PayloadFormatInvalid] != 1 || c.InFlight() != 0 {
		t.Errorf("%+v", st)
	}
	must(t, c.Close())
	if err := c.Publish(Message{Topic: "a", QoS: 1}); !errors.Is(err, ErrClosed) {
		t.Errorf("Publish after Close: %v", err)
	}
}

func TestKeepsToTheReceiveMaximum(t *testing.T) {
	var ack packet.Connack
	ack.Properties.SetUint(packet.ReceiveMaximum, 2)
	third := make(chan struct{})
	c, err := play(t, Config{Version: packet.V5, InFlight: 10}, ack, func(s *script) {
		first, second := s.publish(), s.publish() // written without a Flush, since the window is full
		select {
		case <-third:
			t.Error("three messages in flight")
		default:
		}
		s.send(packet.AppendAck(nil, first.ID, 0, "", s.v))
		s.send(packet.AppendAck(nil, second.ID, 0, "", s.v))
		p := s.publish()
		s.send(packet.AppendAck(nil, p.ID, 0, "", s.v))
		s.expect(packet.DISCONNECT)
	})
	must(t, err)
	for range 3 {
		must(t, c.Publish(Message{Topic: "a", QoS: 1}))
	}
	close(third)
	must(t, c.Drain(t.Context()))
	must(t, c.Close())
}

func TestPublishesFromTheCallback(t *testing.T) {
	const total = 50
	var c *Client
	ready, sent := make(chan struct{}), 1
	done := make(chan struct{})
	cfg := Config{InFlight: 1, Acknowledged: func(Ack) {
		<-ready
		if sent == total {
			close(done)
			return
		}
		sent++
		if err := c.Publish(Message{Topic: "a", QoS: 1}); err != nil {
			t.Error(err)
		}
	}}
	c, err := play(t, cfg, packet.Connack{}, func(s *script) {
		for range total {
			s.send(packet.AppendAck(nil, s.publish().ID, 0, "", s.v))
		}
		s.expect(packet.DISCONNECT)
	})
	must(t, err)
	close(ready)
	must(t, c.Publish(Message{Topic: "a", QoS: 1}))
	must(t, c.Flush())
	<-done
	must(t, c.Close())
}

func TestHearsWhatItSubscribesTo(t *testing.T) {
	heard := make(chan string, 1)
	cfg := Config{Version: packet.V5, Received: func(m Message) { heard <- m.Topic + " " + m.ContentType + " " + string(m.Payload) }}
	c, err := play(t, cfg, packet.Connack{}, func(s *script) {
		for _, reasons := range [][]packet.Reason{{packet.GrantedQoS1}, {packet.NotAuthorized}} {
			_, body := s.expect(packet.SUBSCRIBE)
			p, err := packet.ParseSubscribe(body, s.v)
			if err != nil {
				t.Error(err)
			}
			s.send(packet.AppendSuback(nil, packet.SUBACK, p.ID, reasons, "not yours", s.v))
		}
		p := packet.Publish{Topic: []byte("t"), QoS: 1, ID: 77, Payload: []byte("x")}
		p.Properties.SetBytes(packet.ContentType, []byte("text/plain"))
		s.send(p.Append(nil, s.v))
		_, body := s.expect(packet.PUBACK)
		var ack packet.Ack
		if err := ack.Parse(body, s.v); err != nil || ack.ID != 77 {
			t.Errorf("PUBACK %+v, %v", ack, err)
		}
	})
	must(t, err)
	must(t, c.Subscribe(t.Context(), "t", 1))
	r, ok := errors.AsType[*Refusal](c.Subscribe(t.Context(), "u", 1))
	if !ok || r.Packet != packet.SUBACK || r.Reason != packet.NotAuthorized || r.Text != "not yours" {
		t.Errorf("refusal %+v", r)
	}
	if got := <-heard; got != "t text/plain x" {
		t.Errorf("heard %q", got)
	}
	<-c.Done()
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		version packet.Version
		ack     packet.Reason
		want    packet.Reason
	}{
		{packet.V311, 4, packet.BadUserNameOrPassword},
		{packet.V311, 5, packet.NotAuthorized},
		{packet.V5, packet.Banned, packet.Banned},
	} {
		_, err := play(t, Config{Version: c.version}, packet.Connack{Reason: c.ack}, nil)
		if r, ok := errors.AsType[*Refusal](err); !ok || r.Packet != packet.CONNACK || r.Reason != c.want {
			t.Errorf("CONNACK %d: %v", c.ack, err)
		}
	}
	c, err := play(t, Config{Version: packet.V5}, packet.Connack{}, func(s *script) {
		s.publish()
		s.send(packet.AppendDisconnect(nil, packet.ServerShuttingDown, "back soon", s.v))
	})
	must(t, err)
	must(t, c.Publish(Message{Topic: "a", QoS: 1}))
	if r, ok := errors.AsType[*Refusal](c.Drain(t.Context())); !ok || r.Reason != packet.ServerShuttingDown || r.Text != "back soon" {
		t.Errorf("Drain: %v", c.Err())
	}
	if c.InFlight() != 1 {
		t.Errorf("%d in flight, want the one that was not acknowledged", c.InFlight())
	}
}

func TestRefusesUnknownAcknowledgements(t *testing.T) {
	c, err := play(t, Config{}, packet.Connack{}, func(s *script) {
		id := s.publish().ID
		s.send(packet.AppendAck(packet.AppendAck(nil, id, 0, "", s.v), id, 0, "", s.v))
	})
	must(t, err)
	must(t, c.Publish(Message{Topic: "a", QoS: 1}))
	_ = c.Flush() // the second may have come already
	<-c.Done()
	if st := c.Stats(); st.Acknowledged != 1 || c.Err() == nil {
		t.Errorf("%+v, %v", st, c.Err())
	}
}

func TestStaysAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		var ack packet.Connack
		ack.Properties.SetUint(packet.ServerKeepAlive, 5)
		dialed := make(chan *Client)
		go func() {
			c, err := open(t.Context(), Config{Version: packet.V5, KeepAlive: time.Minute, InFlight: 1}, ours)
			if err != nil {
				t.Error(err)
			}
			dialed <- c
		}()
		s := &script{t, packet.V5, reader{conn: theirs}}
		s.expect(packet.CONNECT)
		s.send(packet.AppendConnack(nil, &ack, s.v))
		c := <-dialed
		start := time.Now()
		for range 3 {
			s.expect(packet.PINGREQ)
			s.send(packet.AppendEmpty(nil, packet.PINGRESP))
		}
		if took := time.Since(start); took != 15*time.Second {
			t.Errorf("three pings took %s, want 15 s", took)
		}
		theirs.Close()
		<-c.Done()
	})
}

func TestDialEndsWithItsContext(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer ln.Close() // nobody answers
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := Dial(ctx, Config{Address: ln.Addr().String()}); err == nil {
		t.Error("connected to nobody")
	}
}
