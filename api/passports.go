package api

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/crossing/move"
	"carnet/identity"
	"carnet/policy"

	"github.com/danielgtaylor/huma/v2"
)

// Passports makes passports of a world's avatars. It may be called concurrently.
type Passports interface {
	// Passport makes an avatar's passport, and returns what writes it as a tar of one
	// directory and then removes it.
	Passport(ctx context.Context, id carnet.AvatarID, n NewPassport) (write func(io.Writer) error, err error)
	// Announce signs this world's present reception key.
	Announce() ([]byte, error)
}

// recoveries is what the handler needs of a world's recoveries: a *move.Agent.
type recoveries interface {
	BeginRecovery(ctx context.Context, by string, b move.Brought) (move.AtTarget, error)
	Lacking(ctx context.Context, x carnet.CrossingID, most int) ([]avatar.MovedStretch, error)
	TakePiece(ctx context.Context, x carnet.CrossingID, m avatar.MovedStretch, body, proof []byte) error
	TakeBags(ctx context.Context, x carnet.CrossingID, bags [][]byte) error
	Renew(ctx context.Context, x carnet.CrossingID) (move.AtTarget, error)
	TakeRecovery(ctx context.Context, x carnet.CrossingID, r identity.Recovered) (move.AtTarget, error)
	Proof(x carnet.CrossingID) (move.Told, error)
}

// NewPassport asks for a passport.
type NewPassport struct {
	For      [][]byte `json:"for,omitempty" doc:"Announcements of reception keys to which the keys are sealed: the owner's, or peers'. None: the passport has no keys." maxItems:"64"`
	Farewell bool     `json:"farewell,omitempty" doc:"This world closes for good: the avatar keeps still from now on, and a recovery needs no waiting time."`
}

const typeOctets = "application/octet-stream"

// Bodies of these operations may be large: a manifest, or a stretch with its proof; and
// a job's, or a module's, in which there is a program.
const (
	maxLargeBody   = 200 << 20
	maxProgramBody = 24 << 20
	largeBodyTime  = 5 * time.Minute
	largeBodies    = "/v1/recoveries"
)

// largest is how large a pattern's bodies may be, where that is more than usual; else 0.
func largest(pattern string) int64 {
	switch {
	case strings.Contains(pattern, largeBodies):
		return maxLargeBody
	case pattern == "POST "+jobsPath, pattern == "POST "+jobsPath+"/plans", pattern == "POST "+modulesPath:
		return maxProgramBody
	}
	return 0
}

// lackingAtOnce is how many stretches are listed at once.
const lackingAtOnce = 512

