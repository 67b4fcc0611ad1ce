package register

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"

	"carnet"
	"carnet/identity"
	"carnet/ledger"
	"carnet/problem"
)

// Client asks a registrar. HTTP brings the mutual TLS; what is answered is verified
// by the registrar's key and its ledger's, so nothing else is believed.
//
// Errors have the code that the registrar gave; one that can't be reached is
// carnet.Unavailable, one that answers what doesn't hold carnet.Tampered or
// carnet.Unauthenticated.
type Client struct {
	Base      string // the depot's URL without /r2, e.g. https://vault.example
	HTTP      *http.Client
	Registrar string     // its did:key
	Ledger    ledger.Key // of its depot
	// Newest returns the newest signed checkpoint of that ledger that the party has,
	// nil without one; it is shown with each request. nil: there is never one.
	Newest func() []byte
}

// maxReply bounds what a registrar may answer.
const maxReply = 256 << 10

// Enrol registers a home for the party, with the owner's key.
func (c *Client) Enrol(ctx context.Context, id carnet.HomeID, owner string) (identity.HomeAnswer, HomeReply, error) {
	asked := identity.NewNonce()
	a, reply, err := c.stands(ctx, http.MethodPut, "", id, asked, homeRequest{Owner: owner, Asked: asked})
	if err == nil && a.Owner != owner {
		err = carnet.Errorf(carnet.Tampered, "the registrar enrolled the home %s for another owner", id)
	}
	return a, reply, err
}

// Claim begins a new incarnation of a home that is at this party.
func (c *Client) Claim(ctx context.Context, id carnet.HomeID) (identity.HomeAnswer, HomeReply, error) {
	return c.ClaimItem(ctx, id, 0)
}

// ClaimItem is Claim of an item's home, by which the party says how many entries the
// item's chain has, or is to have.
func (c *Client) ClaimItem(ctx context.Context, id carnet.HomeID, chain uint64) (identity.HomeAnswer, HomeReply, error) {
	asked := identity.NewNonce()
	a, reply, err := c.stands(ctx, http.MethodPost, "claims", id, asked, homeRequest{Asked: asked, Chain: chain})
	if err == nil && chain > 0 && a.Chain != chain && a.Erased == "" {
		err = carnet.Errorf(carnet.Tampered, "the registrar answered the claim of an item with another length of its chain")
	}
	return a, reply, err
}

// Home asks who is home.
func (c *Client) Home(ctx context.Context, id carnet.HomeID) (identity.HomeAnswer, HomeReply, error) {
	return c.stands(ctx, http.MethodGet, "", id, identity.NewNonce(), nil)
}

// Erase notes the owner's order to erase what a home of this party is of.
func (c *Client) Erase(ctx context.Context, id carnet.HomeID, order string) (identity.HomeAnswer, HomeReply, error) {
	asked := identity.NewNonce()
	a, reply, err := c.stands(ctx, http.MethodPost, "erasure", id, asked, homeRequest{Asked: asked, Order: order})
	if err == nil && a.Erased == "" {
		err = carnet.Errorf(carnet.Tampered, "the registrar answered an order to erase the home %s as if there were none", id)
	}
	return a, reply, err
}

// Erased asks of which homes what they are of is erased; Home proves each.
func (c *Client) Erased(ctx context.Context, ids []carnet.HomeID) (erased []carnet.HomeID, err error) {
	for some := range slices.Chunk(ids, maxErased) {
		var reply homeList
		if _, err := c.do(ctx, http.MethodPost, []string{"erased"}, "", homeList{some}, &reply); err != nil {
			return nil, fmt.Errorf("ask which homes are erased: %w", err)
		}
		for _, id := range reply.Homes {
			if slices.Contains(some, id) {
				erased = append(erased, id)
			}
		}
	}
	return erased, nil
}

// NotAt asks of which homes the register says something else than that they are at this
// party, a world, live, and that nobody asks for their recovery; Home proves what it says
// of each.
func (c *Client) NotAt(ctx context.Context, world string, ids []carnet.HomeID) (not []carnet.HomeID, err error) {
	for some := range slices.Chunk(ids, identity.MostAsked) {
		asked := identity.NewNonce()
		var reply homesReply
		if _, err := c.do(ctx, http.MethodPost, []string{"homes"}, "", homesRequest{some, asked}, &reply); err != nil {
			return nil, fmt.Errorf("ask about homes: %w", err)
		}
		a, err := identity.OpenHomes(reply.Answer)
		if err == nil && (a.Registrar != c.Registrar || a.World != world || a.Asked != asked || a.Homes != identity.HomesHash(some)) {
			err = carnet.Errorf(carnet.Tampered, "the registrar answered what it wasn't asked now")
		}
		if err != nil {
			return nil, fmt.Errorf("ask about homes: %w", err)
		}
		not = append(not, a.Not...)
	}
	return not, nil
}

