package api

import (
	"encoding/json"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/crossing"
	"carnet/dpm"
	"carnet/job"
	"carnet/ledger"
	"carnet/policy"
	"carnet/thing"
)

// Description is a WoT Thing Description 1.1, byte by byte as it was given.
type Description json.RawMessage

// MarshalJSON and UnmarshalJSON keep the bytes.
func (d Description) MarshalJSON() ([]byte, error) { return json.RawMessage(d).MarshalJSON() }
func (d *Description) UnmarshalJSON(b []byte) error {
	return (*json.RawMessage)(d).UnmarshalJSON(b)
}

// NewThing is a thing to add.
type NewThing struct {
	ID          carnet.ThingID `json:"id,omitempty" doc:"What the thing is called here; left out, one is drawn." example:"watch-7" maxLength:"64"`
	Owner       string         `json:"owner" doc:"Who owns it: the name of the owner's token." example:"alice" minLength:"1" maxLength:"200"`
	Description Description    `json:"description" doc:"The thing's W3C WoT Thing Description 1.1."`
}

// AddedThing is the answer to NewThing. The password is not shown again.
type AddedThing struct {
	ID       carnet.ThingID `json:"id" doc:"The thing's id, which is also its MQTT user name."`
	Password string         `json:"password" doc:"The thing's password: shown now and never again."`

	Unmeasured []thing.UnmeasuredInfo `json:"unmeasured,omitempty" doc:"Properties of which no measurement can be taken, and why."`
}

// RenewedPassword is a thing's password in the place of the one before.
type RenewedPassword struct {
	ID       carnet.ThingID `json:"id" doc:"The thing's id, which is also its MQTT user name."`
	Password string         `json:"password" doc:"The thing's password from now on: shown now and never again."`
}

// ThingList is the things that the caller may see.
type ThingList struct {
	Things []thing.Info `json:"things"`
}

// RefusalList is refused messages, newest first.
type RefusalList struct {
	Refusals []thing.Refusal `json:"refusals"`
}

// NewMapping asks for an avatar of a thing in a world.
type NewMapping struct {
	World  carnet.PartyID   `json:"world" doc:"The world, by the name that this things agent has for it." example:"arena"`
	Avatar *carnet.AvatarID `json:"avatar,omitempty" doc:"An avatar that the world has already of this agent; left out, the world makes a new one."`
	Title  string           `json:"title,omitempty" doc:"What people in the world call the avatar." example:"Runner 7" maxLength:"200"`
	View   policy.View      `json:"view" doc:"What the owner lets the world have."`
}

// NewOwnership is an owner's word that an avatar is theirs.
type NewOwnership struct {
	Ownership string `json:"ownership" doc:"A compact JWS with the type carnet-ownership+jwt, signed by the owner's key for the world." minLength:"1" maxLength:"4096"`
}

// Explanation says for people what a world gets, line by line.
type Explanation struct {
	Lines []string `json:"lines"`
}

// ViewList is every view that was in force for a mapping, oldest first.
type ViewList struct {
	Views []thing.ViewRecord `json:"views"`
}

// OwnerReport says who got what of an owner's things, what was withheld and why.
type OwnerReport struct {
	Owner  string       `json:"owner"`
	Things []OwnedThing `json:"things"`
}

// OwnedThing is one of an owner's things.
type OwnedThing struct {
	ID      carnet.ThingID         `json:"id"`
	Title   string                 `json:"title"`
	Added   time.Time              `json:"added"`
	Refused map[carnet.Code]uint64 `json:"refused,omitempty" doc:"Messages of the thing that were refused, by reason."`
	Denied  *thing.Denied          `json:"denied,omitempty" doc:"Attempts to be the thing with a wrong password, since the agent's start."`
	Worlds  []Share                `json:"worlds"`
	Waiting []thing.MappingInfo    `json:"waiting,omitempty" doc:"Mappings that are to go on where the thing's avatars have moved, and what each waits for."`
}

