package node

import (
	"context"
	"crypto/ed25519"

	"carnet"
	"carnet/capsule"
	"carnet/evidence"
	"carnet/identity"
	"carnet/job"
	"carnet/keys"
	"carnet/ledger"
)

// fact is what a statement states: of a kind, about an object.
type fact struct {
	kind   ledger.Kind
	object carnet.Fingerprint
}

// eachStatement hands over the party's statements, oldest first, but for those that rest
// with the frames that they are about.
func (n *Node) eachStatement(ctx context.Context, do func(item *ledger.Item, encoded []byte, sealer *keys.Sealer) error) error {
	list, ok := n.records.(interface {
		Statements(ctx context.Context, after uint64, limit int) ([]ledger.Item, error)
	})
	if !ok {
		return carnet.Errorf(carnet.NotFound, "the store of %s lists no statements", n.config.Party)
	}
	name := map[identity.Role]string{identity.Things: "things", identity.World: "world"}[n.config.Role]
	if name == "" {
		name = n.restID().Name
	}
	sealer, err := n.table.Sealer(ctx, keys.ID{Kind: "rest", Name: name})
	if err != nil {
		return err
	}
	for after := uint64(0); ; {
		page, err := list.Statements(ctx, after, 500)
		if err != nil || len(page) == 0 {
			return err
		}
		for i := range page {
			after = page[i].ID
			plain, err := sealer.Open(nil, []byte("statement"), page[i].Statement)
			if err == nil {
				err = do(&page[i], plain, sealer)
			}
			if err != nil {
				return err
			}
		}
	}
}

// onLedger finds what proves facts that the party has stated, as far as they have receipts
// of a ledger.
func (n *Node) onLedger(ctx context.Context, key string, want map[fact]bool) (map[fact]identity.OnLedger, error) {
	parsed, err := ledger.ParseKey(key)
	if err != nil {
		return nil, err
	}
	verifier, found := ledger.NewVerifier(parsed), make(map[fact]identity.OnLedger)
	err = n.eachStatement(ctx, func(item *ledger.Item, encoded []byte, sealer *keys.Sealer) error {
		s, err := ledger.ParseStatement(encoded)
		if err != nil {
			return err
		}
		is := fact{s.Kind, s.Object}
		if !want[is] || !proves(verifier, *item) {
			return nil
		}
		salt, err := sealer.Open(nil, []byte("salt"), item.Salt)
		found[is] = identity.OnLedger{Statement: encoded, Salt: salt, Receipt: item.Receipt}
		return err
	})
	return found, err
}

// ownLedger is the ledger that the party's statements are on now.
func (n *Node) ownLedger() (depot carnet.PartyID, key string, err error) {
	depot = n.depot.Party()
	peer, ok := peerFiles(n.peers)[depot]
	if !ok || peer.Ledger == "" {
		return depot, "", carnet.Errorf(carnet.Unavailable, "there is no depot whose ledger has the statements").WithFix("peer with one: carnet peer list")
	}
	return depot, peer.Ledger, nil
}

// stated implements dpm.Ledger.
type stated struct{ *Node }

func (s stated) Name() (carnet.PartyID, string, error) { return s.ownLedger() }

func (s stated) Proof(ctx context.Context, kind ledger.Kind, object carnet.Fingerprint) (identity.OnLedger, error) {
	_, key, err := s.ownLedger()
	if err != nil {
		return identity.OnLedger{}, err
	}
	is := fact{kind, object}
	found, err := s.onLedger(ctx, key, map[fact]bool{is: true})
	if err != nil {
		return identity.OnLedger{}, err
	}
	p, ok := found[is]
	if !ok {
		return p, carnet.Errorf(carnet.Unavailable, "the statement has no receipt yet").WithFix("ask again")
	}
	return p, nil
}

// provenJobs is what evidence of an avatar says of jobs; nil: there were none.
func (n *Node) provenJobs(ctx context.Context, all []job.Proof) (*evidence.Jobs, error) {
	if len(all) == 0 {
		return nil, nil
	}
	local, err := identity.Load(ctx, n.table, self)
	if err != nil {
		return nil, err
	}
	ledgers := ledgersOf(peerFiles(n.peers))
	if len(ledgers) == 0 {
		return nil, carnet.Errorf(carnet.Unavailable, "there is no depot whose ledger has the statements").WithFix("peer with one: carnet peer list")
	}
	want := make(map[fact]bool)
	for i := range all {
		want[ordered(&all[i])] = true
		want[ended(&all[i])] = all[i].Stand.Result != ""
	}
	found, err := n.onLedger(ctx, ledgers[0].Key, want) // which the bundle has for the world's
	if err != nil {
		return nil, err
	}
	jobs := &evidence.Jobs{By: local.Key.Public().(ed25519.PublicKey), DPMs: dpmsOf(peerFiles(n.peers))}
	for i := range all {
		p := &all[i]
		j := evidence.Job{
			At: p.At, Order: p.Order, Acceptance: p.Stand.Acceptance, Withdrawal: p.Stand.Withdrawal, Outcome: p.Stand.Outcome, Why: p.Stand.Why, Result: p.Stand.Result, Record: p.Record,
		}
		if proof, ok := found[ordered(p)]; ok {
			j.Ordered = &proof
		}
		if proof, ok := found[ended(p)]; ok {
			j.Ended = &proof
		}
		for _, in := range p.Inputs {
			one := evidence.JobInput{Place: in.Place, Stream: in.Stream}
			for _, run := range in.Batches {
				one.Batches = append(one.Batches, evidence.Range{From: run[0], To: run[1]})
			}
			j.Inputs = append(j.Inputs, one)
		}
		jobs.Jobs = append(jobs.Jobs, j)
	}
	return jobs, nil
}

func ordered(p *job.Proof) fact { return fact{ledger.JobOrdered, capsule.Fingerprint(p.Order)} }
func ended(p *job.Proof) fact   { return fact{ledger.JobEnded, capsule.Fingerprint(p.Stand.Result)} }
