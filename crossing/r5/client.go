package r5

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"carnet"
	"carnet/identity"
)

// Actor is an avatar of this world that calls. It may be called concurrently.
type Actor interface {
	// Key returns the avatar's own key.
	Key(context.Context) (ed25519.PrivateKey, error)
	// Credential returns what its world says of it, to be good for minutes.
	Credential(context.Context) (string, error)
	// Mandate returns the owner's mandate for what is asked; carnet.NotFound if there
	// is none.
	Mandate(ctx context.Context, use Use) (string, error)
}

// Use is what a call is about and for.
type Use struct {
	Avatar carnet.AvatarID // at the other world
	Action identity.Action
	// Purpose picks one of several mandates; empty: any.
	Purpose string
}

// ClientConfig makes a Client. Fields without a stated default are required.
type ClientConfig struct {
	Self        carnet.PartyID // this world, as it shows itself to the peer
	Peer        carnet.PartyID // the other world, as it calls itself
	Base        string         // where it takes calls: https://host:port
	Pin         carnet.Fingerprint
	Certificate tls.Certificate
	Now         func() time.Time // default time.Now

	Dial func(ctx context.Context, network, address string) (net.Conn, error) // default: net.Dialer
}

// Client calls another world for avatars of this one. It gets tokens, keeps them,
// and gets new ones before they end. Its methods may be called concurrently.
type Client struct {
	cfg   ClientConfig
	http  *http.Client
	proof ed25519.PrivateKey // of DPoP; it never leaves the process

	mu     sync.Mutex
	tokens map[slot]*kept
}

type slot struct {
	actor string // the avatar's did
	use   Use
}

// kept is one token. Who looks at it, or gets a new one, holds the lock: a channel,
// so that nobody waits for it longer than its context lasts.
type kept struct {
	lock chan struct{}
	text string
	hash carnet.Fingerprint
	ends time.Time
}

// What a Client waits for.
const (
	exchangeTime = 15 * time.Second
	answerTime   = 30 * time.Second
	renewBefore  = 30 * time.Second
	maxAnswer    = 16 << 10
	maxKept      = 65536
)

// NewClient makes a Client.
func NewClient(cfg ClientConfig) (*Client, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if err := checkBase(cfg.Base); err != nil {
		return nil, err
	}
	for _, p := range []carnet.PartyID{cfg.Self, cfg.Peer} {
		if _, err := carnet.ParsePartyID(string(p)); err != nil {
			return nil, err
		}
	}
	if len(cfg.Certificate.Certificate) == 0 || cfg.Pin == (carnet.Fingerprint{}) {
		return nil, carnet.Errorf(carnet.Malformed, "calls to %s need a certificate and its pin", cfg.Peer)
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{
			MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cfg.Certificate},
			InsecureSkipVerify: true, // VerifyConnection compares the pin instead
			VerifyConnection: func(state tls.ConnectionState) error {
				if len(state.PeerCertificates) > 0 && pinOf(state.PeerCertificates[0]) == cfg.Pin {
					return nil
				}
				return carnet.Errorf(carnet.Unauthenticated, "the other side's TLS key is not that of %s", cfg.Peer).
					WithFix("see with 'carnet peer list' whether both sides still have the peering, and with which keys ('carnet peer show')")
			},
		},
		DialContext: cfg.Dial, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 8, IdleConnTimeout: time.Minute,
		TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: answerTime, MaxResponseHeaderBytes: maxHeaders,
	}
	return &Client{
		cfg: cfg, proof: key, tokens: make(map[slot]*kept),
		http: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}, nil
}

