package api

import "github.com/danielgtaylor/huma/v2"

// Every operation of the documents has one tag: the reference point that it
// belongs to (ITU-T FGMV-44, clause 8.9), or the part of management that belongs to
// none. docs/design/api.md says how each was put in its place.
const (
	atR1 = "R1"
	atR2 = "R2"
	atR3 = "R3"
	atR4 = "R4"
	atR5 = "R5"
	atR6 = "R6"

	ofParty    = "management: party"
	ofPeers    = "management: peers"
	ofActivity = "management: activity"
)

// tags are all of them, in the order in which they are shown. What goes over a
// reference point otherwise than by HTTP is named with the page that has it.
func tags() []*huma.Tag {
	return []*huma.Tag{
		{Name: atR1, Description: "Things and their avatars. A things agent takes things in by their descriptions, gives each its avatars in worlds, and keeps what each world gets of it. " +
			"What things measure doesn't come by HTTP: devices speak MQTT (its topics are in /asyncapi.json, the rest in docs/design/mqtt.md), and an agent's frames go to its worlds over a link of their own (docs/design/link.md)."},
		{Name: atR2, Description: "Trustworthy storage. A depot keeps sealed objects and the ledger for its peers, on a listener of its own behind mutual TLS (docs/design/ledger.md). People don't call it."},
		{Name: atR3, Description: "Avatars share and exchange data. What a grant would give and gives, what an owner permits by a mandate, shares between worlds, and reading an avatar of another world. " +
			"What is shared flows as frames over a link between the two worlds (docs/design/share.md), not by HTTP."},
		{Name: atR4, Description: "Entities and avatars. People, applications and who acts as an avatar read and subscribe, and get proofs of what they read. " +
			"Live events come over a WebSocket, too: its frames are in /asyncapi.json."},
		{Name: atR5, Description: "Worlds call each other directly, on a listener of its own behind mutual TLS, each call proved twice (docs/design/r5.md). People don't call it."},
		{Name: atR6, Description: "A world and external data processing. What a world has computed, in itself or at a DPM. Capsules go to DPMs on a listener of theirs behind mutual TLS (docs/design/capsule.md)."},
		{Name: ofParty, Description: "How a party is. No reference point: its operator asks it about itself."},
		{Name: ofPeers, Description: "How a party comes to trust another, for whichever reference points their terms name. No reference point of its own."},
		{Name: ofActivity, Description: "What was asked and decided, and why something would be. No reference point of its own."},
	}
}
