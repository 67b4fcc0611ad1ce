package mqtt

import (
	"strings"

	"carnet"
	"carnet/wire/mqtt/packet"
)

// handle does what one packet of an open session asks for.
func (s *session) handle(h packet.Header, body []byte) error {
	switch h.Type {
	case packet.PUBLISH:
		return s.handlePublish(h.Flags, body)
	case packet.PUBACK:
		return s.handlePuback(body)
	case packet.SUBSCRIBE:
		return s.handleSubscribe(body)
	case packet.UNSUBSCRIBE:
		return s.handleUnsubscribe(body)
	case packet.PINGREQ:
		if len(body) > 0 {
			return &packet.Error{Reason: packet.MalformedPacket, Text: "PINGREQ with a payload"}
		}
		s.write(func(b []byte) []byte { return packet.AppendEmpty(b, packet.PINGRESP) })
		return nil
	case packet.DISCONNECT:
		return s.handleDisconnect(body)
	case packet.CONNECT:
		return &packet.Error{Reason: packet.ProtocolError, Text: "a second CONNECT"}
	}
	return &packet.Error{Reason: packet.ProtocolError, Text: h.Type.String() + " is not a packet for this server"}
}

func (s *session) handlePublish(flags byte, body []byte) error {
	p := &s.publish
	if err := p.Parse(flags, body, s.version); err != nil {
		return err
	}
	if err := s.admissible(p); err != nil {
		return err
	}
	m := Message{Topic: p.Topic, Payload: p.Payload, QoS: p.QoS, Retain: p.Retain, Dup: p.Dup}
	if s.version == packet.V5 {
		m.ContentType = p.Properties.Bytes(packet.ContentType)
	}
	token := uint64(0)
	if p.QoS == 1 {
		var err error
		if token, err = s.takeIn(p.ID); err != nil {
			return err
		}
	}
	s.received++
	s.device.Publish(m, s, token)
	return nil
}

// admissible checks p against what CONNACK has said of this server.
func (s *session) admissible(p *packet.Publish) error {
	_, alias := p.Properties.Uint(packet.TopicAlias)
	switch {
	case p.QoS == 2:
		return &packet.Error{Reason: packet.QoSNotSupported, Text: "QoS 2 is not supported; use QoS 1"}
	case s.version == packet.V311:
		return nil
	case p.Retain:
		return &packet.Error{Reason: packet.RetainNotSupported, Text: "nothing is retained; publish without the retain flag"}
	case alias:
		return &packet.Error{Reason: packet.TopicAliasInvalid, Text: "topic aliases are not supported: the topic alias maximum is 0"}
	case len(p.Topic) == 0:
		return &packet.Error{Reason: packet.ProtocolError, Text: "the topic name is empty"}
	}
	if _, found := p.Properties.Uint(packet.SubscriptionID); found {
		return &packet.Error{Reason: packet.ProtocolError, Text: "a subscription identifier from a client"} // MQTT-3.3.4-6
	}
	return nil
}

// takeIn makes room for a message among those in flight. MQTT 5 was told the
// receive maximum and must keep to it (§3.3.4); 3.1.1 has to wait for room.
func (s *session) takeIn(id uint16) (token uint64, err error) {
	most := uint32(s.srv.cfg.Limits.ReceiveMaximum)
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.inflight.len >= most {
		switch {
		case s.endingSet():
			return 0, s.ending.Load()
		case s.version == packet.V5:
			return 0, &packet.Error{Reason: packet.ReceiveMaximumExceeded, Text: "more messages in flight than the receive maximum"}
		case s.inflight.due() && !s.out.blocked():
			s.mu.Unlock()
			s.scratch = s.flush(s.scratch)
			s.mu.Lock()
		default:
			s.wait()
		}
	}
	return s.inflight.add(id), nil
}

func (s *session) handlePuback(body []byte) error {
	var ack packet.Ack
	if err := ack.Parse(body, s.version); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.outgoing.acknowledged(ack.ID) && s.version == packet.V5 {
		return &packet.Error{Reason: packet.ProtocolError, Text: "PUBACK of a message that was not sent"}
	}
	return nil
}