// Close lets idle connections go.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Do makes a call as an avatar. The request's URL is the path at the other world,
// with its query. A token that is refused is replaced once, if the request can be
// sent again. The answer is the other world's; its body is the caller's to close.
func (c *Client) Do(ctx context.Context, as Actor, use Use, r *http.Request) (*http.Response, error) {
	key, err := as.Key(ctx)
	if err != nil {
		return nil, err
	}
	k, err := c.kept(slot{identity.DID(key.Public().(ed25519.PublicKey)), use})
	if err != nil {
		return nil, err
	}
	text, hash, err := c.token(ctx, k, as, key, use, "")
	if err != nil {
		return nil, err
	}
	answer, err := c.send(ctx, r, text, hash)
	if err != nil || answer.StatusCode != http.StatusUnauthorized || r.Body != nil && r.GetBody == nil {
		return answer, err
	}
	discard(answer)
	if text, hash, err = c.token(ctx, k, as, key, use, text); err != nil {
		return nil, err
	}
	return c.send(ctx, r, text, hash)
}

// Tell tells the other world something that proves itself: by this world's TLS key,
// and no avatar's token. The answer's body is the caller's to close.
func (c *Client) Tell(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, c.cfg.Base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	answer, err := c.http.Do(r)
	if err != nil {
		return nil, c.unreachable(err)
	}
	return answer, nil
}

// discard reads what is left of an answer, so that its connection can be used
// again, and closes it.
func discard(answer *http.Response) {
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, maxAnswer))
	answer.Body.Close()
}

func (c *Client) kept(s slot) (*kept, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.tokens[s]
	if k == nil {
		if len(c.tokens) >= maxKept {
			c.forget()
		}
		if len(c.tokens) >= maxKept {
			return nil, carnet.Errorf(carnet.Unavailable, "%d tokens for %s are kept, which is all", maxKept, c.cfg.Peer)
		}
		k = &kept{lock: make(chan struct{}, 1)}
		c.tokens[s] = k
	}
	return k, nil
}

// forget drops tokens that have ended; the caller holds mu.
func (c *Client) forget() {
	for s, k := range c.tokens {
		select {
		case k.lock <- struct{}{}:
			if !c.cfg.Now().Before(k.ends) {
				delete(c.tokens, s)
			}
			<-k.lock
		default: // somebody is at it
		}
	}
}

// token returns a token that holds for a while; never the refused one.
func (c *Client) token(ctx context.Context, k *kept, as Actor, key ed25519.PrivateKey, use Use, refused string) (string, carnet.Fingerprint, error) {
	select {
	case k.lock <- struct{}{}:
	case <-ctx.Done():
		return "", carnet.Fingerprint{}, ctx.Err()
	}
	defer func() { <-k.lock }()
	if k.text != "" && k.text != refused && c.cfg.Now().Add(renewBefore).Before(k.ends) {
		return k.text, k.hash, nil
	}
	now := c.cfg.Now()
	got, err := c.exchange(ctx, as, key, use)
	if err != nil {
		return "", carnet.Fingerprint{}, err
	}
	k.text, k.hash, k.ends = got.Token, carnet.FingerprintOf([]byte(got.Token)), now.Add(time.Duration(got.ExpiresIn)*time.Second)
	return k.text, k.hash, nil
}

// maxStatus is how much is taken of the words of an answer's status, in bytes.
const maxStatus = 64

