package api

import (
	"crypto/ed25519"
	"net/http"
	"reflect"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/crossing/move"
	"carnet/identity"
	"carnet/register"

	"github.com/danielgtaylor/huma/v2"
)

// What is said of moves between parties: a world and the register that a depot keeps
// (R2), and the two worlds (R5). docs/design/crossing.md has the messages.

// HomeQuestion is what a world asks of a home.
type HomeQuestion struct {
	Owner string `json:"owner,omitempty" doc:"The owner's key, as a did:key: to enrol the home, and then only."`
	Asked string `json:"asked" doc:"A nonce, so that no older answer serves."`
	Order string `json:"order,omitempty" doc:"The owner's order to erase what the home is of: to have that noted, and then only."`
	Chain uint64 `json:"chain,omitempty" doc:"To claim an item's: how many entries its chain has, or is to have."`
}

// HomesQuestion is what a world asks of many homes at once.
type HomesQuestion struct {
	Homes []carnet.HomeID `json:"homes"`
	Asked string          `json:"asked" doc:"A nonce, so that no older answer serves."`
}

// HomesReply is the register's word about them.
type HomesReply struct {
	Answer string `json:"answer" doc:"Signed: all that were asked about are at the calling world, live, and nobody asks for their recovery, but for those that it names."`
}

// HomeList names homes.
type HomeList struct {
	Homes []carnet.HomeID `json:"homes"`
}

// What examples name.
const (
	examplePlace = "112233445566778899aabbccddeeff00"
	exampleNonce = "000102030405060708090a0b0c0d0e0f"
	exampleDID   = "did:key:z6MkpTHR8VNsBxYAAWHut2Geadd9jSwuBV8xRoAnwWsdvktH"
)

// exampleCrossing is a crossing's id.
var exampleCrossing = carnet.CrossingID{2, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff}

// describeRegister describes what register.Registrar.Handler serves.
func (b between) describeRegister(at string) {
	home := pathParam("home", "The home's id, which its world drew.", examplePlace)
	shown := &huma.Param{
		Name: register.CheckpointHeader, In: "header", Description: "The newest checkpoint of the depot's ledger that the caller has, in base64. A register that is older answers nothing from then on.",
		Schema: &huma.Schema{Type: "string"},
	}
	body := func(t reflect.Type, hint string, value any) *huma.RequestBody {
		return &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{typeJSON: {Schema: b.schema(t, hint), Example: plain(value)}}}
	}
	proof := register.Proof{Statement: []byte("statement"), Salt: make([]byte, 32), Receipt: []byte("receipt")}
	answer := func(t reflect.Type, hint string, value any) map[string]*huma.Response {
		return responses("200", "The register's word, signed, with the receipt of the statement about it.", map[string]*huma.MediaType{typeJSON: {Schema: b.schema(t, hint), Example: plain(value)}})
	}
	add := func(id, method, path, summary string, parameters []*huma.Param, body *huma.RequestBody, answers map[string]*huma.Response) {
		b.add(at, "The depot's listener for its peers, behind mutual TLS.", huma.Operation{
			OperationID: id, Method: method, Path: path, Tags: []string{atR2}, Summary: summary, Parameters: append(parameters, shown), RequestBody: body, Responses: answers,
			Security: []map[string][]string{{"peer": {}}},
		})
	}
	question := reflect.TypeFor[HomeQuestion]()
	reply := func() map[string]*huma.Response {
		return answer(reflect.TypeFor[register.HomeReply](), "HomeReply", register.HomeReply{Home: exampleToken, Record: exampleToken, Proof: proof})
	}
	add("enrol-home", http.MethodPut, "/r2/homes/{home}", "Enrols a home for the calling world, with its owner's key. The same again is answered the same.", []*huma.Param{home},
		body(question, "HomeQuestion", HomeQuestion{Owner: exampleDID, Asked: exampleNonce}), reply())
	add("get-home", http.MethodGet, "/r2/homes/{home}", "Which world is home, and whose the home is.",
		[]*huma.Param{home, {Name: "asked", In: "query", Required: true, Description: "A nonce.", Schema: &huma.Schema{Type: "string"}, Example: exampleNonce}}, nil, reply())
	many := responses("200", "The register's word, signed.", map[string]*huma.MediaType{typeJSON: {Schema: b.schema(reflect.TypeFor[HomesReply](), "HomesReply"), Example: plain(HomesReply{exampleToken})}})
	add("ask-homes", http.MethodPost, "/r2/homes", "Of which homes something else is to be said than that they are at the calling world, and stay there: each of those is to be asked about by itself.", nil,
		body(reflect.TypeFor[HomesQuestion](), "HomesQuestion", HomesQuestion{Homes: []carnet.HomeID{{0x11, 0x22}}, Asked: exampleNonce}), many)
	add("claim-home", http.MethodPost, "/r2/homes/{home}/claims", "Raises the home's incarnation, for the home alone: what it released before is worth nothing then.", []*huma.Param{home},
		body(question, "HomeQuestion", HomeQuestion{Asked: exampleNonce}), reply())
	add("erase-home", http.MethodPost, "/r2/homes/{home}/erasure", "Notes that what the home is of was erased by its owner's order, for the home alone: it never moves again.", []*huma.Param{home},
		body(question, "HomeQuestion", HomeQuestion{Asked: exampleNonce, Order: exampleToken}), reply())
	erased := HomeList{[]carnet.HomeID{{0x11, 0x22}}}
	add("list-erased", http.MethodPost, "/r2/erased", "Which of the homes that are named were erased.", nil, body(reflect.TypeFor[HomeList](), "HomeList", erased),
		responses("200", "Those of them that were.", map[string]*huma.MediaType{typeJSON: {Schema: b.schema(reflect.TypeFor[HomeList](), "HomeList"), Example: plain(erased)}}))
	decided := answer(reflect.TypeFor[register.DecisionReply](), "DecisionReply", register.DecisionReply{Decision: exampleToken, Proof: proof})
	decided["202"] = &huma.Response{Description: "Nothing is decided yet."}
	add("decide-crossing", http.MethodPost, "/r2/crossings/{crossing}", "Puts a petition about a crossing, and says what is decided. The first decision stands, whatever is asked for later.",
		[]*huma.Param{pathParam("crossing", "The crossing's id.", exampleCrossing.String())},
		body(reflect.TypeFor[register.Petition](), "Petition", register.Petition{Want: register.Ask, Order: exampleToken}), decided)
}

