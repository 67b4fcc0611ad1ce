package api

import (
	"context"
	"io"
	"net/http"
	"time"

	"carnet"
	"carnet/senml"

	"github.com/danielgtaylor/huma/v2"
)

// Abroad calls other worlds for avatars of this one (docs/design/r5.md).
type Abroad interface {
	// State asks a peer, by what this world calls it, for the newest measurements
	// of an avatar there, as an avatar of this world. The body of the answer is a
	// pack in SenML CBOR if the status is 200; it is the caller's to close.
	State(ctx context.Context, as carnet.AvatarID, at carnet.PartyID, about carnet.AvatarID) (*http.Response, error)
}

// maxAbroad bounds what another world answers.
const maxAbroad = 1 << 20

func (s *server) abroadRoutes(h huma.API) {
	serving(s, h, huma.Operation{
		OperationID: "read-abroad", Method: http.MethodGet, Path: "/v1/avatars/{id}/abroad/{world}/{avatar}/state", Tags: []string{atR3},
		Summary: "The newest measurements of an avatar of another world, read there as this avatar.",
		Description: "Both worlds are peers with the scope r5, this avatar has a mandate of the other's owner, and the other world has given it a grant. " +
			"Which of these lacks the other world tells nobody but its own operator and owner.",
		Metadata: map[string]any{servesKey: packs}, Responses: packResponses(),
	}, func(ctx context.Context, in *struct {
		OfAvatar
		Accepts
		World  string          `path:"world" doc:"The other world, as this one calls it." example:"arena" maxLength:"32"`
		Avatar carnet.AvatarID `path:"avatar" doc:"The avatar there." example:"ffeeddccbbaa99887766554433221100"`
	}) (*packAnswer, error) {
		if _, err := s.world.Avatar(in.ID); err != nil {
			return nil, err
		}
		at, err := carnet.ParsePartyID(in.World)
		if err != nil {
			return nil, err
		}
		ms, err := s.readAbroad(ctx, in.ID, at, in.Avatar)
		if err != nil {
			return nil, err
		}
		return pack(in.Accept, ms)
	})
}

// readAbroad reads what another world answers, and believes nothing of its form.
func (s *server) readAbroad(ctx context.Context, as carnet.AvatarID, at carnet.PartyID, about carnet.AvatarID) ([]carnet.Measurement, error) {
	answer, err := s.abroad.State(ctx, as, at, about)
	if carnet.CodeOf(err) == carnet.Unauthenticated { // there, not here
		return nil, carnet.Errorf(carnet.Forbidden, "%v", err)
	}
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	switch answer.StatusCode {
	case http.StatusOK:
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound:
		return nil, carnet.Errorf(carnet.Forbidden, "%s doesn't let the avatar %s read the avatar %s", at, as, about).
			WithFix("ask its operator, who sees the reason with 'carnet activity --refused'")
	default:
		return nil, carnet.Errorf(carnet.Unavailable, "%s answers %d at the moment", at, answer.StatusCode)
	}
	data, err := io.ReadAll(io.LimitReader(answer.Body, maxAbroad+1))
	if err != nil {
		return nil, carnet.Errorf(carnet.Unavailable, "the answer of %s broke off", at)
	}
	if t := answer.Header.Get("Content-Type"); t != senml.CBOR.ContentType() {
		return nil, carnet.Errorf(carnet.Unavailable, "%s answers %.100q instead of measurements", at, t)
	}
	ms, err := senml.NewDecoder(senml.Limits{Bytes: maxAbroad}).Decode(nil, senml.CBOR, data, time.Now().UnixNano())
	if err != nil {
		return nil, carnet.Errorf(carnet.Unavailable, "%s answers something else than measurements: %v", at, err)
	}
	return ms, nil
}

type provenKey struct{}

// Proof is who calls by another way in, and what was proved of that.
type Proof struct {
	Who Principal
	How string // in a few words
	// The grant by which the call is permitted: no other counts.
	Grant        string
	GrantVersion uint64
	// Most is the most that may flow to the caller, whatever the grant says.
	Most carnet.Clearance
}

// Proven says who calls where another way in has proved it: no token is asked for.
// Only who serves a handler can say so, no request.
func Proven(ctx context.Context, p Proof) context.Context {
	return context.WithValue(ctx, provenKey{}, p)
}

func provenIn(ctx context.Context) (Proof, bool) {
	p, ok := ctx.Value(provenKey{}).(Proof)
	return p, ok
}