// Share is what one world gets of a thing.
type Share struct {
	World         carnet.PartyID        `json:"world"`
	Mapping       carnet.MappingID      `json:"mapping"`
	Avatar        carnet.AvatarID       `json:"avatar"`
	Since         time.Time             `json:"since" doc:"When the world was first given anything."`
	Decided       time.Time             `json:"decided" doc:"When the view in force was set."`
	By            string                `json:"by" doc:"Who set it."`
	PolicyVersion uint64                `json:"policy_version"`
	Stopped       bool                  `json:"stopped"`
	View          policy.View           `json:"view"`
	Got           []thing.PropertyCount `json:"got"`
	Uncounted     string                `json:"uncounted,omitempty" doc:"Why the counts of got aren't known; left out when they are."`
	Moved         *thing.MovedInfo      `json:"moved,omitempty" doc:"Where the avatar has moved."`
	RefusedMove   *thing.RefusedMove    `json:"refused_move,omitempty" doc:"The last that the world told of a move, and that was refused."`
}

// AvatarList is the world's avatars, oldest first.
type AvatarList struct {
	Avatars []avatar.Info `json:"avatars"`
}

// Status is how a party is.
type Status struct {
	Party  carnet.PartyID `json:"party"`
	Time   time.Time      `json:"time"`
	Things *ThingsStatus  `json:"things,omitempty"`
	World  *WorldStatus   `json:"world,omitempty"`
	Depot  *DepotStatus   `json:"depot,omitempty"`
	DPM    *dpm.Counts    `json:"dpm,omitempty"`
	// States is how the party's way to its depot is.
	States *StatesStatus `json:"states,omitempty"`
}

// StatesStatus is where a party's statements go.
type StatesStatus struct {
	To   carnet.PartyID `json:"to" doc:"The depot."`
	Away *ledger.Away   `json:"away,omitempty" doc:"Since when and why the depot doesn't take them; left out when it does."`
}

// ThingsStatus is how a things agent is.
type ThingsStatus struct {
	Things        int                `json:"things"`
	PolicyVersion uint64             `json:"policy_version"`
	Messages      uint64             `json:"messages" doc:"Messages accepted into the log so far."`
	SentFrames    uint64             `json:"sent_frames"`
	SentBatches   uint64             `json:"sent_batches"`
	Refusals      uint64             `json:"refusals"`
	Statements    uint64             `json:"statements"`
	Receipts      uint64             `json:"receipts"`
	Links         []thing.LinkStatus `json:"links"`
}

// WorldStatus is how a world is.
type WorldStatus struct {
	Avatars      int    `json:"avatars"`
	Streams      int    `json:"streams"`
	Measurements uint64 `json:"measurements"`
	Batches      uint64 `json:"batches"`
	Frames       uint64 `json:"frames"`
	Stretches    uint64 `json:"stretches"`
	Defects      uint64 `json:"defects" doc:"Batches that were stored and can't be used, since the start."`
	Statements   uint64 `json:"statements"`
	Receipts     uint64 `json:"receipts"`
	Live         int    `json:"live" doc:"Live subscriptions open now."`
	Reads        uint64 `json:"reads" doc:"R4: answers with state or history that people and programs were given since the start."`
	Events       uint64 `json:"events" doc:"R4: events that live subscriptions of people and programs were sent since the start, what they replayed included."`
	Exchanged    uint64 `json:"exchanged" doc:"R3: answers and events that avatars of this world were given of others under grants, since the start."`

	DPMs []job.AtDPM `json:"dpms,omitempty" doc:"R6: what goes to the DPMs that jobs were ordered from."`

	Shares []crossing.Link `json:"shares,omitempty" doc:"The other worlds that it gives shares to, or takes them from."`
}

// DepotStatus is how a depot is.
type DepotStatus struct {
	Objects int64  `json:"objects"`
	Bytes   int64  `json:"bytes"`
	Entries uint64 `json:"entries" doc:"Entries of the ledger under its last checkpoint."`
}

// Health says that a party answers.
type Health struct {
	OK bool `json:"ok"`
}
