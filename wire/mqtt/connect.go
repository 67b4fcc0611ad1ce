package mqtt

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"time"

	"carnet"
	"carnet/wire/mqtt/packet"
)

// connect brings a connection from its first byte to an open session. An error
// has been told to the device where there was a way to.
func (s *session) connect(ctx context.Context) error {
	deadline := time.Now().Add(s.srv.cfg.Limits.ConnectTimeout)
	s.conn.SetReadDeadline(deadline)
	if s.endingSet() { // its own deadline may just have been overwritten
		return s.ending.Load()
	}
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	if t, ok := s.conn.(*tls.Conn); ok {
		if err := t.Handshake(); err != nil {
			return &ending{text: "TLS: " + err.Error(), silent: true}
		}
	}
	h, body, err := s.next()
	if err != nil {
		return err
	}
	if h.Type != packet.CONNECT {
		return &ending{text: "the first packet is " + h.Type.String() + ", not CONNECT", silent: true}
	}
	p, err := packet.ParseConnect(body)
	if err != nil {
		return s.rejectUnreadable(body, p.Version, err.(*packet.Error))
	}
	s.version = p.Version
	s.user = string(p.User[:min(len(p.User), longestUser)])
	return s.open(ctx, &p)
}

// rejectUnreadable answers a CONNECT that could not be read (§3.1.2.2; 3.1.1
// §3.1.2.2): 3.1.1 has an answer only to another version.
func (s *session) rejectUnreadable(body []byte, v packet.Version, err *packet.Error) error {
	switch {
	case err.Reason == packet.UnsupportedProtocolVersion:
		// An older protocol is told in the form of 3.1.1, which it shares.
		s.version = packet.V311
		if n := 2 + int(body[1]); body[0] == 0 && len(body) > n && body[n] > byte(packet.V5) {
			s.version = packet.V5
		}
		return s.reject(err.Reason, 1, err.Text)
	case v == packet.V5:
		s.version = v
		return s.reject(err.Reason, 0, err.Text)
	}
	return &ending{reason: err.Reason, text: err.Text, silent: true}
}

// reject answers CONNECT with a refusal. Code311 0 is no answer for 3.1.1.
func (s *session) reject(r packet.Reason, code311 byte, text string) error {
	ack := packet.Connack{Reason: r}
	switch {
	case s.version == packet.V5 && text != "":
		ack.Properties.SetBytes(packet.ReasonString, []byte(text))
		if s.maxPacket != 0 && len(packet.AppendConnack(nil, &ack, s.version)) > int(s.maxPacket) {
			ack.Properties = packet.Properties{}
		}
	case s.version == packet.V311:
		ack.Reason = packet.Reason(code311)
	}
	if s.version == packet.V5 || code311 != 0 {
		s.write(func(b []byte) []byte { return packet.AppendConnack(b, &ack, s.version) })
	}
	if text == "" {
		text = r.String()
	}
	return &ending{reason: r, text: "CONNECT refused: " + text, silent: true}
}

// longestClientID bounds what a device may call itself; at least 23 are due to
// it (§3.1.3.1).
const longestClientID = 256

// longestUser is how much of a user name is logged.
const longestUser = 64

