package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"carnet/depot"
	"carnet/identity"
	"carnet/keys"
	"carnet/ledger"
	"carnet/node"
)

// outbox keeps statements in memory and notes when each was made and receipted:
// what is measured is the way to the depot's disk and back, without a store of
// the party's own.
type outbox struct {
	mu      sync.Mutex
	next    uint64
	pending []ledger.Item
	made    map[uint64]time.Time
	took    []time.Duration
}

func (o *outbox) add() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.next++
	o.pending = append(o.pending, ledger.Item{ID: o.next, Entry: ledger.NewSalt()})
	o.made[o.next] = time.Now()
}

// Pending implements ledger.OutboxStore.
func (o *outbox) Pending(_ context.Context, after uint64, limit int) ([]ledger.Item, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	from, _ := slices.BinarySearchFunc(o.pending, after+1, func(it ledger.Item, id uint64) int { return cmp.Compare(it.ID, id) })
	rest := o.pending[from:]
	return slices.Clone(rest[:min(limit, len(rest))]), nil
}

// Receipted implements ledger.OutboxStore.
func (o *outbox) Receipted(_ context.Context, items []ledger.Item) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	done := make(map[uint64]bool, len(items))
	for _, it := range items {
		if at, ok := o.made[it.ID]; ok {
			o.took = append(o.took, time.Since(at))
		}
		done[it.ID] = true
		delete(o.made, it.ID)
	}
	o.pending = slices.DeleteFunc(o.pending, func(it ledger.Item) bool { return done[it.ID] })
	return nil
}

func (o *outbox) open() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.pending)
}

// receipts is row 7: a party's outbox hands statements to the depot's process
// over R2.
func receipts(ctx context.Context, b *bench) (figures []Figure, err error) {
	const rate = 300
	length := 20 * time.Second
	if b.short {
		length = 4 * time.Second
	}
	s := &system{hub: &party{name: "hub"}, vault: &party{name: "vault", role: identity.Depot, dir: filepath.Join(b.dir, "row7", "vault")}}
	if err := s.vault.make(ctx); err != nil {
		return nil, err
	}
	store := &outbox{made: make(map[uint64]time.Time)}
	o, err := s.vault.outbox(ctx, store)
	if err != nil {
		return nil, err
	}
	if err := s.vault.start(b, "row7"); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	if err := s.vault.await(ctx); err != nil {
		return nil, err
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- o.Run(running) }()
	begun := time.Now()
	for i := range int(rate * length.Seconds()) {
		if err := sleep(ctx, time.Until(begun.Add(time.Duration(i)*time.Second/rate))); err != nil {
			break
		}
		store.add()
		o.Wake()
	}
	for end := time.Now().Add(10 * time.Second); store.open() > 0 && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	stop()
	if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
		return nil, err
	}
	if n := store.open(); n > 0 {
		return nil, fmt.Errorf("%d statements have no receipt", n)
	}
	slices.Sort(store.took)
	ms := func(q float64) float64 { return float64(quantile(store.took, q).Microseconds()) / 1000 }
	return []Figure{{
		Row: 7, Name: "statement to receipt, p99", Value: ms(0.99), Unit: "ms", Goal: 400, AtMost: true,
		Raw:  map[string]float64{"p50 ms": ms(0.5), "p99 ms": ms(0.99), "max ms": ms(1), "statements": float64(len(store.took)), "statements/s": rate},
		Note: "the depot as a process, reached over R2; the party's outbox in the bench, its store in memory.",
	}}, nil
}

// outbox makes the outbox of a party that the depot knows.
func (p *party) outbox(ctx context.Context, store ledger.OutboxStore) (*ledger.Outbox, error) {
	cert, shown, err := p.probe(ctx)
	if err != nil {
		return nil, err
	}
	verifies, err := ledger.ParseKey(shown.Ledger)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 16, TLSClientConfig: &tls.Config{
		Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13,
		InsecureSkipVerify: true, // the pin is what counts
		VerifyConnection: func(c tls.ConnectionState) error {
			if len(c.PeerCertificates) == 0 || keys.Pin(c.PeerCertificates[0]) != shown.Pin {
				return x509.CertificateInvalidError{Reason: x509.NotAuthorizedToSign}
			}
			return nil
		},
	}}
	return ledger.NewOutbox(ledger.OutboxConfig{
		Store: store, Submitter: &depot.Client{Base: shown.R2, HTTP: &http.Client{Transport: transport}}, Key: verifies,
		Logger: slog.New(slog.DiscardHandler),
	})
}

// probe makes a things agent that never runs, and is a peer of the depot: its TLS
// certificate, and what the depot shows it.
func (p *party) probe(ctx context.Context) (cert tls.Certificate, shown identity.Peer, err error) {
	agent := &party{name: "probe", role: identity.Things, dir: filepath.Join(p.dir, "probe")}
	if err := agent.make(ctx); err != nil {
		return cert, shown, err
	}
	if err := peer(ctx, agent, p); err != nil {
		return cert, shown, err
	}
	i, err := node.Inspect(ctx, agent.config, slog.New(slog.DiscardHandler))
	if err != nil {
		return cert, shown, err
	}
	local, err := i.Shown(ctx, p.name)
	return local.Certificate, i.Peers[p.name], errors.Join(err, i.Close())
}
