package node

import (
	"context"
	"crypto/ed25519"
	"errors"
	"io/fs"
	"log/slog"
	"path/filepath"

	"carnet"
	"carnet/activity"
	"carnet/crossing/move"
	"carnet/depot"
	"carnet/dpm"
	"carnet/entity"
	"carnet/evidence"
	"carnet/identity"
	"carnet/item"
	"carnet/job"
	"carnet/keys"
	"carnet/ledger"
)

// Parts are further agents of a party that doesn't run; nil is what its role hasn't.
type Parts struct {
	Items    *item.Book
	Moves    *move.Agent
	Entities *entity.Agent
	Jobs     *job.Agent
	DPM      *dpm.Agent
	Depot    *depot.Agent
	Activity *activity.Log
}

// Parts returns the party's further agents.
func (i *Inspection) Parts() Parts {
	a := &i.node.api
	return Parts{Items: a.Items, Moves: a.Moves, Entities: a.Entities, Jobs: a.Jobs, DPM: a.DPM, Depot: a.Depot, Activity: i.node.activity}
}

// Key is the public key with which a world or a DPM signs.
func (i *Inspection) Key(ctx context.Context) (ed25519.PublicKey, error) {
	local, err := identity.Load(ctx, i.node.table, self)
	if err != nil {
		return nil, err
	}
	return local.Key.Public().(ed25519.PublicKey), nil
}

// JobsOf is what evidence of a world's avatar says of jobs: for a Prover.
func (i *Inspection) JobsOf(ctx context.Context, id carnet.AvatarID) (*evidence.Jobs, error) {
	all, err := i.node.api.Jobs.Proofs(ctx, id)
	if err != nil {
		return nil, err
	}
	return i.node.provenJobs(ctx, all)
}

// Stated is a statement of a party's own, and whether its receipt is there and proves
// it.
type Stated struct {
	ledger.Statement
	Receipted bool
}

// Stated lists the party's statements, oldest first, but for those that rest with the
// frames that they are about. key is that of the ledger which gave the receipts.
func (i *Inspection) Stated(ctx context.Context, key ledger.Key) (all []Stated, err error) {
	verifier := ledger.NewVerifier(key)
	err = i.node.eachStatement(ctx, func(item *ledger.Item, encoded []byte, _ *keys.Sealer) error {
		s, err := ledger.ParseStatement(encoded)
		if err == nil {
			all = append(all, Stated{s, proves(verifier, *item)})
		}
		return err
	})
	return all, err
}

// proves reports whether an item's receipt is one for its entry.
func proves(v *ledger.Verifier, item ledger.Item) bool {
	if len(item.Receipt) == 0 {
		return false
	}
	receipt, err := ledger.ParseReceipt(item.Receipt)
	if err != nil {
		return false
	}
	_, err = v.Verify(item.Entry, receipt)
	return err == nil
}

// Pending counts the party's statements that have no receipt.
func (i *Inspection) Pending(ctx context.Context) (n int, err error) {
	for after := uint64(0); ; {
		page, err := i.node.records.Pending(ctx, after, 500)
		if err != nil || len(page) == 0 {
			return n, err
		}
		n, after = n+len(page), page[len(page)-1].ID
	}
}

// Left is what a DPM that doesn't run has of jobs: the names of keys, and files. It is
// read as it is, before an agent is opened, which destroys what is over.
func Left(ctx context.Context, c Config) (left []string, err error) {
	_, err = opened(ctx, c, slog.New(slog.DiscardHandler), func(n *Node, ctx context.Context) error {
		table, err := openTable(ctx, n.config, n.stores)
		if err != nil {
			return err
		}
		ids, err := table.List(ctx, "job", "")
		for _, id := range ids {
			left = append(left, "the key "+id.Name)
		}
		return errors.Join(err, errLooked)
	})
	if !errors.Is(err, errLooked) {
		return nil, err
	}
	err = filepath.WalkDir(filepath.Join(c.path(c.Data), "jobs"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			left = append(left, "the file "+filepath.Base(path))
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return left, err
}

// errLooked ends an opening that was only to look.
var errLooked = errors.New("it was only looked at")