// exchange gets a token.
func (c *Client) exchange(ctx context.Context, as Actor, key ed25519.PrivateKey, use Use) (got TokenAnswer, err error) {
	ctx, cancel := context.WithTimeout(ctx, exchangeTime)
	defer cancel()
	credential, err := as.Credential(ctx)
	if err != nil {
		return got, err
	}
	mandate, err := as.Mandate(ctx, use)
	if err != nil {
		return got, err
	}
	now := c.cfg.Now()
	assertion, err := identity.IssueAssertion(key, identity.Assertion{
		Audience: c.cfg.Peer, Issued: now, Expires: now.Add(identity.AssertionLife), Credential: credential, Mandate: mandate,
		Thumbprint: identity.Thumbprint(c.proof.Public().(ed25519.PublicKey)),
	})
	if err != nil {
		return got, err
	}
	form := url.Values{
		"grant_type": {ExchangeGrant}, "client_id": {identity.PartyURN(c.cfg.Self)}, "subject_token": {assertion},
		"subject_token_type": {JWTType}, "requested_token_type": {AccessType},
		"resource": {identity.AvatarURN(use.Avatar)}, "scope": {string(use.Action)},
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.cfg.Base+TokenPath, strings.NewReader(form.Encode()))
	if err != nil {
		return got, err
	}
	r.Header.Set("Content-Type", FormType)
	if err := c.prove(r, carnet.Fingerprint{}); err != nil {
		return got, err
	}
	response, err := c.http.Do(r)
	if err != nil {
		return got, c.unreachable(err)
	}
	defer discard(response)
	switch response.StatusCode {
	case http.StatusOK:
		return c.read(response.Body)
	case http.StatusUnauthorized:
		return got, carnet.Errorf(carnet.Unauthenticated, "%s gives no token for %s of the avatar %s", c.cfg.Peer, use.Action, use.Avatar).
			WithFix("ask its operator, who sees the reason with 'carnet activity --refused'. Often the mandate has ended, or there is no grant")
	}
	if response.StatusCode == http.StatusTooManyRequests || response.StatusCode >= 500 { // a proxy's among them
		return got, carnet.Errorf(carnet.Unavailable, "%s gives no token at the moment (%s)", c.cfg.Peer, carnet.Shorten(response.Status, maxStatus))
	}
	return got, carnet.Errorf(carnet.Malformed, "%s answered a question for a token with %s", c.cfg.Peer, carnet.Shorten(response.Status, maxStatus))
}

// read reads the token endpoint's answer.
func (c *Client) read(body io.Reader) (got TokenAnswer, err error) {
	data, err := io.ReadAll(io.LimitReader(body, maxAnswer))
	if err != nil {
		return got, c.unreachable(err)
	}
	if err := json.Unmarshal(data, &got); err != nil || got.Token == "" || got.Issued != AccessType || got.Type != "DPoP" ||
		got.ExpiresIn <= 0 || got.ExpiresIn > int64(identity.TokenLife/time.Second) || strings.Trim(got.Token, tokenAlphabet) != "" {
		return got, carnet.Errorf(carnet.Malformed, "%s answered a question for a token with something else", c.cfg.Peer)
	}
	return got, nil
}

// tokenAlphabet is that of a compact JWS.
const tokenAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."

func (c *Client) unreachable(err error) error {
	return carnet.Errorf(carnet.Unavailable, "%s can't be reached for calls: %s", c.cfg.Peer, carnet.Unreached(err.Error()))
}

// prove adds a proof to a request.
func (c *Client) prove(r *http.Request, token carnet.Fingerprint) error {
	proof, err := identity.IssueProof(c.proof, identity.Proof{
		Method: r.Method, URL: c.cfg.Base + r.URL.EscapedPath(), Issued: c.cfg.Now(), Token: token,
	})
	if err != nil {
		return err
	}
	r.Header["Dpop"] = []string{proof}
	return nil
}

// send makes one attempt at a call.
func (c *Client) send(ctx context.Context, r *http.Request, token string, hash carnet.Fingerprint) (*http.Response, error) {
	u, err := url.Parse(c.cfg.Base)
	if err != nil {
		return nil, err
	}
	out := r.Clone(ctx)
	out.URL.Scheme, out.URL.Host, out.Host, out.RequestURI = u.Scheme, u.Host, "", ""
	if r.GetBody != nil {
		if out.Body, err = r.GetBody(); err != nil {
			return nil, err
		}
	}
	out.Header.Set("Authorization", "DPoP "+token)
	if err := c.prove(out, hash); err != nil {
		return nil, err
	}
	answer, err := c.http.Do(out)
	if err != nil {
		return nil, c.unreachable(err)
	}
	return answer, nil
}
