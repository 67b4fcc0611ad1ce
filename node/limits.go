package node

import (
	"cmp"

	"carnet"
	"carnet/porter"
	"carnet/thing"
	"carnet/wire/mqtt"
)

// Limits bound what callers may hold open at once, so that one can't keep others
// out. A limit that is left out takes its default.
type Limits struct {
	// Live is how many live subscriptions a world has, and LiveOfToken how many with
	// one token: one more is answered with 429. Default 4,096 and 64.
	Live        int `toml:"live,omitempty"`
	LiveOfToken int `toml:"live_of_token,omitempty"`

	// HTTPConnections is how many connections each HTTP listener has, of one address
	// (of IPv6, one /64) at most a quarter. For one more, the one is closed that has
	// waited longest with no call under way whose caller is known, at the address where
	// most wait. Default 8,192.
	HTTPConnections int `toml:"http_connections,omitempty"`

	// MQTTConnections is how many connections of devices a things agent has. For one
	// more, the one is closed that has waited longest without a session, at the address
	// where most do. Default 10,000.
	MQTTConnections int `toml:"mqtt_connections,omitempty"`
	// MQTTConnecting is how many of them one address may have without a session.
	// Default a quarter of MQTTConnections.
	MQTTConnecting int `toml:"mqtt_connecting,omitempty"`
	// MQTTSessions is how many sessions a thing may have, each with a client id of its
	// own: one more is refused. Default 16.
	MQTTSessions int `toml:"mqtt_sessions,omitempty"`

	// ThingsOfOwner is how many things one owner has at a things agent, and
	// DescriptionsOfOwner how many bytes their descriptions have together. Default
	// 10,000 and 64 MiB.
	ThingsOfOwner       int `toml:"things_of_owner,omitempty"`
	DescriptionsOfOwner int `toml:"descriptions_of_owner,omitempty"`
	// MappingsOfOwner is how many mappings of one owner's things to one world are in
	// force, and how many of them may have ended within a day. Default 1,000.
	MappingsOfOwner int `toml:"mappings_of_owner,omitempty"`
	// ViewsOfOwner is how often within a day one owner may change the views of
	// mappings, as counted since the agent's start; ending them isn't counted. Default
	// 10,000.
	ViewsOfOwner int `toml:"views_of_owner,omitempty"`
	// JobsAtOnce is how many of owners' jobs a things agent runs at once, and JobsOfOwner
	// how many of one owner's may be there that haven't ended. Default 1 and 16.
	JobsAtOnce  int `toml:"jobs_at_once,omitempty"`
	JobsOfOwner int `toml:"jobs_of_owner,omitempty"`
	// AvatarsOfSender is how many avatars a world has that one things agent asked for.
	// Default 100,000.
	AvatarsOfSender int `toml:"avatars_of_sender,omitempty"`
	// GrantsOfGiver is how many grants in force one principal of a world has given.
	// Default 10,000.
	GrantsOfGiver int `toml:"grants_of_giver,omitempty"`
	// SharesOfGrant is how many shares another world takes by one grant, and how many
	// of them may have ended within a day. Default 100.
	SharesOfGrant int `toml:"shares_of_grant,omitempty"`
}

// http makes the porter of an HTTP listener.
func (l Limits) http() *porter.Porter {
	all := l.HTTPConnections
	if all == 0 {
		all = 8192
	}
	return porter.New(all, max(1, all/4))
}

// mqtt makes the limits of the things agent's listener.
func (l Limits) mqtt() mqtt.Limits {
	return mqtt.Limits{Connections: l.MQTTConnections, Connecting: l.MQTTConnecting, DeviceSessions: l.MQTTSessions}
}

// things makes the bounds of a things agent's owners.
func (l Limits) things() thing.Bounds {
	return thing.Bounds{Things: l.ThingsOfOwner, Descriptions: l.DescriptionsOfOwner, Mappings: l.MappingsOfOwner, Views: l.ViewsOfOwner}
}

// most is the largest limit that can be asked for.
const most = 1 << 20

func (l Limits) check() error {
	for _, f := range []struct {
		name  string
		value int
		most  int // 0: most
	}{
		{"live", l.Live, 0},
		{"live_of_token", l.LiveOfToken, 0},
		{"http_connections", l.HTTPConnections, 0},
		{"mqtt_connections", l.MQTTConnections, 0},
		{"mqtt_connecting", l.MQTTConnecting, 0},
		{"mqtt_sessions", l.MQTTSessions, 0},
		{"things_of_owner", l.ThingsOfOwner, 0},
		{"descriptions_of_owner", l.DescriptionsOfOwner, 1 << 40},
		{"mappings_of_owner", l.MappingsOfOwner, 0},
		{"views_of_owner", l.ViewsOfOwner, 0},
		{"jobs_at_once", l.JobsAtOnce, 64},
		{"jobs_of_owner", l.JobsOfOwner, 0},
		{"avatars_of_sender", l.AvatarsOfSender, 1 << 30},
		{"grants_of_giver", l.GrantsOfGiver, 100_000},
		{"shares_of_grant", l.SharesOfGrant, 0},
	} {
		if at := cmp.Or(f.most, most); f.value < 0 || f.value > at {
			return carnet.Errorf(carnet.Malformed, "limits.%s is %d", f.name, f.value).WithFix("take 1 to %d, or leave it out", at)
		}
	}
	return nil
}