// stands asks about a home with a nonce, and takes the answer to that nonce only.
func (c *Client) stands(ctx context.Context, method, what string, id carnet.HomeID, asked string, body any) (a identity.HomeAnswer, reply HomeReply, err error) {
	query := ""
	if body == nil {
		query = url.Values{"asked": {asked}}.Encode()
	}
	if _, err = c.do(ctx, method, []string{"homes", id.String(), what}, query, body, &reply); err != nil {
		return a, HomeReply{}, fmt.Errorf("ask about a home: %w", err)
	}
	if a, err = reply.Verify(c.Registrar, c.Ledger); err == nil && (a.Home != id || a.Asked != asked) {
		err = carnet.Errorf(carnet.Tampered, "the registrar answered what it wasn't asked now")
	}
	if err != nil {
		return identity.HomeAnswer{}, HomeReply{}, fmt.Errorf("ask about a home: %w", err)
	}
	return a, reply, nil
}

// Decided is what was decided about a crossing.
type Decided struct {
	// Outcome is what the decision means for the order that was asked with: one by
	// another order ends it (identity.Decision.Of). Without an order, it is the
	// decision's.
	Outcome  identity.Outcome
	Decision identity.Decision
	Reply    DecisionReply // proves it offline
}

// Decide hands in a petition about a crossing, and returns what was decided; nil while
// that is open.
func (c *Client) Decide(ctx context.Context, id carnet.CrossingID, p Petition) (*Decided, error) {
	d := new(Decided)
	status, err := c.do(ctx, http.MethodPost, []string{"crossings", id.String()}, "", p, &d.Reply)
	if err == nil && status == http.StatusAccepted {
		return nil, nil
	}
	if err == nil {
		d.Decision, err = d.Reply.Verify(c.Registrar, c.Ledger)
	}
	if err == nil && d.Decision.Crossing != id {
		err = carnet.Errorf(carnet.Tampered, "the registrar answered about another crossing")
	}
	if err == nil {
		d.Outcome, err = outcome(d.Decision, p)
	}
	if err != nil {
		return nil, fmt.Errorf("ask about a crossing: %w", err)
	}
	return d, nil
}

// outcome is what a decision means for a petition. A commit must be of exactly what
// was ordered and, if that was handed in, released.
func outcome(d identity.Decision, p Petition) (identity.Outcome, error) {
	if p.Order == "" {
		return d.Outcome, nil
	}
	out := d.Of(carnet.FingerprintOf([]byte(p.Order)))
	if out == identity.Abort {
		return out, nil
	}
	o, err := identity.OpenWish(p.Order)
	if err != nil {
		return "", err
	}
	right := len(d.Homes) == len(o.Homes)
	for _, h := range d.Homes {
		right = right && h.World == o.Target && slices.Contains(o.Homes, h.Home)
	}
	if p.Release != "" {
		r, err := identity.OpenRelease(p.Release)
		right = right && err == nil && r.Manifest == *d.Manifest
	}
	if o.Recovers != nil {
		right = right && o.Recovers.Manifest == *d.Manifest
	}
	if !right {
		return "", carnet.Errorf(carnet.Tampered, "the registrar's commit isn't what was ordered and released")
	}
	return out, nil
}

// do sends one request and reads the answer into reply.
func (c *Client) do(ctx context.Context, method string, path []string, query string, body, reply any) (status int, err error) {
	target, err := url.JoinPath(c.Base, append([]string{"r2"}, path...)...)
	if err != nil {
		return 0, fmt.Errorf("join %q: %w", c.Base, err)
	}
	if query != "" {
		target += "?" + query
	}
	var text []byte
	if body != nil {
		if text, err = json.Marshal(body); err != nil {
			return 0, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(text))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", typeJSON)
	if c.Newest != nil {
		if signed := c.Newest(); len(signed) > 0 {
			req.Header.Set(CheckpointHeader, base64.StdEncoding.EncodeToString(signed))
		}
	}
	resp, err := c.HTTP.Do(req)
	if err != nil {
		return 0, carnet.Errorf(carnet.Unavailable, "the registrar can't be reached: %s", carnet.Unreached(err.Error()))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusAccepted {
		return 0, problem.Read(resp, "the registrar")
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxReply+1))
	switch {
	case err != nil:
		return 0, carnet.Errorf(carnet.Unavailable, "the registrar's answer broke off: %v", err)
	case len(answer) > maxReply:
		return 0, carnet.Errorf(carnet.TooLarge, "the registrar's answer has more than %d bytes", maxReply)
	}
	if err := json.Unmarshal(answer, reply); err != nil {
		return 0, carnet.Errorf(carnet.Malformed, "the registrar's answer can't be read: %v", err)
	}
	return resp.StatusCode, nil
}