func (s *server) passportRoutes(h huma.API) {
	tags := []string{atR4}
	octets := func(what string) *huma.RequestBody {
		return &huma.RequestBody{Required: true, Description: what, Content: map[string]*huma.MediaType{typeOctets: {Schema: &huma.Schema{Type: "string", Format: "binary"}}}}
	}
	serving(s, h, huma.Operation{
		OperationID: "export-avatar", Method: http.MethodPost, Path: "/v1/avatars/{id}/passport", Tags: tags, DefaultStatus: http.StatusOK,
		Summary:     "The avatar's passport, as a tar of one directory: everything that a move would take along, for when this world is gone for good.",
		Description: "It is also evidence, for carnet verify. Keys are in it only for whom they are named. The avatar goes on living.",
		RequestBody: example(NewPassport{}),
		Metadata:    map[string]any{servesKey: []string{typeTar}},
		Responses:   limitedTo(map[string]*huma.Response{"200": {Description: "The passport.", Content: map[string]*huma.MediaType{typeTar: {Schema: &huma.Schema{Type: "string", Format: "binary"}}}}}),
	}, s.passport)
	serving(s, h, huma.Operation{
		OperationID: "get-reception", Method: http.MethodGet, Path: "/v1/reception", Tags: tags,
		Summary: "This world's reception key, signed: another world seals an avatar's keys to it. It is good for a day.",
	}, func(context.Context, *struct{}) (*body[Announcement], error) {
		a, err := s.passports.Announce()
		return answer(Announcement{a}, err)
	})
	serving(s, h, huma.Operation{
		OperationID: "begin-recovery", Method: http.MethodPost, Path: largeBodies, Tags: []string{atR3}, DefaultStatus: http.StatusCreated,
		Summary:     "Makes room for an avatar by its passport, since its home is gone for good, and says what its owner is asked to order.",
		Description: "The body is the length of a JSON object in 4 bytes, big-endian, the object {passport, farewell, policy, view}, and the passport's manifest.",
		RequestBody: octets("A passport's word and manifest."),
	}, s.beginRecovery)
	serving(s, h, huma.Operation{
		OperationID: "list-lacking", Method: http.MethodGet, Path: largeBodies + "/{id}/lacking", Tags: []string{atR3},
		Summary: "The next stretches of a passport that haven't been handed in.",
	}, func(ctx context.Context, in *OfCrossing) (*body[LackingList], error) {
		all, err := s.recoveries.Lacking(ctx, in.ID, lackingAtOnce)
		list := LackingList{Stretches: []carnet.Fingerprint{}}
		for _, m := range all {
			list.Stretches = append(list.Stretches, m.Fingerprint)
		}
		return answer(list, err)
	})
	serving(s, h, huma.Operation{
		OperationID: "put-stretch", Method: http.MethodPut, Path: largeBodies + "/{id}/stretches", Tags: []string{atR3}, DefaultStatus: http.StatusOK,
		Summary:     "Hands in a stretch of a passport with its proof, which is checked and stored.",
		Description: "The body is two lengths in 4 bytes each, big-endian, each before what it is of: the stretch as the manifest lists it, and its bytes; then its proof.",
		RequestBody: octets("A stretch with its proof."),
	}, s.putStretch)
	serving(s, h, huma.Operation{
		OperationID: "put-bags", Method: http.MethodPut, Path: largeBodies + "/{id}/bags", Tags: []string{atR3}, DefaultStatus: http.StatusOK,
		Summary:     "Hands in key bags of a passport that are sealed to this world itself.",
		RequestBody: example(Bags{Bags: [][]byte{{1}}}),
	}, func(ctx context.Context, in *struct {
		OfCrossing
		Body Bags
	}) (*body[Acknowledged], error) {
		return answer(Acknowledged{Acknowledged: true}, s.recoveries.TakeBags(ctx, in.ID, in.Body.Bags))
	})
	serving(s, h, huma.Operation{
		OperationID: "renew-recovery", Method: http.MethodPost, Path: largeBodies + "/{id}/request", Tags: []string{atR3}, DefaultStatus: http.StatusOK,
		Summary: "Writes anew what the owner is asked, with this world's present reception key.",
	}, func(ctx context.Context, in *OfCrossing) (*body[Crossing], error) {
		if _, err := s.recoveries.Renew(ctx, in.ID); err != nil {
			return nil, err
		}
		return answer(s.crossing(in.ID))
	})
	serving(s, h, huma.Operation{
		OperationID: "order-recovery", Method: http.MethodPut, Path: largeBodies + "/{id}/order", Tags: []string{atR3},
		Summary:     "Hands in what the owner signed for a recovery, with the passport's keys sealed to this world. All of it is checked first.",
		Description: "It proves itself: whoever brings it may hand it in. From then on the recovery goes on by itself.",
		RequestBody: example(identity.Recovered{Recovery: exampleToken, Terms: json.RawMessage(`{}`), Bags: [][]byte{{1}}}),
	}, func(ctx context.Context, in *struct {
		OfCrossing
		Body identity.Recovered
	}) (*body[Crossing], error) {
		if _, err := s.recoveries.TakeRecovery(ctx, in.ID, in.Body); err != nil {
			return nil, err
		}
		return answer(s.crossing(in.ID))
	})
	serving(s, h, huma.Operation{
		OperationID: "get-crossing-proof", Method: http.MethodGet, Path: "/v1/crossings/{id}/proof", Tags: []string{atR3},
		Summary: "What proves that an avatar came here: the owner's order or recovery with its terms, and the registrar's decision.",
	}, func(_ context.Context, in *OfCrossing) (*body[CrossingProof], error) {
		t, err := s.recoveries.Proof(in.ID)
		return answer(CrossingProof{t.Order, t.Terms, t.Decision}, err)
	})
}

