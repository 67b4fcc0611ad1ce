package node

import (
	"archive/tar"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/evidence"
	"carnet/identity"
	"carnet/job"
	"carnet/passport"
	"carnet/seal"
)

// BundleName is what the bundle of an avatar is called.
func BundleName(world carnet.PartyID, id carnet.AvatarID) string {
	return fmt.Sprintf("%s-%s", world, id)
}

// Prover writes evidence of a world's avatars.
type Prover struct {
	World *avatar.Agent
	Party carnet.PartyID // the world's name
	Peers map[carnet.PartyID]identity.Peer
	UpTo  uint64 // the last frame that it is of, as Agent.Settle returns it
	// Jobs tells what evidence says of jobs over what an avatar said; nil: it says nothing
	// of them.
	Jobs func(context.Context, carnet.AvatarID) (*evidence.Jobs, error)
}

// Write writes an avatar's evidence bundle to dir, which must be empty or not be
// there.
func (p Prover) Write(ctx context.Context, id carnet.AvatarID, dir string) error {
	o, err := p.options(ctx, id)
	if err != nil {
		return err
	}
	if p.Jobs != nil {
		if o.Jobs, err = p.Jobs(ctx, id); err != nil {
			return err
		}
	}
	_, err = evidence.Write(ctx, dir, proven{p, id}, o)
	return err
}

// mostBatches is how many batches are proved each by itself at once.
const mostBatches = 100

