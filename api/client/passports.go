package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"carnet"
	"carnet/api"
	"carnet/avatar"
	"carnet/identity"
	"carnet/thing"
)

// Passport fetches an avatar's passport into a new directory below dir, and returns
// that directory: only its owner may read it.
func (c *Client) Passport(ctx context.Context, id carnet.AvatarID, n api.NewPassport, dir string) (string, error) {
	answer, err := c.open(ctx, http.MethodPost, avatarPath(id)+"/passport", typeTar, n)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	made, err := unpackAll(answer.Body, dir, "passport")
	if err == nil && len(made) != 1 {
		err = carnet.Errorf(carnet.Malformed, "the passport has %d directories, want one", len(made))
	}
	if err != nil {
		return "", err
	}
	return made[0], nil
}

// Reception returns the world's signed reception key.
func (c *Client) Reception(ctx context.Context) ([]byte, error) {
	a, err := get[api.Announcement](ctx, c, "/v1/reception")
	return a.Announcement, err
}

// BeginRecovery makes room for an avatar by its passport.
func (c *Client) BeginRecovery(ctx context.Context, n api.NewRecovery, manifest []byte) (x api.Crossing, err error) {
	head, err := json.Marshal(n)
	if err != nil {
		return x, err
	}
	return x, c.octets(ctx, http.MethodPost, "/v1/recoveries", api.Framed(head, manifest), &x)
}

// Lacking lists the next stretches that a recovery lacks.
func (c *Client) Lacking(ctx context.Context, x carnet.CrossingID) ([]carnet.Fingerprint, error) {
	list, err := get[api.LackingList](ctx, c, recoveryPath(x)+"/lacking")
	return list.Stretches, err
}

// PutStretch hands in a stretch of a passport.
func (c *Client) PutStretch(ctx context.Context, x carnet.CrossingID, m avatar.MovedStretch, body, proof []byte) error {
	listed, err := json.Marshal(m)
	if err != nil {
		return err
	}
	var done api.Acknowledged
	return c.octets(ctx, http.MethodPut, recoveryPath(x)+"/stretches", api.Framed(listed, body, proof), &done)
}

// PutBags hands in key bags that are sealed to the world itself.
func (c *Client) PutBags(ctx context.Context, x carnet.CrossingID, bags [][]byte) error {
	_, err := send[api.Acknowledged](ctx, c, http.MethodPut, recoveryPath(x)+"/bags", api.Bags{Bags: bags})
	return err
}

// RenewRecovery has what the owner is asked written anew.
func (c *Client) RenewRecovery(ctx context.Context, x carnet.CrossingID) (api.Crossing, error) {
	return send[api.Crossing](ctx, c, http.MethodPost, recoveryPath(x)+"/request", nil)
}

// OrderRecovery hands in what the owner signed.
func (c *Client) OrderRecovery(ctx context.Context, x carnet.CrossingID, r identity.Recovered) (api.Crossing, error) {
	return send[api.Crossing](ctx, c, http.MethodPut, recoveryPath(x)+"/order", r)
}

// CrossingProof returns what proves that an avatar has come to the world.
func (c *Client) CrossingProof(ctx context.Context, x carnet.CrossingID) (api.CrossingProof, error) {
	return get[api.CrossingProof](ctx, c, crossingPath(x)+"/proof")
}

// TellRecovered tells a things agent that an avatar has another home.
func (c *Client) TellRecovered(ctx context.Context, p api.CrossingProof) ([]thing.MappingInfo, error) {
	list, err := send[api.MappingList](ctx, c, http.MethodPost, "/v1/recovered", p)
	return list.Mappings, err
}

func recoveryPath(id carnet.CrossingID) string { return "/v1/recoveries/" + id.String() }

// octets sends bytes and reads an answer in JSON.
func (c *Client) octets(ctx context.Context, method, path string, body []byte, into any) error {
	r, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.Base, "/")+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Accept", typeJSON)
	r.Header.Set("Authorization", "Bearer "+c.Token)
	r.Header.Set("Content-Type", "application/octet-stream")
	answer, err := c.do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	read, err := c.read(answer)
	if err != nil {
		return err
	}
	if answer.StatusCode/100 != 2 {
		return refusal(answer.StatusCode, read)
	}
	if err := json.Unmarshal(read, into); err != nil {
		return fmt.Errorf("read the answer to %s %s: %w", method, path, err)
	}
	return nil
}
