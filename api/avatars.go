package api

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/senml"

	"github.com/danielgtaylor/huma/v2"
)

// OfAvatar is the input of what concerns one avatar. It is exported because huma
// passes over embedded structs that aren't.
type OfAvatar struct {
	ID carnet.AvatarID `path:"id" doc:"The avatar's id." example:"00112233445566778899aabbccddeeff"`
}

// packs are the forms of measurements that are served, the default first.
var packs = []string{senml.JSON.ContentType(), senml.CBOR.ContentType(), senml.XML.ContentType()}

// livePath is where an avatar is followed.
const livePath = "/v1/avatars/{id}/live"

const typeEvents = "text/event-stream"

func (s *server) avatarRoutes(h huma.API) {
	tags := []string{atR4}
	serving(s, h, huma.Operation{
		OperationID: "list-avatars", Method: http.MethodGet, Path: "/v1/avatars", Tags: tags,
		Summary: "The world's avatars, oldest first.",
	}, func(ctx context.Context, _ *struct{}) (*body[AvatarList], error) {
		list, err := s.avatarsOf(ctx)
		return answer(AvatarList{list}, err)
	})
	serving(s, h, huma.Operation{
		OperationID: "get-avatar", Method: http.MethodGet, Path: "/v1/avatars/{id}", Tags: tags,
		Summary: "One avatar.",
	}, func(ctx context.Context, in *OfAvatar) (*body[avatar.Info], error) {
		i, err := s.world.Avatar(in.ID)
		if err != nil {
			return nil, err
		}
		l, err := s.lens(ctx)
		if l != nil {
			i = shownThrough(l, i)
		}
		return answer(i, err)
	})
	serving(s, h, huma.Operation{
		OperationID: "get-state", Method: http.MethodGet, Path: "/v1/avatars/{id}/state", Tags: tags,
		Summary: "The avatar's newest measurement of each property.",
		Description: "Of a property that nothing gives the avatar any more it is the last: the header Carnet-Withdrawn names these, separated by commas, " +
			"as far as the world knows (get-avatar says the same as withdrawn). Under a grant it is made of history, and is one of the queries that may run at once.",
		Metadata: map[string]any{servesKey: packs}, Responses: limitedTo(packResponses()),
	}, s.state)
	serving(s, h, huma.Operation{
		OperationID: "get-history", Method: http.MethodGet, Path: "/v1/avatars/{id}/history", Tags: tags,
		Summary: "The avatar's measurements by measured time, oldest first.",
		Description: "A page never splits an instant. When there is more, the answer has the headers Carnet-More: true, " +
			"Carnet-Next with the moment from which to go on, and a Link to the next page. " +
			fmt.Sprintf("At most %d queries run at once, and %d with one token: one more is answered with 429 and Retry-After.", s.limits.queries, s.limits.queriesOfOne),
		Metadata: map[string]any{servesKey: packs}, Responses: limitedTo(packResponses()),
	}, s.history)
	serving(s, h, huma.Operation{
		OperationID: "watch-avatar", Method: http.MethodGet, Path: livePath, Tags: tags,
		Summary: "The avatar as it goes on: what was stored after a cursor, then what comes.",
		Description: "As a WebSocket: text frames {\"cursor\": …, \"pack\": [SenML]}, or with the subprotocol " + protoCBOR +
			" binary frames of the same in CBOR. As server-sent events: id is the cursor, data the SenML pack. " +
			"Who begins from now on (without a cursor) is told first where that is: a frame with an empty pack, or an id without data. " +
			"Who reads too slowly is disconnected, and goes on after its last cursor without loss. " +
			fmt.Sprintf("At most %d subscriptions are open at once, and %d with one token: one more is answered with 429.", s.limits.live, s.limits.liveOfOne),
		Metadata:  map[string]any{servesKey: []string(nil)}, // live judges for itself
		Responses: limitedTo(liveResponses()),
	}, s.watch)
}

// Accepts is the part of an input that says in which form to answer.
type Accepts struct {
	Accept string `header:"Accept"`
}

// packAnswer is measurements in the form that was negotiated.
type packAnswer struct {
	ContentType string `header:"Content-Type"`
	More        string `header:"Carnet-More"`
	Next        string `header:"Carnet-Next"`
	Link        string `header:"Link"`
	Withdrawn   string `header:"Carnet-Withdrawn"`
	Body        []byte
}

func pack(accept string, ms []carnet.Measurement) (*packAnswer, error) {
	served, _ := negotiate(accept, packs) // accept has seen that there is one
	form, err := senml.FormatOf(served, 0)
	if err != nil {
		return nil, err
	}
	b, err := senml.Append(nil, form, ms)
	if err != nil {
		return nil, fmt.Errorf("write measurements: %v", err) // ours, not the caller's
	}
	return &packAnswer{ContentType: served, Body: b}, nil
}

func (s *server) state(ctx context.Context, in *struct {
	OfAvatar
	Accepts
}) (*packAnswer, error) {
	l, err := s.lens(ctx)
	if err != nil {
		return nil, err
	}
	var ms []carnet.Measurement
	if l != nil { // it is made of history
		leave, full := s.queries.enter(platformOf(caller(ctx)))
		if full != nil {
			return nil, full
		}
		defer leave()
		ms, err = s.stateThrough(ctx, l, in.ID)
	} else {
		ms, err = s.world.Latest(in.ID)
	}
	if err != nil {
		return nil, err
	}
	i, err := s.world.Avatar(in.ID)
	if err != nil {
		return nil, err
	}
	out, err := pack(in.Accept, ms)
	if err != nil {
		return nil, err
	}
	s.went.read(ctx)
	out.Withdrawn = strings.Join(slices.DeleteFunc(i.Withdrawn, func(name string) bool {
		return !slices.ContainsFunc(ms, func(m carnet.Measurement) bool { return m.Name == name })
	}), ", ")
	return out, nil
}

