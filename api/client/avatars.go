package client

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"carnet"
	"carnet/api"
	"carnet/avatar"
	"carnet/senml"
)

// decoder limits: the party is trusted with memory up to maxAnswer.
func newDecoder() *senml.Decoder {
	return senml.NewDecoder(senml.Limits{Bytes: maxAnswer, Records: 10_000_000, Name: 1024, Text: 1 << 20})
}

// Avatars lists the world's avatars.
func (c *Client) Avatars(ctx context.Context) ([]avatar.Info, error) {
	list, err := get[api.AvatarList](ctx, c, "/v1/avatars")
	return list.Avatars, err
}

// Avatar returns one avatar.
func (c *Client) Avatar(ctx context.Context, id carnet.AvatarID) (avatar.Info, error) {
	return get[avatar.Info](ctx, c, avatarPath(id))
}

// State returns an avatar's newest measurement of each property.
func (c *Client) State(ctx context.Context, id carnet.AvatarID) ([]carnet.Measurement, error) {
	ms, _, err := c.pack(ctx, avatarPath(id)+"/state")
	return ms, err
}

// Abroad returns the newest measurements of an avatar of another world, which this
// world reads there as one of its own.
func (c *Client) Abroad(ctx context.Context, as carnet.AvatarID, world carnet.PartyID, about carnet.AvatarID) ([]carnet.Measurement, error) {
	ms, _, err := c.pack(ctx, avatarPath(as)+"/abroad/"+string(world)+"/"+about.String()+"/state")
	return ms, err
}

// HistoryQuery asks for a part of an avatar's history.
type HistoryQuery struct {
	From, To time.Time // measured time: From included, To not; zero for no bound
	Property string    // empty: all
	Limit    int       // of one page; 0: the API's own
}

// History returns one page of an avatar's history, oldest first, and the moment
// from which the next page goes on; nil after the last.
func (c *Client) History(ctx context.Context, id carnet.AvatarID, q HistoryQuery) (ms []carnet.Measurement, next *time.Time, err error) {
	v := part(q.From, q.To, q.Property)
	if q.Limit != 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	ms, header, err := c.pack(ctx, avatarPath(id)+"/history?"+v.Encode())
	if err != nil || header.Get("Carnet-More") == "" {
		return ms, nil, err
	}
	at, err := time.Parse(time.RFC3339Nano, header.Get("Carnet-Next"))
	if err != nil {
		return ms, nil, fmt.Errorf("read where the next page begins: %w", err)
	}
	return ms, &at, nil
}

// part is how a part of an avatar is asked for.
func part(from, to time.Time, property string) url.Values {
	v := url.Values{}
	if !from.IsZero() {
		v.Set("from", from.UTC().Format(time.RFC3339Nano))
	}
	if !to.IsZero() {
		v.Set("to", to.UTC().Format(time.RFC3339Nano))
	}
	if property != "" {
		v.Set("property", property)
	}
	return v
}

// pack gets measurements.
func (c *Client) pack(ctx context.Context, path string) ([]carnet.Measurement, http.Header, error) {
	answer, header, err := c.call(ctx, http.MethodGet, path, senml.CBOR.ContentType(), nil)
	if err != nil {
		return nil, nil, err
	}
	ms, err := newDecoder().Decode(nil, senml.CBOR, answer, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("read the measurements of %s: %w", path, err)
	}
	return ms, header, nil
}

func avatarPath(id carnet.AvatarID) string { return "/v1/avatars/" + id.String() }