// toldTexts is of how many filters of a SUBSCRIBE it is told why they are refused.
const toldTexts = 4

func (s *session) handleSubscribe(body []byte) error {
	p, err := packet.ParseSubscribe(body, s.version)
	if err != nil {
		return err
	}
	if _, found := p.Properties.Uint(packet.SubscriptionID); found {
		return &packet.Error{Reason: packet.SubscriptionIDsNotSupported, Text: "subscription identifiers are not supported"}
	}
	reasons := make([]packet.Reason, len(p.Subscriptions))
	var texts []string
	for i, sub := range p.Subscriptions {
		var text string
		if reasons[i], text = s.subscribe(sub); text != "" && len(texts) < toldTexts {
			texts = append(texts, text)
		}
		if s.version == packet.V311 && reasons[i].Failed() {
			reasons[i] = packet.UnspecifiedError // 0x80, its only failure (3.1.1 §3.9.3)
		}
	}
	text := shown(strings.Join(texts, "; "))
	if s.quiet {
		text = ""
	}
	s.write(func(b []byte) []byte {
		if fit := packet.AppendSuback(b, packet.SUBACK, p.ID, reasons, text, s.version); s.fits(len(fit) - len(b)) {
			return fit
		}
		return packet.AppendSuback(b, packet.SUBACK, p.ID, reasons, "", s.version)
	})
	return nil
}

// subscribe adds or replaces one subscription, or says why not.
func (s *session) subscribe(sub packet.Subscription) (packet.Reason, string) {
	filter := string(sub.Filter)
	if !packet.ValidFilter(sub.Filter) {
		return packet.TopicFilterInvalid, "a wildcard stands where none may"
	}
	if strings.HasPrefix(filter, "$share/") {
		return packet.SharedSubscriptionsNotSupported, "shared subscriptions are not supported"
	}
	most, err := s.device.Subscribe(filter)
	if err != nil {
		a, text := answerTo(err)
		if carnet.CodeOf(err) == "" {
			s.srv.cfg.Log.Error("mqtt: subscribe device", "device", s.key.device, "err", err)
		}
		return a.suback, text
	}
	added := subscription{filter, min(sub.QoS, most, 1)}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.subs {
		if s.subs[i].filter == filter {
			s.subs[i] = added
			return packet.Reason(added.qos), ""
		}
	}
	if len(s.subs) >= s.srv.cfg.Limits.Subscriptions {
		return packet.QuotaExceeded, "too many subscriptions"
	}
	s.subs = append(s.subs, added)
	return packet.Reason(added.qos), ""
}

func (s *session) handleUnsubscribe(body []byte) error {
	p, err := packet.ParseUnsubscribe(body, s.version)
	if err != nil {
		return err
	}
	reasons := make([]packet.Reason, len(p.Filters))
	s.mu.Lock()
	for i, filter := range p.Filters {
		reasons[i] = packet.NoSubscriptionExisted
		for j := range s.subs {
			if s.subs[j].filter == string(filter) {
				s.subs = append(s.subs[:j], s.subs[j+1:]...)
				reasons[i] = packet.Success
				break
			}
		}
	}
	s.mu.Unlock()
	s.write(func(b []byte) []byte {
		return packet.AppendSuback(b, packet.UNSUBACK, p.ID, reasons, "", s.version)
	})
	return nil
}

// handleDisconnect ends the session as the device wishes. 0x04 wants the will
// published; a session expiry that was 0 must stay 0 (§3.14.2.2.2), and here it
// always is.
func (s *session) handleDisconnect(body []byte) error {
	p, err := packet.ParseDisconnect(body, s.version)
	if err != nil {
		return err
	}
	return &ending{reason: p.Reason, text: "the device disconnected: " + p.Reason.String(), silent: true, clean: p.Reason == packet.Success}
}