type historyQuery struct {
	OfAvatar
	Accepts
	From     string `query:"from" doc:"Measured at this time or later: RFC 3339, or seconds since 1970." example:"2020-01-01T00:00:00Z" maxLength:"40"`
	To       string `query:"to" doc:"Measured before this time." example:"2036-01-01T00:00:00Z" maxLength:"40"`
	Property string `query:"property" doc:"One property only; an object's name stands for its fields." example:"heart_rate" maxLength:"128"`
	Limit    int    `query:"limit" doc:"At most this many, but an instant's measurements are never split." default:"10000" minimum:"1" maximum:"50000"`
}

func (s *server) history(ctx context.Context, in *historyQuery) (*packAnswer, error) {
	q, err := query(in.From, in.To, in.Property)
	if err != nil {
		return nil, err
	}
	leave, err := s.queries.enter(platformOf(caller(ctx)))
	if err != nil {
		return nil, err
	}
	defer leave()
	l, err := s.lens(ctx)
	if err != nil {
		return nil, err
	}
	var ms []carnet.Measurement
	var next int64
	if l != nil {
		ms, next, err = s.pageThrough(ctx, l, in.ID, q, in.Limit)
	} else {
		ms, next, err = s.page(ctx, in.ID, q, in.Limit)
	}
	if err != nil {
		return nil, err
	}
	out, err := pack(in.Accept, ms)
	if err != nil {
		return nil, err
	}
	s.went.read(ctx)
	if next == 0 {
		return out, nil
	}
	at := time.Unix(0, next).UTC().Format(time.RFC3339Nano)
	v := url.Values{"from": {at}, "limit": {strconv.Itoa(in.Limit)}}
	if in.To != "" {
		v.Set("to", in.To)
	}
	if in.Property != "" {
		v.Set("property", in.Property)
	}
	out.More, out.Next = "true", at
	under := "/v1"
	if _, proven := provenIn(ctx); proven {
		under = "/r5"
	}
	out.Link = fmt.Sprintf("<%s/avatars/%s/history?%s>; rel=\"next\"", under, in.ID, v.Encode()) // RFC 8288
	return out, nil
}

// query reads what part of an avatar is asked for.
func query(from, to, property string) (q avatar.Query, err error) {
	q.Property = property
	if q.From, err = parseTime("from", from); err != nil {
		return q, err
	}
	if q.To, err = parseTime("to", to); err != nil {
		return q, err
	}
	if to != "" && q.To <= q.From {
		return q, carnet.Errorf(carnet.Malformed, "to is not after from").WithFix("name a range: from included, to not")
	}
	return q, nil
}

// page reads up to limit measurements, whole instants only, and the instant that
// the next page begins with; 0 after the last. An instant that has more than
// limit is a page of its own.
func (s *server) page(ctx context.Context, id carnet.AvatarID, q avatar.Query, limit int) (ms []carnet.Measurement, next int64, err error) {
	q.Limit = limit + 1
	ms, more, err := s.world.History(ctx, id, q)
	if err != nil || len(ms) <= limit && !more {
		return ms, 0, err
	}
	if cut := whole(ms); cut > 0 {
		return ms[:cut], ms[cut].Time, nil
	}
	q.Limit = avatar.MaxHistory
	if ms, more, err = s.world.History(ctx, id, q); err != nil {
		return nil, 0, err
	}
	for i := range ms {
		if ms[i].Time != ms[0].Time {
			return ms[:i], ms[i].Time, nil
		}
	}
	if more {
		return nil, 0, carnet.Errorf(carnet.TooLarge, "one instant has more than %d measurements", len(ms)).WithFix("ask for one property")
	}
	return ms, 0, nil
}

// whole is where the last instant of a page begins.
func whole(ms []carnet.Measurement) int {
	cut := len(ms) - 1
	for cut > 0 && ms[cut-1].Time == ms[cut].Time {
		cut--
	}
	return cut
}

// parseTime reads RFC 3339, or seconds since 1970 with up to nine decimals. The
// empty string is 0.
func parseTime(name, text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	bad := carnet.Errorf(carnet.Malformed, "%s=%.40q is not a time", name, text).
		WithFix("write it as 2026-11-01T10:00:00Z, or in seconds since 1970")
	if strings.Contains(text, "T") || strings.Contains(text, "t") {
		t, err := time.Parse(time.RFC3339Nano, strings.ToUpper(text))
		if err != nil || t.Year() < 1970 || t.Year() > 2261 {
			return 0, bad
		}
		return t.UnixNano(), nil
	}
	whole, part, dotted := strings.Cut(text, ".")
	if whole == "" || dotted && part == "" || len(part) > 9 || strings.Trim(whole+part, "0123456789") != "" {
		return 0, bad
	}
	ns, err := strconv.ParseInt(whole+part+"000000000"[len(part):], 10, 64)
	if err != nil || ns == math.MaxInt64 {
		return 0, bad
	}
	return ns, nil
}
