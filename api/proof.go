package api

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/identity"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

// Proofs is what a world says about an avatar to who trusts nobody's store.
// Its methods may be called concurrently; an avatar that isn't there is
// carnet.NotFound.
type Proofs interface {
	// Evidence makes the avatar's evidence bundle, and returns what writes it as
	// a tar and then removes it. With a query that isn't zero it makes a bundle of
	// each batch by itself that holds what is asked for; there being none is
	// carnet.NotFound.
	Evidence(ctx context.Context, id carnet.AvatarID, q avatar.Query) (write func(io.Writer) error, err error)
	// Document returns the avatar's DID document.
	Document(id carnet.AvatarID) (identity.Document, error)
	// Credential issues the world's credential about the avatar, as a compact JWS.
	Credential(ctx context.Context, id carnet.AvatarID) (string, error)
}

const (
	typeTar        = "application/x-tar"
	typeDID        = "application/did+json" // DID Core §6.2
	typeCredential = "application/vc+jwt"   // VC JOSE COSE §3.1.1
)

func (s *server) proofRoutes(h huma.API) {
	tags := []string{atR4}
	serving(s, h, huma.Operation{
		OperationID: "get-evidence", Method: http.MethodGet, Path: "/v1/avatars/{id}/evidence", Tags: tags,
		Summary: "The avatar's evidence bundle, as a tar of one directory, for carnet verify.",
		Description: "The bundle has everything the world was sent about the avatar, with the keys that open it: " +
			"keep it as you would keep the data. With from, to or property the tar has a directory for each batch, at most 100, " +
			"that holds such a measurement: a bundle that proves this one batch and opens no other. " +
			fmt.Sprintf("At most %d are made at once, and %d with one token: one more is answered with 429.", s.limits.bundles, s.limits.bundlesOfOne),
		Metadata:  map[string]any{servesKey: []string{typeTar}},
		Responses: limitedTo(map[string]*huma.Response{"200": {Description: "The bundle.", Content: map[string]*huma.MediaType{typeTar: {Schema: &huma.Schema{Type: "string", Format: "binary"}}}}}),
	}, s.evidence)
	serving(s, h, huma.Operation{
		OperationID: "get-did", Method: http.MethodGet, Path: "/v1/avatars/{id}/did", Tags: tags,
		Summary:   "The avatar's DID document: the key by which it proves itself.",
		Metadata:  map[string]any{servesKey: []string{typeDID, typeJSON}},
		Responses: map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{typeDID: {Schema: &huma.Schema{Type: "object"}}}}},
	}, func(_ context.Context, in *OfAvatar) (*typedBody, error) {
		d, err := s.proofs.Document(in.ID)
		if err != nil {
			return nil, err
		}
		text, err := json.Marshal(d)
		return &typedBody{ContentType: typeDID, Body: text}, err
	})
	serving(s, h, huma.Operation{
		OperationID: "get-credential", Method: http.MethodGet, Path: "/v1/avatars/{id}/credential", Tags: tags,
		Summary:   "The world's credential about the avatar: a verifiable credential as a compact JWS.",
		Metadata:  map[string]any{servesKey: []string{typeCredential}},
		Responses: map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{typeCredential: {Schema: &huma.Schema{Type: "string"}}}}},
	}, func(ctx context.Context, in *OfAvatar) (*typedBody, error) {
		token, err := s.proofs.Credential(ctx, in.ID)
		return &typedBody{ContentType: typeCredential, Body: []byte(token)}, err
	})
}

// typedBody is an answer with a type of its own.
type typedBody struct {
	ContentType string `header:"Content-Type"`
	Body        []byte
}

// evidenceQuery asks for all of an avatar, or for the batches with what fits.
type evidenceQuery struct {
	OfAvatar
	From     string `query:"from" doc:"Measured at this time or later: RFC 3339, or seconds since 1970." example:"2020-01-01T00:00:00Z" maxLength:"40"`
	To       string `query:"to" doc:"Measured before this time." example:"2036-01-01T00:00:00Z" maxLength:"40"`
	Property string `query:"property" doc:"One property only; an object's name stands for its fields." example:"heart_rate" maxLength:"128"`
}

func (s *server) evidence(ctx context.Context, in *evidenceQuery) (*huma.StreamResponse, error) {
	q, err := query(in.From, in.To, in.Property)
	if err != nil {
		return nil, err
	}
	leave, err := s.bundles.enter(caller(ctx))
	if err != nil {
		return nil, err
	}
	write, err := s.proofs.Evidence(ctx, in.ID, q)
	if err != nil {
		leave()
		return nil, err
	}
	return s.tar("evidence", leave, write), nil
}

// tar answers with a tar that write writes, and leaves then.
func (s *server) tar(name string, leave func(), write func(io.Writer) error) *huma.StreamResponse {
	return &huma.StreamResponse{Body: func(ctx huma.Context) {
		defer leave()
		_, w := humago.Unwrap(ctx)
		w.Header().Set("Content-Type", typeTar)
		w.Header().Set("Content-Disposition", `attachment; filename="`+name+`.tar"`)
		if err := write(patient{w, http.NewResponseController(w), s.limits.answer}); err != nil {
			s.log.Warn("a bundle was not sent whole", "bundle", name, "err", err)
			panic(http.ErrAbortHandler) // the caller must not take it for whole
		}
	}}
}

// patient gives the caller time for each piece, not for the whole: a bundle is as
// long as a history.
type patient struct {
	w     io.Writer
	limit *http.ResponseController
	each  time.Duration
}

func (p patient) Write(b []byte) (int, error) {
	// A writer without deadlines is a test's; net/http's has them.
	_ = p.limit.SetWriteDeadline(time.Now().Add(p.each))
	return p.w.Write(b)
}
