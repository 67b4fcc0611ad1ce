package mqtt

import (
	"errors"

	"carnet"
	"carnet/wire/mqtt/packet"
)

// answer is how one carnet code is told to a device, in each place where MQTT
// has room for a reason.
type answer struct {
	connack    packet.Reason // MQTT 5
	connack311 byte          // 3.1.1: 2 identifier, 3 unavailable, 4 user or password, 5 not authorized
	puback     packet.Reason
	suback     packet.Reason // 3.1.1 has only 0x80
	disconnect packet.Reason // ends a session on Retry
}

// answers is the one table from codes to reasons. A code that is not in it, or
// an error that is no *carnet.Error, gets the answer to "", and no text.
var answers = map[carnet.Code]answer{
	"": {packet.UnspecifiedError, 3, packet.UnspecifiedError, packet.UnspecifiedError, packet.UnspecifiedError},

	carnet.Malformed:       {packet.ClientIDNotValid, 2, packet.PayloadFormatInvalid, packet.TopicFilterInvalid, packet.ImplementationSpecificError},
	carnet.UnknownProperty: {packet.UnspecifiedError, 3, packet.ImplementationSpecificError, packet.UnspecifiedError, packet.ImplementationSpecificError},
	carnet.WrongType:       {packet.UnspecifiedError, 3, packet.ImplementationSpecificError, packet.UnspecifiedError, packet.ImplementationSpecificError},
	carnet.WrongUnit:       {packet.UnspecifiedError, 3, packet.ImplementationSpecificError, packet.UnspecifiedError, packet.ImplementationSpecificError},
	carnet.OutOfRange:      {packet.UnspecifiedError, 3, packet.ImplementationSpecificError, packet.UnspecifiedError, packet.ImplementationSpecificError},
	carnet.Incomplete:      {packet.UnspecifiedError, 3, packet.ImplementationSpecificError, packet.UnspecifiedError, packet.ImplementationSpecificError},
	carnet.TooOld:          {packet.UnspecifiedError, 3, packet.ImplementationSpecificError, packet.UnspecifiedError, packet.ImplementationSpecificError},
	carnet.TooNew:          {packet.UnspecifiedError, 3, packet.ImplementationSpecificError, packet.UnspecifiedError, packet.ImplementationSpecificError},
	carnet.TooLarge:        {packet.QuotaExceeded, 3, packet.QuotaExceeded, packet.QuotaExceeded, packet.QuotaExceeded},

	carnet.Unauthenticated: {packet.BadUserNameOrPassword, 4, packet.NotAuthorized, packet.NotAuthorized, packet.NotAuthorized},
	carnet.Forbidden:       {packet.NotAuthorized, 5, packet.NotAuthorized, packet.NotAuthorized, packet.NotAuthorized},
	carnet.NotFound:        {packet.NotAuthorized, 5, packet.TopicNameInvalid, packet.NotAuthorized, packet.NotAuthorized},
	carnet.Conflict:        {packet.ServerBusy, 3, packet.ImplementationSpecificError, packet.UnspecifiedError, packet.ServerBusy},
	carnet.Unavailable:     {packet.ServerUnavailable, 3, packet.UnspecifiedError, packet.UnspecifiedError, packet.ServerBusy},
	carnet.NoSpace:         {packet.QuotaExceeded, 3, packet.QuotaExceeded, packet.QuotaExceeded, packet.QuotaExceeded},

	carnet.Fenced:   {packet.ServerUnavailable, 3, packet.ImplementationSpecificError, packet.UnspecifiedError, packet.ImplementationSpecificError},
	carnet.Forked:   {packet.UnspecifiedError, 3, packet.ImplementationSpecificError, packet.UnspecifiedError, packet.ImplementationSpecificError},
	carnet.Tampered: {packet.UnspecifiedError, 3, packet.ImplementationSpecificError, packet.UnspecifiedError, packet.ImplementationSpecificError},
}

// answerTo finds how err is told to a device, and the text that may be shown.
func answerTo(err error) (answer, string) {
	e, ok := errors.AsType[*carnet.Error](err)
	if !ok || e == nil {
		return answers[""], ""
	}
	a, known := answers[e.Code]
	if !known {
		return answers[""], ""
	}
	return a, shown(e.Error())
}

// shown cuts text to a length that is no burden to a device.
func shown(text string) string {
	const longest = 512
	if len(text) <= longest {
		return text
	}
	cut := longest
	for text[cut]&0xc0 == 0x80 { // not inside a character
		cut--
	}
	return text[:cut]
}

// ending says why a session ends. Text is for the device (MQTT 5) and the log.
type ending struct {
	reason  packet.Reason
	text    string
	orderly bool // wait for messages that were handed over
	silent  bool // the device left, or its connection broke: nobody to tell
	clean   bool // the device said goodbye: its will is void
}

func (e *ending) Error() string { return e.text }

// broken reports whether it is the device's doing: what it sent.
func (e *ending) broken() bool {
	switch e.reason {
	case packet.MalformedPacket, packet.ProtocolError, packet.ReceiveMaximumExceeded, packet.TopicAliasInvalid,
		packet.PacketTooLarge, packet.RetainNotSupported, packet.QoSNotSupported, packet.SubscriptionIDsNotSupported:
		return !e.silent
	}
	return false
}

// refusal says what is broken for the device's owner.
func (e *ending) refusal() *carnet.Error {
	switch e.reason {
	case packet.PacketTooLarge:
		return carnet.Errorf(carnet.TooLarge, "%s; the connection was closed", e.text).WithFix("send smaller messages")
	case packet.QoSNotSupported:
		return carnet.Errorf(carnet.Malformed, "a message has QoS 2, which is not supported; the connection was closed").WithFix("publish with QoS 1")
	}
	return carnet.Errorf(carnet.Malformed, "the device broke the protocol: %s; the connection was closed", e.text).WithFix("have the device's MQTT client mended")
}

// endingFor makes the ending that a packet's error demands.
func endingFor(err error) *ending {
	if e, ok := errors.AsType[*ending](err); ok {
		return e
	}
	if e, ok := errors.AsType[*packet.Error](err); ok {
		return &ending{reason: e.Reason, text: e.Text}
	}
	return &ending{reason: packet.UnspecifiedError, text: err.Error(), silent: true}
}
