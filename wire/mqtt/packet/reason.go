package packet

import "fmt"

// Reason is a reason code of MQTT 5 (§2.4).
type Reason byte

// The reason codes.
const (
	Success                           Reason = 0x00
	GrantedQoS1                       Reason = 0x01
	DisconnectWithWill                Reason = 0x04
	NoMatchingSubscribers             Reason = 0x10
	NoSubscriptionExisted             Reason = 0x11
	UnspecifiedError                  Reason = 0x80
	MalformedPacket                   Reason = 0x81
	ProtocolError                     Reason = 0x82
	ImplementationSpecificError       Reason = 0x83
	UnsupportedProtocolVersion        Reason = 0x84
	ClientIDNotValid                  Reason = 0x85
	BadUserNameOrPassword             Reason = 0x86
	NotAuthorized                     Reason = 0x87
	ServerUnavailable                 Reason = 0x88
	ServerBusy                        Reason = 0x89
	Banned                            Reason = 0x8A
	ServerShuttingDown                Reason = 0x8B
	BadAuthenticationMethod           Reason = 0x8C
	KeepAliveTimeout                  Reason = 0x8D
	SessionTakenOver                  Reason = 0x8E
	TopicFilterInvalid                Reason = 0x8F
	TopicNameInvalid                  Reason = 0x90
	PacketIDInUse                     Reason = 0x91
	PacketIDNotFound                  Reason = 0x92
	ReceiveMaximumExceeded            Reason = 0x93
	TopicAliasInvalid                 Reason = 0x94
	PacketTooLarge                    Reason = 0x95
	MessageRateTooHigh                Reason = 0x96
	QuotaExceeded                     Reason = 0x97
	AdministrativeAction              Reason = 0x98
	PayloadFormatInvalid              Reason = 0x99
	RetainNotSupported                Reason = 0x9A
	QoSNotSupported                   Reason = 0x9B
	UseAnotherServer                  Reason = 0x9C
	ServerMoved                       Reason = 0x9D
	SharedSubscriptionsNotSupported   Reason = 0x9E
	ConnectionRateExceeded            Reason = 0x9F
	MaximumConnectTime                Reason = 0xA0
	SubscriptionIDsNotSupported       Reason = 0xA1
	WildcardSubscriptionsNotSupported Reason = 0xA2
)

var reasonNames = map[Reason]string{
	Success: "success", GrantedQoS1: "granted QoS 1", DisconnectWithWill: "disconnect with will message",
	NoMatchingSubscribers: "no matching subscribers", NoSubscriptionExisted: "no subscription existed",
	UnspecifiedError: "unspecified error", MalformedPacket: "malformed packet", ProtocolError: "protocol error",
	ImplementationSpecificError: "implementation specific error", UnsupportedProtocolVersion: "unsupported protocol version",
	ClientIDNotValid: "client identifier not valid", BadUserNameOrPassword: "bad user name or password",
	NotAuthorized: "not authorized", ServerUnavailable: "server unavailable", ServerBusy: "server busy", Banned: "banned",
	ServerShuttingDown: "server shutting down", BadAuthenticationMethod: "bad authentication method",
	KeepAliveTimeout: "keep alive timeout", SessionTakenOver: "session taken over", TopicFilterInvalid: "topic filter invalid",
	TopicNameInvalid: "topic name invalid", PacketIDInUse: "packet identifier in use", PacketIDNotFound: "packet identifier not found",
	ReceiveMaximumExceeded: "receive maximum exceeded", TopicAliasInvalid: "topic alias invalid", PacketTooLarge: "packet too large",
	MessageRateTooHigh: "message rate too high", QuotaExceeded: "quota exceeded", AdministrativeAction: "administrative action",
	PayloadFormatInvalid: "payload format invalid", RetainNotSupported: "retain not supported", QoSNotSupported: "QoS not supported",
	UseAnotherServer: "use another server", ServerMoved: "server moved", SharedSubscriptionsNotSupported: "shared subscriptions not supported",
	ConnectionRateExceeded: "connection rate exceeded", MaximumConnectTime: "maximum connect time",
	SubscriptionIDsNotSupported: "subscription identifiers not supported", WildcardSubscriptionsNotSupported: "wildcard subscriptions not supported",
}

func (r Reason) String() string {
	if name := reasonNames[r]; name != "" {
		return name
	}
	return fmt.Sprintf("reason 0x%02x", byte(r))
}

// Failed reports whether r says that something was not done.
func (r Reason) Failed() bool { return r >= 0x80 }
