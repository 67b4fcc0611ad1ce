package api

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/identity"
	"carnet/peering"

	"github.com/danielgtaylor/huma/v2"
)

func (s *server) policyRoutes(h huma.API) {
	tags := []string{atR3}
	serving(s, h, huma.Operation{
		OperationID: "get-avatar-policy", Method: http.MethodGet, Path: "/v1/avatars/{id}/policy", Tags: tags,
		Summary:     "What the avatar's owner lets be done with it: where it may be stored, how it may be used, to whom it may be given, and when it may move.",
		Description: "Without a policy the version is 0, and nothing is bounded. known has the parties that a policy may name, by their keys.",
	}, func(ctx context.Context, in *OfAvatar) (*body[AvatarPolicy], error) {
		p, err := s.world.Policy(in.ID)
		if err != nil {
			return nil, err
		}
		return answer(s.shownPolicy(ctx, p), nil)
	})
	serving(s, h, huma.Operation{
		OperationID: "set-avatar-policy", Method: http.MethodPut, Path: "/v1/avatars/{id}/policy", Tags: tags,
		Summary: "Hands in the avatar's policy, which its owner signed. What it forbids ends at once.",
		Description: "It proves itself: whoever brings it may hand it in. The answer comes when it is on disk and in force; handed in again it is answered the same. " +
			"A version that isn't newer than the one that is there is refused (conflict), and so is any while the avatar keeps still for a move. An unknown member refuses the document.",
		RequestBody: example(SignedPolicy{Policy: exampleToken}),
	}, func(ctx context.Context, in *struct {
		OfAvatar
		Body SignedPolicy
	}) (*body[AvatarPolicy], error) {
		p, err := s.world.SetPolicy(ctx, in.ID, in.Body.Policy)
		if err != nil {
			return nil, err
		}
		return answer(s.shownPolicy(ctx, p), nil)
	})
}

// SignedPolicy carries what an owner signed.
type SignedPolicy struct {
	Policy string `json:"policy" doc:"A compact JWS with the type carnet-avatar-policy+jwt." minLength:"1" maxLength:"8192"`
}

// BoundsDocument is the document of a policy.
type BoundsDocument json.RawMessage

// MarshalJSON and UnmarshalJSON keep the bytes.
func (d BoundsDocument) MarshalJSON() ([]byte, error) { return json.RawMessage(d).MarshalJSON() }
func (d *BoundsDocument) UnmarshalJSON(b []byte) error {
	return (*json.RawMessage)(d).UnmarshalJSON(b)
}

// Schema leaves the document to the policy package, which reads it strictly.
func (BoundsDocument) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: "object", AdditionalProperties: true, Description: "The bounds (docs/design/avatar-policy.md): store, use, transmit and cross, of which each may lack."}
}

// AvatarPolicy is an avatar's policy, as its world has it.
type AvatarPolicy struct {
	Version uint64         `json:"version" doc:"0: there is no policy."`
	Made    *time.Time     `json:"made,omitempty" doc:"When its owner signed it."`
	Policy  BoundsDocument `json:"policy,omitempty"`
	Means   []string       `json:"means,omitempty" doc:"The same in sentences." maxItems:"64"`
	Signed  string         `json:"signed,omitempty" doc:"As its owner signed it: a JWS."`
	Known   []KnownParty   `json:"known" doc:"The worlds, DPMs and depots that this world deals with." maxItems:"4096"`
}

// KnownParty is a party that a policy may name.
type KnownParty struct {
	Name carnet.PartyID `json:"name" doc:"What this world calls it."`
	Role identity.Role  `json:"role" enum:"world,depot,dpm"`
	Key  string         `json:"key" doc:"What a policy calls it: the did:key that it shows its peers." maxLength:"64"`
}

func (s *server) shownPolicy(ctx context.Context, p avatar.Policy) AvatarPolicy {
	shown := AvatarPolicy{Known: s.nameable(ctx)}
	if p.Signed == "" {
		return shown
	}
	shown.Version, shown.Made, shown.Policy, shown.Signed = p.Said.Version, &p.Said.Made, BoundsDocument(p.Said.Policy), p.Signed
	shown.Means = p.Bounds.Explain(func(did string) string {
		if i := slices.IndexFunc(shown.Known, func(k KnownParty) bool { return k.Key == did }); i >= 0 {
			return string(shown.Known[i].Name)
		}
		return ""
	})
	return shown
}

// nameable lists the peers that a policy may name: for who doesn't see all peerings only
// those in force.
func (s *server) nameable(ctx context.Context) []KnownParty {
	all := []KnownParty{}
	if s.peers == nil {
		return all
	}
	every := s.seesPeerings(ctx)
	for _, p := range s.peers.All() {
		if !every && p.State != peering.Active {
			continue
		}
		peer, is := p.Peer()
		if is && peer.Role != identity.Things && len(peer.Key) == ed25519.PublicKeySize {
			all = append(all, KnownParty{p.Name, peer.Role, identity.DID(peer.Key)})
		}
	}
	slices.SortFunc(all, func(p, q KnownParty) int { return strings.Compare(string(p.Name), string(q.Name)) })
	return all
}
