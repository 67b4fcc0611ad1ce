package api

import (
	"context"
	"net/http"

	"carnet"

	"github.com/danielgtaylor/huma/v2"
)

// examinationRoutes adds what a party finds of its own.
func (s *server) examinationRoutes(h huma.API) {
	serving(s, h, huma.Operation{
		OperationID: "get-examination", Method: http.MethodGet, Path: "/v1/examination", Tags: []string{ofParty},
		Summary: "What the party has that is half done, or not as it should be.",
		Description: "The party looks at all that it has, and asks the register about its avatars' and items' homes. " +
			"What it finds it looks at again two seconds later, so that what is only in passing isn't told. One examination at a time; the next waits.",
	}, func(ctx context.Context, _ *struct{}) (*body[carnet.Examination], error) {
		select {
		case s.examining <- struct{}{}:
			defer func() { <-s.examining }()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		return answer(s.examine(ctx))
	})
}
