package api

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"carnet"
	"carnet/identity"
	"carnet/mandate"

	"github.com/danielgtaylor/huma/v2"
)

// mandates is what the handler needs of a world's book of mandates: a
// *mandate.Book.
type mandates interface {
	Withdraw(ctx context.Context, avatar carnet.AvatarID, withdrawal string) (kept bool, err error)
	Ask(ctx context.Context, by string, avatar carnet.AvatarID, want mandate.Wanted) (mandate.Request, error)
	Requests(avatar carnet.AvatarID) ([]mandate.Request, error)
	Give(ctx context.Context, token string) (mandate.Request, error)
	Remove(ctx context.Context, id string) (mandate.Request, error)
}

func (s *server) mandateRoutes(h huma.API) {
	tags := []string{atR3}
	serving(s, h, huma.Operation{
		OperationID: "ask-mandate", Method: http.MethodPost, Path: "/v1/avatars/{id}/mandates", Tags: tags, DefaultStatus: http.StatusCreated,
		Summary:     "Makes the request of the avatar's owner for a mandate: what this world's avatar is to be permitted at another world.",
		Description: "The answer's member request is the document that the owner approves with carnet owner approve. Asked for the same, the request that is there is answered.",
		RequestBody: example(exampleMandate()),
	}, func(ctx context.Context, in *struct {
		OfAvatar
		Body NewMandate
	}) (*body[MandateRequest], error) {
		w, err := in.Body.wanted()
		if err != nil {
			return nil, err
		}
		return shownRequest(s.mandates.Ask(ctx, caller(ctx).Name, in.ID, w))
	})
	serving(s, h, huma.Operation{
		OperationID: "list-mandates", Method: http.MethodGet, Path: "/v1/avatars/{id}/mandates", Tags: tags,
		Summary: "What the avatar's owner was asked for, oldest first, and until when the last mandate holds.",
	}, func(_ context.Context, in *OfAvatar) (*body[MandateList], error) {
		all, err := s.mandates.Requests(in.ID)
		list := MandateList{Requests: []MandateRequest{}}
		for _, r := range all {
			list.Requests = append(list.Requests, shown(r))
		}
		return answer(list, err)
	})
	serving(s, h, huma.Operation{
		OperationID: "remove-mandate", Method: http.MethodDelete, Path: "/v1/mandates/{id}", Tags: tags, DefaultStatus: http.StatusOK,
		Summary: "Forgets a request, and the mandates that were given for it.",
	}, func(ctx context.Context, in *struct {
		ID string `path:"id" doc:"The request's id." example:"00112233445566778899aabbccddeeff" maxLength:"32"`
	}) (*body[MandateRequest], error) {
		return shownRequest(s.mandates.Remove(ctx, in.ID))
	})
	serving(s, h, huma.Operation{
		OperationID: "give-mandate", Method: http.MethodPost, Path: "/v1/mandates", Tags: tags, DefaultStatus: http.StatusOK,
		Summary:     "Hands in the mandate that an owner signed for a request of this world.",
		Description: "Who signed the first mandate for a request goes on to: another key is refused. A mandate that ends no later than the last changes nothing.",
		RequestBody: example(SignedMandate{Mandate: exampleToken}),
	}, func(ctx context.Context, in *struct{ Body SignedMandate }) (*body[MandateRequest], error) {
		return shownRequest(s.mandates.Give(ctx, in.Body.Mandate))
	})
	serving(s, h, huma.Operation{
		OperationID: "withdraw-mandate", Method: http.MethodPost, Path: "/v1/avatars/{id}/withdrawals", Tags: tags, DefaultStatus: http.StatusOK,
		Summary:     "Hands in an owner's withdrawal of a mandate about the avatar. What lives by the mandate ends at once.",
		Description: "The answer comes when the withdrawal is on disk; handed in again it is answered the same.",
		RequestBody: example(SignedWithdrawal{Withdrawal: exampleToken}),
	}, func(ctx context.Context, in *struct {
		OfAvatar
		Body SignedWithdrawal
	}) (*body[Acknowledged], error) {
		kept, err := s.mandates.Withdraw(ctx, in.ID, in.Body.Withdrawal)
		return answer(Acknowledged{Acknowledged: kept, Over: !kept}, err)
	})
}