// open checks what a CONNECT asks for, asks the backend, and answers.
func (s *session) open(ctx context.Context, p *packet.Connect) error {
	s.maxPacket = p.Properties.UintOr(packet.MaximumPacketSize, 0)
	s.quiet = p.Properties.UintOr(packet.RequestProblem, 1) == 0
	s.receiveMax = min(int(p.Properties.UintOr(packet.ReceiveMaximum, 65535)), s.srv.cfg.Limits.Outgoing)
	clientID := string(p.ClientID)
	switch {
	case p.Properties.Bytes(packet.AuthenticationMethod) != nil:
		return s.reject(packet.BadAuthenticationMethod, 0, "enhanced authentication is not supported; use user name and password")
	case len(clientID) > longestClientID:
		return s.reject(packet.ClientIDNotValid, 2, "the client identifier is longer than 256 bytes")
	case clientID == "" && p.Version == packet.V311 && !p.CleanStart:
		return s.reject(packet.ClientIDNotValid, 2, "") // MQTT-3.1.3-8 of 3.1.1
	case p.Will != nil && p.Version == packet.V5 && p.Will.QoS == 2:
		return s.reject(packet.QoSNotSupported, 0, "the will has QoS 2; at most 1 is supported")
	case p.Will != nil && p.Version == packet.V5 && p.Will.Retain:
		return s.reject(packet.RetainNotSupported, 0, "the will asks to be retained; nothing is")
	}
	device, err := s.authenticate(ctx, p)
	if err != nil {
		a, text := answerTo(err)
		if carnet.CodeOf(err) == "" {
			s.srv.cfg.Log.Error("mqtt: authenticate device", "remote", s.out.RemoteAddr(), "err", err)
		}
		return s.reject(a.connack, a.connack311, text)
	}
	if clientID == "" {
		clientID = "carnet-" + rand.Text()
	}
	s.key = sessionKey{device.ID(), clientID}
	if !s.srv.register(s) {
		return s.reject(packet.QuotaExceeded, 3, fmt.Sprintf("the device has %d sessions open, which is all it may have; end one", s.srv.cfg.Limits.DeviceSessions))
	}
	s.device = device
	s.keepWill(p.Will)
	s.accept(p)
	return nil
}

func (s *session) authenticate(ctx context.Context, p *packet.Connect) (Device, error) {
	c := Connect{ClientID: string(p.ClientID), User: string(p.User), Password: p.Password, Version: p.Version}
	if t, ok := s.conn.(*tls.Conn); ok {
		state := t.ConnectionState()
		c.TLS = &state
	}
	if a, ok := s.out.RemoteAddr().(*net.TCPAddr); ok {
		addr, _ := netip.AddrFromSlice(a.IP)
		c.Remote = netip.AddrPortFrom(addr.Unmap(), uint16(a.Port))
	}
	return s.srv.cfg.Backend.Authenticate(ctx, c)
}

// keepWill copies the will: the read buffer is about to be used again.
func (s *session) keepWill(w *packet.Publish) {
	if w == nil {
		return
	}
	s.will = &Message{
		Topic:       append([]byte(nil), w.Topic...),
		ContentType: append([]byte(nil), w.Properties.Bytes(packet.ContentType)...),
		Payload:     append([]byte(nil), w.Payload...),
		Retain:      w.Retain,
	}
}

// accept sends CONNACK with what this server does and does not do (§3.2.2.3).
func (s *session) accept(p *packet.Connect) {
	limits := &s.srv.cfg.Limits
	s.keepAlive = time.Duration(p.KeepAlive) * time.Second
	var ack packet.Connack
	if p.Version == packet.V5 {
		props := &ack.Properties
		props.SetUint(packet.ReceiveMaximum, uint32(limits.ReceiveMaximum))
		props.SetUint(packet.MaximumPacketSize, uint32(limits.PacketSize))
		props.SetUint(packet.MaximumQoS, 1)
		props.SetUint(packet.RetainAvailable, 0)
		props.SetUint(packet.SubscriptionIDsAvailable, 0)
		props.SetUint(packet.SharedAvailable, 0)
		if len(p.ClientID) == 0 {
			props.SetBytes(packet.AssignedClientID, []byte(s.key.client))
		}
		if p.Properties.UintOr(packet.SessionExpiry, 0) != 0 {
			props.SetUint(packet.SessionExpiry, 0) // a session ends with its connection
		}
		if s.keepAlive == 0 || s.keepAlive > limits.KeepAlive {
			s.keepAlive = max(limits.KeepAlive.Truncate(time.Second), time.Second)
			props.SetUint(packet.ServerKeepAlive, uint32(s.keepAlive/time.Second))
		}
	}
	s.write(func(b []byte) []byte { return packet.AppendConnack(b, &ack, s.version) })
}
