package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"carnet"
	"carnet/activity"
	"carnet/entity"
	"carnet/policy"
)

// oneGrant is an entity agent with one grant, that holds as it says.
type oneGrant struct {
	entities
	grant entity.Grant
	holds error
}

func (o oneGrant) Grant(string) (entity.Grant, error)         { return o.grant, nil }
func (o oneGrant) Holds(string, uint64) (entity.Grant, error) { return o.grant, o.holds }

// A subscription is told why it ends: what is over, or that nobody can tell at the moment.
func TestASubscriptionIsToldWhyItEnds(t *testing.T) {
	away, forbidden := carnet.Errorf(carnet.Unavailable, "the store is away"), carnet.Errorf(carnet.Forbidden, "it is over")
	past := time.Now().Add(-time.Hour)
	lasting := entity.Grant{Terms: entity.Terms{Expires: time.Now().Add(time.Hour)}}
	revoked, expired := lasting, lasting
	revoked.Revoked, expired.Expires = &past, past
	cause := func(of context.Context, why error) context.Context {
		ctx, cancel := context.WithCancelCause(of)
		cancel(why)
		return ctx
	}
	proven := Proven(t.Context(), Proof{})
	for name, c := range map[string]struct {
		of    context.Context // the request's
		grant entity.Grant
		holds error
		over  bool  // the grant's hold was ended
		err   error // the pump's
		want  error
	}{
		"a revoked grant":                 {grant: revoked, holds: away, over: true, want: errOver},
		"a grant whose time is over":      {grant: expired, holds: away, over: true, want: errOver},
		"a grant that its owner forbids":  {grant: lasting, holds: forbidden, over: true, want: errOver},
		"a grant of which nobody knows":   {grant: lasting, holds: away, over: true, want: errUnknown},
		"the same, and it is known again": {grant: lasting, over: true, want: errUnknown},
		"a token that was taken away":     {err: errors.Join(errRevoked, forbidden), want: errRevoked},
		"a token of which nobody knows":   {err: errors.Join(errUnknown, away), want: errUnknown},
		"the party stops":                 {of: cause(t.Context(), nil), want: errStopped},
		"the party stops as it is asked":  {of: cause(t.Context(), nil), err: errors.Join(errUnknown, context.Canceled), want: errStopped},
		"the party stops, a foreign call": {of: cause(proven, nil), want: errStopped},
		"a foreign call's token":          {of: cause(proven, carnet.Errorf(carnet.Unauthenticated, "the token has ended")), want: errFallen},
		"a foreign call, the store away":  {of: cause(proven, away), want: errUnknown},
		"the subscriber":                  {err: errors.New("a broken pipe")},
	} {
		if c.of == nil {
			c.of = t.Context()
		}
		s := &server{entities: oneGrant{grant: c.grant, holds: c.holds}}
		ctx := c.of
		if c.over {
			ctx = cause(ctx, errOver)
		}
		if got := s.whyEnded(ctx, httptest.NewRequest(http.MethodGet, "/", nil).WithContext(c.of), place{grant: "g"}, c.err); got != c.want {
			t.Errorf("%s: it ends since %v, want %v", name, got, c.want)
		}
	}
}

// Where the guard can't find out whether a subscription may go on, its token isn't to blame.
func TestARecheckSaysWhatItCouldNotFindOut(t *testing.T) {
	who := policy.Bearer("reader", policy.Service)
	s := &server{guard: watched(t), log: slog.New(slog.DiscardHandler), tokens: func(string) (Principal, bool) { return who, true }}
	for want, look := range map[error]func(context.Context) (activity.Known, error){
		errUnknown: func(context.Context) (activity.Known, error) {
			return activity.Known{}, carnet.Errorf(carnet.Unavailable, "the store is away")
		},
		errRevoked: func(context.Context) (activity.Known, error) { return activity.Known{}, nil },
	} {
		app := policy.Principal{Kind: policy.Application, Name: "app"}
		who = app
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Authorization", "Bearer x")
		call := activity.Call{Who: app, Action: "watch-avatar", Resource: policy.Resource{Kind: policy.AvatarResource, ID: carnet.AvatarID{1}.String()}, Look: look}
		r = r.WithContext(withAdmitted(r.Context(), admitted{who: app, call: call}))
		err := s.recheck(r)
		if !errors.Is(err, want) || want == errUnknown && errors.Is(err, errRevoked) {
			t.Errorf("it is told %v, want %v", err, want)
		}
	}
}

// timed is a connection's writer, whose deadline somebody may put into the past.
type timed struct {
	*httptest.ResponseRecorder
	until time.Time
}

func (w *timed) SetWriteDeadline(t time.Time) error { w.until = t; return nil }

// What was ended is given no more time: its connection's deadline stays in the past.
func TestEventsLiftNoDeadline(t *testing.T) {
	w := &timed{ResponseRecorder: httptest.NewRecorder()}
	var over error
	o := &events{w: w, limit: http.NewResponseController(w), patience: time.Minute, fallen: func() error { return over }}
	if err := o.begin(t.Context(), "c"); err != nil || w.Body.Len() == 0 || !w.until.After(time.Now()) {
		t.Fatalf("an event: %v, until %v", err, w.until)
	}
	before := w.Body.Len()
	over = errFallen
	if err := o.end(errFallen); err == nil || w.Body.Len() != before || w.until.After(time.Now()) {
		t.Errorf("after its end: %v, %d bytes, until %v", err, w.Body.Len()-before, w.until)
	}
}