// exampleManifest is a manifest of one stretch, as it goes over the wire.
func exampleManifest(stretch avatar.MovedStretch) string {
	m := avatar.Manifest{
		Version: 1, Crossing: exampleCrossing, Avatar: exampleAvatar, Title: "Runner 7", Created: time.Unix(1_795_910_460, 0).UTC(),
		Streams: []avatar.MovedStream{{
			Stream:    stretch.Stream,
			Origin:    avatar.Origin{World: "arena", Ledger: "vault", LedgerKey: "vault.example/ledger+00000000+AA", Sender: "hub", Audience: "arena", Key: make([]byte, ed25519.PublicKeySize)},
			NextBatch: 1, NextFirst: 1, Measurements: 1, Batches: 1,
		}},
		Stretches: []avatar.MovedStretch{stretch},
		Keys:      []avatar.MovedKey{{Stream: stretch.Stream, NotAfter: time.Unix(1_798_588_800, 0).UTC()}},
		State:     []avatar.MovedValue{{Name: "heart_rate", Stream: stretch.Stream, Time: 1_795_910_400_000_000_000}},
	}
	text, err := m.Marshal()
	if err != nil { // of the program's own values
		panic(err)
	}
	return string(text)
}

// describeMoves describes what a source serves its target. add adds an operation of R5.
func (b between) describeMoves(add func(huma.Operation, identity.Action), told func(status, description string) map[string]*huma.Response) {
	avatarID := pathParam("id", "This world's avatar, which is to move.", exampleAvatar.String())
	crossingID := pathParam("crossing", "The crossing, which the target drew.", exampleCrossing.String())
	const at = "/r5/avatars/{id}/moves/{crossing}"
	text := func(t reflect.Type, hint string, value any) map[string]*huma.MediaType {
		return map[string]*huma.MediaType{typeJSON: {Schema: b.schema(t, hint), Example: plain(value)}}
	}
	octets := func(what string) map[string]*huma.MediaType {
		return map[string]*huma.MediaType{typeObject: {Schema: bytesOf(what)}}
	}
	op := func(id, method, path, summary string, body, answer map[string]*huma.MediaType, more ...*huma.Param) {
		o := huma.Operation{
			OperationID: id, Method: method, Path: at + path, Summary: summary, Parameters: append([]*huma.Param{avatarID, crossingID}, more...), Responses: told("200", "OK"),
		}
		o.Responses["200"].Content = answer
		if body != nil {
			o.RequestBody = &huma.RequestBody{Required: true, Content: body}
		}
		add(o, identity.ActionMove)
	}
	order := move.SignedOrder{Order: exampleToken, Terms: []byte(`{}`)}
	stretch := avatar.MovedStretch{
		Fingerprint: carnet.FingerprintOf([]byte(exampleObject)), Size: len(exampleObject), Stream: carnet.StreamID(exampleAvatar), Class: carnet.Month,
		Batches: 1, Measurements: 1, NextNumber: 1, FromMinute: 29_931_840, ToMinute: 29_931_840, Received: 1_795_910_400_250_000_000,
	}
	op("offer-move", http.MethodPut, "", "Offers the owner's order, and lists the streams that there are. Nothing changes for the avatar. Without a token: {order, terms, decision}, once the registrar has decided; what is asked of that crossing then needs none, either.",
		text(reflect.TypeFor[move.SignedOrder](), "SignedOrder", order), text(reflect.TypeFor[move.Standing](), "MoveStanding", move.Standing{State: move.Offered, Streams: []avatar.MovedStream{}}))
	op("list-stretches", http.MethodGet, "/stretches", "The next stretches, by stream in the order of the offer's answer, at most 512; none at the end.", nil, text(reflect.TypeFor[[]avatar.MovedStretch](), "MovedStretches", []avatar.MovedStretch{stretch}),
		&huma.Param{Name: "stream", In: "query", Description: "The stream to go on with, and then those after it; without it, all.", Schema: &huma.Schema{Type: "string"}, Example: exampleAvatar.String()},
		&huma.Param{Name: "from", In: "query", Description: "From this batch of that stream on; with a stream.", Schema: &huma.Schema{Type: "integer", Minimum: new(0.0)}, Example: 0})
	asked := text(reflect.TypeFor[avatar.MovedStretch](), "MovedStretch", stretch)
	several := text(reflect.TypeFor[[]avatar.MovedStretch](), "MovedStretches", []avatar.MovedStretch{stretch})
	asked[typeJSON].Schema = &huma.Schema{OneOf: []*huma.Schema{asked[typeJSON].Schema, several[typeJSON].Schema}}
	op("fetch-stretch", http.MethodPost, "/stretches", "A stretch as it was listed, with its proof: the stretch's length in 4 bytes, big endian, the stretch, the proof. "+
		"Of a list of stretches, at most 64, the first of them, at least one, in their order: of each its length and its proof's, the stretch, the proof; twice 0 of one that isn't there any more.",
		asked, octets("A stretch and its proof, or several of both."))
	op("freeze-avatar", http.MethodPost, "/freeze", "Fixes what moves, and releases it: from then on the registrar alone decides. The body announces the reception key that keys are to be sealed to.",
		octets("An announcement (docs/design/seal.md)."), text(reflect.TypeFor[move.Freezing](), "MoveFreezing", move.Freezing{Release: exampleToken, Size: 400, Bags: [][]byte{[]byte("key bag")}}))
	released := octets("JSON in the one form whose hash is signed.")
	released[typeObject].Example = exampleManifest(stretch)
	op("get-manifest", http.MethodGet, "/manifest", "The manifest that was released.", nil, released)
	op("get-order", http.MethodGet, "/order", "The owner's order by which something has gone to the caller, without a token: for a target whose store is from before it came.", nil, text(reflect.TypeFor[move.SignedOrder](), "SignedOrder", order))
	op("tell-decision", http.MethodPost, "/decision", "Tells what the registrar decided, without a token. The source says when it has deleted what moved.",
		text(reflect.TypeFor[move.Decided](), "MoveDecided", move.Decided{SignedOrder: order, Decision: exampleToken}), text(reflect.TypeFor[move.Left](), "MoveLeft", move.Left{State: move.Gone, Departure: exampleToken}))
	recovered := told("200", "What the world has done with what it had of the avatar.")
	recovered["200"].Content = text(reflect.TypeFor[move.Left](), "MoveLeft", move.Left{State: move.Gone, Departure: exampleToken})
	add(huma.Operation{
		OperationID: "tell-recovered", Method: http.MethodPost, Path: "/r5/recovered",
		Summary:     "Tells a world that was away that an avatar of its lives at the caller since a recovery, without a token: the owner's order and the registrar's commit prove it. The world says when it has deleted what it had.",
		RequestBody: &huma.RequestBody{Required: true, Content: text(reflect.TypeFor[move.Decided](), "MoveDecided", move.Decided{SignedOrder: order, Decision: exampleToken})},
		Responses:   recovered,
	}, "")
}
