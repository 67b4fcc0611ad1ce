package api

import (
	"context"
	"net/http"

	"carnet"

	"github.com/danielgtaylor/huma/v2"
)

// every adds what every party has.
func (s *server) every(h huma.API) {
	serving(s, h, huma.Operation{
		OperationID: "get-status", Method: http.MethodGet, Path: "/v1/status", Tags: []string{ofParty},
		Summary: "How the party is: totals, links, policy version.",
	}, func(ctx context.Context, _ *struct{}) (*body[Status], error) { return answer(s.status(ctx)) })
	serving(s, h, huma.Operation{
		OperationID: "get-health", Method: http.MethodGet, Path: "/healthz", Tags: []string{ofParty}, Security: []map[string][]string{},
		Summary: "Whether the party answers. Needs no token and says nothing else.",
	}, func(context.Context, *struct{}) (*body[Health], error) { return answer(Health{true}, nil) })
}

func (s *server) status(ctx context.Context) (st Status, err error) {
	st = Status{Party: s.party, Time: s.now().UTC()}
	if s.outbox != nil {
		st.States = &StatesStatus{To: s.outbox.To(), Away: s.outbox.Away()}
	}
	if s.things != nil {
		if st.Things, err = s.thingsStatus(ctx); err != nil {
			return st, err
		}
	}
	if s.world != nil {
		if st.World, err = s.worldStatus(ctx); err != nil {
			return st, err
		}
	}
	if s.depot != nil {
		totals, err := s.depot.Totals(ctx, "")
		if err != nil {
			return st, err
		}
		checkpoint, _ := s.depot.Checkpoint()
		st.Depot = &DepotStatus{Objects: totals.Objects, Bytes: totals.Bytes, Entries: checkpoint.Size}
	}
	if s.dpm != nil {
		counts := s.dpm.Counts()
		st.DPM = &counts
	}
	return st, nil
}

func (s *server) thingsStatus(ctx context.Context) (*ThingsStatus, error) {
	st, err := s.things.Status(ctx)
	if err != nil {
		return nil, err
	}
	all, err := s.things.Things(ctx, "")
	if err != nil {
		return nil, err
	}
	for i := range st.Links {
		st.Links[i].Trouble = s.troubleWith(st.Links[i].World)
	}
	return &ThingsStatus{
		Things: len(all), PolicyVersion: st.PolicyVersion, Messages: max(st.LogNext, 1) - 1, SentFrames: st.SentFrames,
		SentBatches: st.SentBatches, Refusals: st.Refusals, Statements: st.Statements, Receipts: st.Receipts, Links: st.Links,
	}, nil
}

// troubleWith says why a peer can't be reached.
func (s *server) troubleWith(peer carnet.PartyID) string {
	if s.peers == nil {
		return ""
	}
	return s.peers.Trouble(peer)
}

func (s *server) worldStatus(ctx context.Context) (*WorldStatus, error) {
	st := &WorldStatus{
		Live: s.live.count(), Reads: s.went.reads.Load(), Events: s.went.events.Load(), Exchanged: s.went.exchanged.Load(), Defects: s.world.Defects(),
	}
	if s.shares != nil {
		st.Shares = s.shares.Links()
		for i := range st.Shares {
			st.Shares[i].Trouble = s.troubleWith(st.Shares[i].World)
		}
	}
	// After the links: what a frame that has arrived is stated by is counted then.
	totals, err := s.world.Totals(ctx)
	if err != nil {
		return nil, err
	}
	st.Frames, st.Stretches, st.Statements, st.Receipts = totals.Frames, totals.Stretches, totals.Statements, totals.Receipts
	if s.jobs != nil {
		st.DPMs = s.jobs.Traffic()
	}
	for _, v := range s.world.Avatars() {
		st.Avatars++
		st.Streams += v.Streams
		st.Measurements += v.Measurements
		st.Batches += v.Batches
	}
	return st, nil
}
