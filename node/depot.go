package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"time"

	"carnet"
	"carnet/depot"
	"carnet/identity"
	"carnet/keys"
	"carnet/ledger"
)

func (n *Node) openDepot(ctx context.Context) error {
	store, err := n.stores.depots(ctx)
	if err != nil {
		return err
	}
	signer, err := ledgerSigner(ctx, n.config, n.table)
	if err != nil {
		return err
	}
	agent, err := depot.New(ctx, depot.Config{Dir: n.config.path(n.config.Data), Signer: signer, Store: store, Logger: n.log})
	if err != nil {
		return err
	}
	n.work = append(n.work, agent.Run)
	n.api.Depot = agent
	return nil
}

func (n *Node) listenR2(ctx context.Context) error {
	local, err := identity.Load(ctx, n.table, self)
	if err != nil {
		return err
	}
	return n.serveHTTP(n.config.Listen.R2, mutualTLS(local.Certificate, n.pinned), n.api.Depot.Handler(n.caller))
}

// pinned finds the peer whose TLS key has a pin.
func (n *Node) pinned(cert *x509.Certificate) (carnet.PartyID, bool) {
	pin := keys.Pin(cert)
	for name, p := range n.peers {
		if p.Pin == pin {
			return name, true
		}
	}
	return "", false
}

func (n *Node) caller(r *http.Request) (carnet.PartyID, error) {
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		if name, ok := n.pinned(r.TLS.PeerCertificates[0]); ok {
			return name, nil
		}
	}
	return "", carnet.Errorf(carnet.Unauthenticated, "the caller is not a peer of %s", n.config.Party)
}

// mutualTLS is TLS 1.3 between parties: each proves the key that the other has
// pinned; names and issuers mean nothing.
func mutualTLS(cert tls.Certificate, known func(*x509.Certificate) (carnet.PartyID, bool)) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAnyClientCert,
		InsecureSkipVerify: true, // VerifyConnection compares the pins instead
		VerifyConnection: func(state tls.ConnectionState) error {
			if len(state.PeerCertificates) > 0 {
				if _, ok := known(state.PeerCertificates[0]); ok {
					return nil
				}
			}
			return carnet.Errorf(carnet.Unauthenticated, "the other side's TLS key is not one that this party is peered with").
				WithFix("compare the pins in both parties' peer files")
		},
	}
}

// depotClient is a party's way to its depot.
type depotClient struct {
	*depot.Client
	party carnet.PartyID
}

// Party names the depot.
func (d depotClient) Party() carnet.PartyID { return d.party }

// depotPatience is how long a depot may take over one request. What a world does
// beside storing (compaction, retention, the end of keys) waits for it as long.
const depotPatience = time.Minute

// depotHTTP is how a depot is called: one that hangs is given up, and one that
// sends the caller elsewhere isn't followed.
func depotHTTP(secure *tls.Config, patience time.Duration) *http.Client {
	return &http.Client{
		Transport:     &http.Transport{TLSClientConfig: secure, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 16},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       patience,
	}
}

// openOutbox makes the party's way to its depot, and the work that sends its
// statements there. recorded is to be called when there are new ones.
func (n *Node) openOutbox(ctx context.Context, store ledger.OutboxStore) (client depotClient, recorded func(), err error) {
	name, peer, err := n.depotPeer()
	if err != nil {
		return client, nil, err
	}
	label := self
	if n.config.Role == identity.Things {
		label = name
	}
	local, err := identity.Load(ctx, n.table, label)
	if err != nil {
		return client, nil, notShown(label, err)
	}
	key, err := ledger.ParseKey(peer.Ledger)
	if err != nil {
		return client, nil, err
	}
	secure := mutualTLS(local.Certificate, func(c *x509.Certificate) (carnet.PartyID, bool) {
		return name, keys.Pin(c) == peer.Pin
	})
	client = depotClient{&depot.Client{Base: peer.R2, HTTP: depotHTTP(secure, depotPatience)}, name}
	outbox, err := ledger.NewOutbox(ledger.OutboxConfig{
		Store: store, Submitter: client, Key: key, Logger: n.log,
	})
	if err != nil {
		return client, nil, err
	}
	n.work = append(n.work, outbox.Run)
	return client, outbox.Wake, nil
}
