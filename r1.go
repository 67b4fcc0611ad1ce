package carnet

// What a things agent asks a world at reference point R1, over the link between
// them (docs/design/link.md carries it; bodies are JSON but for the key bag).
const (
	// CallMap asks for an avatar for a stream: MapRequest → MapAnswer. Asked
	// again for the same stream it gives the same answer.
	CallMap = "map"
	// CallUnmap says that a stream has ended: Unmap → nothing.
	CallUnmap = "unmap"
	// CallBag gives a key bag (docs/design/seal.md) → nothing. The keys are
	// durable at the world when it answers.
	CallBag = "bag"
	// CallHeads asks where the caller's streams stand: HeadsRequest → HeadsPage.
	CallHeads = "heads"
	// CallOwn pins an owner's key with an avatar: Own → nothing. Another key than
	// the one that is pinned is refused; that one again is answered the same.
	CallOwn = "own"
	// CallGives says what streams give now, which a world can't see from what comes:
	// Gives → nothing. It is said at each connection, and when it changes.
	CallGives = "gives"
	// NoticeDemand tells the agent that somebody waits for a stream: Demand.
	NoticeDemand = "demand"
	// NoticeReception tells the agent of a new reception key: an announcement.
	NoticeReception = "reception"
	// NoticeMoved tells the agent that an avatar has moved to another world: Moved.
	// It is said at each connection until the agent has ended the stream, and again
	// whenever something comes for it.
	NoticeMoved = "moved"
	// NoticeErased tells the agent that an avatar is erased by its owner's order:
	// Erased. It is said at each connection until the agent has answered by
	// CallErased, and again whenever something comes for the stream.
	NoticeErased = "erased"
	// CallErased answers NoticeErased: Unmapped → nothing.
	CallErased = "erased"
)

// MapRequest asks a world for an avatar that a stream will speak about.
type MapRequest struct {
	Stream StreamID  `json:"stream"`
	Avatar *AvatarID `json:"avatar,omitempty"` // an avatar that exists; absent: a new one
	Title  string    `json:"title,omitempty"`  // what people call it, chosen by the owner for this world
	// Order and Terms say by which move the avatar came (docs/design/crossing.md):
	// it is the one that the terms name. Onward is the agent's word, by the key that
	// the source knew it by, that it goes on with a stream which moved.
	Order  string `json:"order,omitempty"`
	Terms  []byte `json:"terms,omitempty"`
	Onward string `json:"onward,omitempty"`
}

// MapAnswer is the world's answer: the avatar, and what the world itself wants
// or bears of such data, as a view document; absent: whatever the owner gives.
type MapAnswer struct {
	Avatar AvatarID `json:"avatar"`
	View   []byte   `json:"view,omitempty"`
	// Moved says that the avatar, which came by the order asked with, has moved on
	// since: nothing is mapped here, and nothing of the stream moved.
	Moved *Moved `json:"moved,omitempty"`
}

// Moved tells how the avatar of a stream moved, and how much of the stream moved
// with it.
type Moved struct {
	Stream   StreamID `json:"stream"`
	Order    string   `json:"order"`    // the owner's
	Terms    []byte   `json:"terms"`    // whose hash the order names
	Decision string   `json:"decision"` // the registrar's: a commit
	// NextBatch and NextFirst are where the stream stands in the manifest: what has
	// these numbers, and all after it, didn't move.
	NextBatch uint64 `json:"next_batch"`
	NextFirst uint64 `json:"next_measurement"`
}

// Unmap names a stream that has ended.
type Unmap struct {
	Stream StreamID `json:"stream"`
}

// Own carries an owner's word that an avatar is theirs (docs/design/mandate.md),
// which a things agent can't make.
type Own struct {
	Ownership string `json:"ownership"` // a compact JWS
}

// Gives says of some of the caller's streams what they give now.
type Gives struct {
	Streams []StreamGives `json:"streams"`
}

// StreamGives names the properties that the view in force gives of a stream, each field
// of an object by itself. Of a stream that has ended there are none.
type StreamGives struct {
	Stream     StreamID `json:"stream"`
	Properties []string `json:"properties"`
}

// HeadsRequest asks for the heads of the streams whose ids are above one.
type HeadsRequest struct {
	After StreamID `json:"after"` // zero: from the first on
}

// MaxHeads is how many streams a receiver may say it has of one sender: it decides how
// much memory the sender takes for them.
const MaxHeads = 1 << 19

// HeadsPage is some of a sender's stream heads, in order of their ids.
type HeadsPage struct {
	Heads []StreamHead `json:"heads"`
	More  bool         `json:"more,omitempty"` // ask again, after the last of these
}

// StreamHead is where a stream stands at a world.
type StreamHead struct {
	Stream    StreamID `json:"stream"`
	NextBatch uint64   `json:"next_batch"`
	NextFirst uint64   `json:"next_measurement"`
	// Latest is, of each property whose newest measurement came by this stream, that one.
	// To a world that shares it isn't said.
	Latest []SeenMeasurement `json:"latest,omitempty"`
}

// SeenMeasurement is a measurement as the world got it, without its unit.
type SeenMeasurement struct {
	Name  string  `json:"n"`
	Time  int64   `json:"t"` // ns
	Value float64 `json:"v,omitempty"`
}

// Demand says whether somebody is subscribed to a stream: its batches then
// don't linger.
type Demand struct {
	Stream StreamID `json:"stream"`
	On     bool     `json:"on"`
}

// Erased tells that the avatar of a stream is erased.
type Erased struct {
	Stream StreamID `json:"stream"`
	Order  string   `json:"order"` // the owner's
}

// Unmapped answers Erased: nothing more comes of the stream, or why that isn't so.
type Unmapped struct {
	Stream   StreamID `json:"stream"`
	Deletion string   `json:"deletion,omitempty"` // the agent's, as a compact JWS
	Why      string   `json:"why,omitempty"`
}