// WriteBatches writes, for each batch that holds a measurement which fits the
// query, a bundle of that batch alone into a directory of its own below dir: it
// has the key of no other batch, and names no other sender.
func (p Prover) WriteBatches(ctx context.Context, id carnet.AvatarID, q avatar.Query, dir string) error {
	o, err := p.options(ctx, id)
	if err != nil {
		return err
	}
	senders, passages, commits, written := o.Trust.Senders, o.Passages, o.Commits, 0
	err = p.World.ProvenOf(ctx, id, p.UpTo, q, func(f *avatar.ProvenFrame) error {
		o.Trust.Senders = slices.DeleteFunc(slices.Clone(senders), func(s evidence.Sender) bool { return s.Party != f.Sender })
		for i, batch := range f.Batches {
			if written++; written > mostBatches {
				return carnet.Errorf(carnet.TooLarge, "more than %d batches hold such measurements", mostBatches).WithFix("name a shorter time, or one property")
			}
			h, _, err := seal.ParseHeader(batch)
			if err != nil {
				return err
			}
			one := *f
			one.Own, one.Batches, one.Keys = f.Own[i:i+1], f.Batches[i:i+1], f.Keys[i:i+1]
			o.Passages, o.Commits = nil, nil
			if passage, former := passages[h.Stream]; former {
				o.Passages, o.Trust.Senders = map[carnet.StreamID][]byte{h.Stream: passage}, nil
				if commit := commits[h.Stream]; len(commit) > 0 {
					o.Commits = map[carnet.StreamID][]byte{h.Stream: commit}
				}
				if one.Path, err = f.PathOf(i); err != nil {
					return err
				}
			}
			o.Only = &evidence.Batch{Stream: h.Stream, Number: h.Number}
			bundle := filepath.Join(dir, fmt.Sprintf("%s-%s-%d", BundleName(p.Party, id), h.Stream, h.Number))
			if _, err := evidence.Write(ctx, bundle, single(one), o); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil && written == 0 {
		q.Limit = 1
		if _, _, err := p.World.History(ctx, id, q); err != nil {
			return err // such as: its keys are destroyed
		}
		return carnet.Errorf(carnet.NotFound, "the avatar has no such measurement").WithFix("see its history for what there is, and when")
	}
	return err
}

// Trust lists the keys by which a party's peers verify evidence: of a world its own
// and those of its things agents and depots, of a depot its ledger's. It is given
// to verifiers by another way than the bundles.
func Trust(ctx context.Context, c Config) (t evidence.Trust, err error) {
	n := &Node{config: c, log: slog.New(slog.DiscardHandler)} // it runs nothing
	if n.stores, err = openStores(ctx, c); err != nil {
		return t, err
	}
	defer func() { err = errors.Join(err, n.stores.close()) }()
	if err := n.openRegistry(ctx); err != nil {
		return t, err
	}
	t.Version = 1
	switch c.Role {
	case identity.World:
		key, err := avatar.EvidenceKey(ctx, n.table, c.Party)
		if err != nil {
			return t, err
		}
		local, err := identity.Load(ctx, n.table, self)
		if err != nil {
			return t, err
		}
		t = trustOf(c.Party, key, peerFiles(n.peers))
		t.DPMs = dpmsOf(peerFiles(n.peers))
		t.Worlds[0].Register = identity.DID(local.Key.Public().(ed25519.PublicKey))
		for _, peer := range peerFiles(n.peers) {
			if peer.Registrar != "" {
				t.Registrars = append(t.Registrars, peer.Registrar)
			}
		}
		slices.Sort(t.Registrars)
		return t, nil
	case identity.DPM:
		t.Ledgers = ledgersOf(peerFiles(n.peers)) // its own key is its worlds' to tell
		return t, nil
	case identity.Depot:
		signer, err := ledgerSigner(ctx, c, n.table)
		if err != nil {
			return t, err
		}
		t.Ledgers = []evidence.Ledger{{Party: c.Party, Key: signer.Key().String()}}
		return t, nil
	}
	return t, carnet.Errorf(carnet.Malformed, "a things agent shows each world another key, and worlds tell which").
		WithFix("ask the worlds and the depot for their trust files, and compare the agent's key with what it shows the world")
}

// trustOf lists a world's key, and those that it pinned.
func trustOf(world carnet.PartyID, key ed25519.PrivateKey, peers map[carnet.PartyID]identity.Peer) evidence.Trust {
	public := key.Public().(ed25519.PublicKey)
	trust := evidence.Trust{Version: 1, Worlds: []evidence.World{{Party: world, Key: evidence.PublicKey(public)}}}
	for _, name := range slices.Sorted(maps.Keys(peers)) {
		switch peer := peers[name]; peer.Role {
		case identity.Things, identity.World:
			trust.Senders = append(trust.Senders, evidence.Sender{
				Party: name, Audience: world, Key: evidence.PublicKey(peer.Key), Shares: peer.Role == identity.World,
			})
		}
	}
	trust.Ledgers = ledgersOf(peers)
	return trust
}

// ledgersOf lists the ledgers of the depots that a party pinned.
func ledgersOf(peers map[carnet.PartyID]identity.Peer) (all []evidence.Ledger) {
	for _, name := range slices.Sorted(maps.Keys(peers)) {
		if peer := peers[name]; peer.Role == identity.Depot {
			all = append(all, evidence.Ledger{Party: name, Key: peer.Ledger})
		}
	}
	return all
}

// dpmsOf lists the DPMs that a world pinned.
func dpmsOf(peers map[carnet.PartyID]identity.Peer) (all []evidence.DPM) {
	for _, name := range slices.Sorted(maps.Keys(peers)) {
		if peer := peers[name]; peer.Role == identity.DPM {
			all = append(all, evidence.DPM{Party: name, Key: evidence.PublicKey(peer.Key)})
		}
	}
	return all
}

// origin says where what a sender sends to this world is proved.
func (n *Node) origin(sender carnet.PartyID) (avatar.Origin, error) {
	o := avatar.Origin{World: n.config.Party, Sender: sender, Audience: n.config.Party}
	for name, peer := range peerFiles(n.peers) {
		switch {
		case name == sender:
			o.Key = peer.Key
		case name == n.depot.Party():
			o.Ledger, o.LedgerKey = name, peer.Ledger
		}
	}
	if o.Key == nil || o.LedgerKey == "" {
		return o, carnet.Errorf(carnet.Unavailable, "the keys by which what %s sent is proved are not all known", sender).
			WithFix("see 'carnet peer list': the sender must have been a peer, and the depot must be one")
	}
	return o, nil
}

// Vouch signs what the world says of a stream that it received and that leaves it.
func (p Prover) Vouch(ctx context.Context, s avatar.MovedStream) ([]byte, error) {
	signer, err := p.World.EvidenceSigner(ctx)
	if err != nil {
		return nil, err
	}
	passage := passport.PassageOf(s)
	passage.World.Key = evidence.PublicKey(signer.Public().(ed25519.PublicKey))
	passage.Made = time.Now().UTC().Truncate(time.Second)
	return passage.Sign(signer)
}

// VouchLeft signs what the world left out of a stream that leaves it.
func (p Prover) VouchLeft(ctx context.Context, s avatar.MovedStream, l avatar.LeftOut) ([]byte, error) {
	signer, err := p.World.EvidenceSigner(ctx)
	if err != nil {
		return nil, err
	}
	word := passport.RedactionOf(s.Stream, l)
	word.World.Key = evidence.PublicKey(signer.Public().(ed25519.PublicKey))
	return word.Sign(signer)
}

// single is the source of a bundle of one frame.
type single avatar.ProvenFrame

// Frames implements evidence.Source.
func (s single) Frames(_ context.Context, do func(*evidence.Frame) error) error {
	frame := evidence.Frame(s)
	return do(&frame)
}

// options are those of all bundles of an avatar.
func (p Prover) options(ctx context.Context, id carnet.AvatarID) (o evidence.Options, err error) {
	signer, err := p.World.EvidenceSigner(ctx)
	if err != nil {
		return o, err
	}
	o = evidence.Options{World: p.Party, Avatar: id, Trust: trustOf(p.Party, signer, p.Peers), Signer: signer, Now: time.Now(), Over: make(map[carnet.StreamID][]evidence.Over)}
	past, err := p.World.Former(ctx, id)
	o.Passages, o.Commits, o.Left = past.Passages, past.Commits, make(map[carnet.StreamID][][]byte)
	for stream, all := range past.Over {
		for _, one := range all {
			o.Over[stream] = append(o.Over[stream], evidence.Over(one))
		}
	}
	for stream, all := range past.Left {
		for i := range all {
			o.Left[stream] = append(o.Left[stream], all[i].Word)
		}
	}
	return o, err
}

// proven turns what an avatar agent hands over into what a bundle takes.
type proven struct {
	prover Prover
	id     carnet.AvatarID
}

// Frames implements evidence.Source.
func (p proven) Frames(ctx context.Context, do func(*evidence.Frame) error) error {
	return p.prover.World.Proven(ctx, p.id, p.prover.UpTo, func(f *avatar.ProvenFrame) error {
		frame := evidence.Frame(*f)
		return do(&frame)
	})
}

// proofs is what a world says about its avatars to who trusts nobody's store.
type proofs struct {
	node *Node
	key  ed25519.PrivateKey // issues credentials
}

// Evidence implements api.Proofs. The bundles lie in the party's data directory
// until they are written out.
func (p proofs) Evidence(ctx context.Context, id carnet.AvatarID, q avatar.Query) (write func(io.Writer) error, err error) {
	n := p.node
	if _, err := n.api.World.Avatar(id); err != nil {
		return nil, err
	}
	var jobs []job.Proof
	if q == (avatar.Query{}) { // before: what they were over is in the bundle then
		if jobs, err = n.api.Jobs.Proofs(ctx, id); err != nil {
			return nil, err
		}
	}
	upTo, err := n.api.World.Settle(ctx)
	if err != nil {
		return nil, n.unsettled(err)
	}
	dir, err := os.MkdirTemp(n.config.path(n.config.Data), bundlesPrefix)
	if err != nil {
		return nil, fmt.Errorf("write evidence: %w", err)
	}
	prover := Prover{World: n.api.World, Party: n.config.Party, Peers: peerFiles(n.peers), UpTo: upTo}
	prover.Jobs = func(ctx context.Context, _ carnet.AvatarID) (*evidence.Jobs, error) { return n.provenJobs(ctx, jobs) }
	if q == (avatar.Query{}) {
		err = prover.Write(ctx, id, filepath.Join(dir, BundleName(n.config.Party, id)))
	} else {
		err = prover.WriteBatches(ctx, id, q, dir)
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return func(w io.Writer) error {
		archive := tar.NewWriter(w)
		err := archive.AddFS(os.DirFS(dir))
		return errors.Join(err, archive.Close(), os.RemoveAll(dir))
	}, nil
}

// unsettled says why evidence can't be made yet.
func (n *Node) unsettled(err error) error {
	if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
		return err
	}
	why := "the depot takes its time"
	if away := n.api.Outbox.Away(); away != nil {
		why = fmt.Sprintf("the depot %s has been away since %s", n.api.Outbox.To(), away.Since.UTC().Format(time.RFC3339))
	}
	return carnet.Errorf(carnet.Unavailable, "not every statement has its receipt yet: %s", why).WithFix("try again when 'carnet status' shows the depot as there")
}

// bundlesPrefix begins the names of directories in which bundles are made. They
// have keys in the clear.
const bundlesPrefix = "evidence-"

// removeBundles removes what a process left behind that ended while it made some.
func removeBundles(data string) error {
	entries, err := os.ReadDir(data)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), bundlesPrefix) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(data, e.Name())))
		}
	}
	return err
}

// Document implements api.Proofs.
func (p proofs) Document(id carnet.AvatarID) (identity.Document, error) {
	info, err := p.node.api.World.Avatar(id)
	if err != nil {
		return identity.Document{}, err
	}
	return identity.DocumentFor(info.Key), nil
}

// credentialLife is how long a credential holds: whoever needs one asks for it.
const credentialLife = 24 * time.Hour

// Credential implements api.Proofs. An avatar that is to come has one, too, and one that
// has moved on, to ask its former world with.
func (p proofs) Credential(_ context.Context, id carnet.AvatarID) (string, error) {
	info, err := p.node.api.World.Holder(id)
	if err != nil {
		return "", err
	}
	now := time.Now().Truncate(time.Second)
	return identity.IssueCredential(p.key, identity.Credential{
		World: p.node.config.Party, Avatar: id, Subject: info.Key, Owner: info.OwnerKey, Issued: now, NotBefore: now, Expires: now.Add(credentialLife),
	})
}