// NewMandate is what an avatar of this world is to be permitted at another.
type NewMandate struct {
	World       carnet.PartyID    `json:"world" doc:"The other world, as it calls itself." example:"arena"`
	Avatar      carnet.AvatarID   `json:"avatar" doc:"The avatar there." example:"00112233445566778899aabbccddeeff"`
	Actions     []identity.Action `json:"actions" doc:"What it is to be permitted." minItems:"1" maxItems:"3" enum:"read,subscribe,move"`
	Purpose     string            `json:"purpose" doc:"What for: one word." example:"care" minLength:"1" maxLength:"64"`
	Sensitivity string            `json:"sensitivity" doc:"The most that may flow: public, or personal, health, location, joined by +." example:"personal+health" minLength:"1" maxLength:"64"`
	Purposes    []string          `json:"purposes,omitempty" doc:"Data bound to other purposes may not flow. Left out: the purpose alone." maxItems:"16"`
	Residency   []string          `json:"residency,omitempty" doc:"Where it may be kept." maxItems:"16"`
	Text        string            `json:"text" doc:"What it is for, for the owner, on one line." example:"Citadel shows your heart rate to your team." minLength:"1" maxLength:"512"`
}

func exampleMandate() NewMandate {
	return NewMandate{
		World: "citadel", Avatar: carnet.AvatarID{1}, Actions: []identity.Action{identity.ActionSubscribe}, Purpose: "care",
		Sensitivity: "health", Text: "Arena shows your heart rate to your team.",
	}
}

func (n NewMandate) wanted() (mandate.Wanted, error) {
	sensitivity, err := carnet.ParseSensitivity(n.Sensitivity)
	if err != nil {
		return mandate.Wanted{}, err
	}
	purposes := n.Purposes
	if len(purposes) == 0 {
		purposes = []string{n.Purpose}
	}
	if !identity.Words(slices.Concat(purposes, n.Residency)) {
		return mandate.Wanted{}, carnet.Errorf(carnet.Malformed, "purposes and residency are words of a-z, 0-9 and '-'").WithFix("such as care, or eu")
	}
	return mandate.Wanted{
		Audience: n.World, About: n.Avatar, Actions: n.Actions, Purpose: n.Purpose, Text: n.Text,
		Clearance: carnet.Clearance{Sensitivity: sensitivity, Purposes: carnet.NewSet(purposes...), Residency: carnet.NewSet(n.Residency...)},
	}, nil
}

// SignedMandate and SignedWithdrawal carry what an owner signed.
type SignedMandate struct {
	Mandate string `json:"mandate" doc:"A compact JWS with the type carnet-mandate+jwt." minLength:"1" maxLength:"4096"`
}

type SignedWithdrawal struct {
	Withdrawal string `json:"withdrawal" doc:"A compact JWS with the type carnet-withdrawal+jwt." minLength:"1" maxLength:"4096"`
}

// Acknowledged says what became of a withdrawal.
type Acknowledged struct {
	Acknowledged bool `json:"acknowledged" doc:"It is on disk."`
	Over         bool `json:"over,omitempty" doc:"It was signed so long ago that every mandate that it could be of is over by itself: it isn't kept."`
}

// RequestDocument is what an owner approves, byte by byte as it is stored.
type RequestDocument json.RawMessage

// MarshalJSON and UnmarshalJSON keep the bytes.
func (d RequestDocument) MarshalJSON() ([]byte, error) { return json.RawMessage(d).MarshalJSON() }
func (d *RequestDocument) UnmarshalJSON(b []byte) error {
	return (*json.RawMessage)(d).UnmarshalJSON(b)
}

// Schema leaves the document to the identity package, which reads it strictly.
func (RequestDocument) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: "object", AdditionalProperties: true, Description: "A mandate request (docs/design/mandate.md): give it to the owner as it is."}
}

// MandateRequest is a request of this world's, as it stands.
type MandateRequest struct {
	ID      string          `json:"id"`
	Avatar  carnet.AvatarID `json:"avatar" doc:"Of this world, that is to act."`
	Request RequestDocument `json:"request"`
	By      string          `json:"by" doc:"Who asked."`
	Made    time.Time       `json:"made"`
	Expires *time.Time      `json:"expires,omitempty" doc:"When the mandate last given ends; absent while none was given."`
}

func shown(r mandate.Request) MandateRequest {
	return MandateRequest{r.ID, r.Avatar, RequestDocument(r.Request), r.By, r.Made, r.Expires}
}

func shownRequest(r mandate.Request, err error) (*body[MandateRequest], error) {
	return answer(shown(r), err)
}

// MandateList is what an avatar's owner was asked for.
type MandateList struct {
	Requests []MandateRequest `json:"requests"`
}
