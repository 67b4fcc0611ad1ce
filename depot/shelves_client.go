package depot

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"

	"carnet"
	"carnet/shelf"
)

// PutShelf keeps this party's shelf for a taker; it is durable then.
func (c *Client) PutShelf(ctx context.Context, taker string, s shelf.Signed) error {
	body, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if _, err := c.do(ctx, http.MethodPut, "shelves/"+url.PathEscape(taker), typeJSON, "", body, maxShort); err != nil {
		return fmt.Errorf("put shelf: %w", err)
	}
	return nil
}

// OwnShelf fetches this party's shelf for a taker; carnet.NotFound without one.
func (c *Client) OwnShelf(ctx context.Context, taker string) (shelf.Signed, error) {
	return c.shelf(ctx, "shelves/"+url.PathEscape(taker))
}

// DeleteShelf has nobody read this party's shelf for a taker any more.
func (c *Client) DeleteShelf(ctx context.Context, taker string) error {
	if _, err := c.do(ctx, http.MethodDelete, "shelves/"+url.PathEscape(taker), "", "", nil, maxShort); err != nil {
		return fmt.Errorf("delete shelf: %w", err)
	}
	return nil
}

// Shelf fetches what a giver has for this party; carnet.NotFound if there is
// nothing. Whether it is the giver's is the caller's to verify.
func (c *Client) Shelf(ctx context.Context, giver string) (shelf.Signed, error) {
	return c.shelf(ctx, "shelves?of="+url.QueryEscape(giver))
}

func (c *Client) shelf(ctx context.Context, path string) (s shelf.Signed, err error) {
	body, err := c.do(ctx, http.MethodGet, path, "", "", nil, shelf.MaxSigned)
	if err != nil {
		return s, fmt.Errorf("get shelf: %w", err)
	}
	if err := json.Unmarshal(body, &s); err != nil {
		return s, carnet.Errorf(carnet.Unavailable, "the depot's shelf is not JSON: %v", err)
	}
	return s, nil
}

// Shelved fetches an object of a giver's shelf for this party.
func (c *Client) Shelved(ctx context.Context, giver string, f carnet.Fingerprint) ([]byte, error) {
	body, err := c.do(ctx, http.MethodGet, "shelves/objects/"+f.String()+"?of="+url.QueryEscape(giver), "", "", nil, shelf.MaxObject)
	if err != nil {
		return nil, fmt.Errorf("get shelved object: %w", err)
	}
	if got := carnet.FingerprintOf(body); got != f {
		return nil, carnet.Errorf(carnet.Tampered, "the depot answered with %s where %s was asked for", got, f)
	}
	return body, nil
}