// Announcement carries a signed reception key.
type Announcement struct {
	Announcement []byte `json:"announcement"`
}

// LackingList names stretches by their fingerprints.
type LackingList struct {
	Stretches []carnet.Fingerprint `json:"stretches"`
}

// Bags carries key bags.
type Bags struct {
	Bags [][]byte `json:"bags" maxItems:"4096"`
}

// CrossingProof proves to others that an avatar has a new home.
type CrossingProof struct {
	Order    string `json:"order" doc:"The order of a move, or a recovery, as a JWS."`
	Terms    []byte `json:"terms"`
	Decision string `json:"decision" doc:"The registrar's, as a JWS."`
}

// NewRecovery is what begins a recovery, beside the manifest.
type NewRecovery struct {
	Passport string       `json:"passport"` // its word
	Farewell string       `json:"farewell,omitempty"`
	Policy   string       `json:"policy,omitempty"` // the avatar's, as its owner signed it for its former world
	View     *policy.View `json:"view,omitempty"`
}

// Framed puts pieces behind one another, each but the last with its length before it.
func Framed(pieces ...[]byte) (all []byte) {
	for _, p := range pieces[:len(pieces)-1] {
		all = append(binary.BigEndian.AppendUint32(all, uint32(len(p))), p...)
	}
	return append(all, pieces[len(pieces)-1]...)
}

// unframed takes so many pieces apart.
func unframed(b []byte, n int) (pieces [][]byte, err error) {
	for range n - 1 {
		if len(b) < 4 || uint64(len(b)-4) < uint64(binary.BigEndian.Uint32(b)) {
			return nil, carnet.Errorf(carnet.Malformed, "the body breaks off")
		}
		m := 4 + int(binary.BigEndian.Uint32(b))
		pieces, b = append(pieces, b[4:m:m]), b[m:]
	}
	return append(pieces, b), nil
}

// OctetBody is an input of bytes. It is exported because huma passes over embedded structs
// that aren't.
type OctetBody struct {
	RawBody []byte `contentType:"application/octet-stream"`
}

func (s *server) beginRecovery(ctx context.Context, in *OctetBody) (*body[Crossing], error) {
	pieces, err := unframed(in.RawBody, 2)
	if err != nil {
		return nil, err
	}
	var n NewRecovery
	if err := unmarshal(pieces[0], &n); err != nil {
		return nil, carnet.Errorf(carnet.Malformed, "what is asked for can't be read: %v", err)
	}
	b := move.Brought{Word: n.Passport, Farewell: n.Farewell, Policy: n.Policy, Manifest: pieces[1]}
	if n.View != nil {
		if err := n.View.Enforced(); err != nil {
			return nil, err
		}
		if b.View, err = n.View.MarshalJSON(); err != nil {
			return nil, err
		}
	}
	t, err := s.recoveries.BeginRecovery(ctx, caller(ctx).Name, b)
	return answer(coming(t, move.Progress{}), err)
}

func (s *server) putStretch(ctx context.Context, in *struct {
	OfCrossing
	OctetBody
}) (*body[Acknowledged], error) {
	pieces, err := unframed(in.RawBody, 3)
	if err != nil {
		return nil, err
	}
	var m avatar.MovedStretch
	if err := json.Unmarshal(pieces[0], &m); err != nil {
		return nil, carnet.Errorf(carnet.Malformed, "the stretch's listing can't be read: %v", err)
	}
	return answer(Acknowledged{Acknowledged: true}, s.recoveries.TakePiece(ctx, in.ID, m, pieces[1], pieces[2]))
}

func (s *server) passport(ctx context.Context, in *struct {
	OfAvatar
	Body NewPassport
}) (*huma.StreamResponse, error) {
	leave, err := s.bundles.enter(caller(ctx))
	if err != nil {
		return nil, err
	}
	write, err := s.passports.Passport(ctx, in.ID, in.Body)
	if err != nil {
		leave()
		return nil, err
	}
	return s.tar("passport", leave, write), nil
}
