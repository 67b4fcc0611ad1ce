package api_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/entity"
	"carnet/identity"
	"carnet/senml"
)

// A call of another world shows what the grant shows that it is proved by, however much
// a newer one for another purpose gives.
func TestACallIsServedByItsOwnGrant(t *testing.T) {
	s := newServed(t)
	d, m := s.watch("watch-7", `{"properties":{"heart_rate":{},"steps":{}}}`)
	d.mustSend(heart(0, 72), carnet.Measurement{Name: "steps", Time: heart(0, 0).Time, Value: carnet.Float(7)}, heart(1, 73))
	s.arrived(m.Avatar, 3)
	s.pinned(m)
	c := newCaller(s, m.Avatar)
	s.give(entity.Terms{
		Avatar: m.Avatar, To: entity.To{Platform: "citadel", DID: identity.DID(public(c.avatar))}, Actions: []identity.Action{identity.ActionRead, identity.ActionSubscribe},
		View: view(t, `{"properties":{"heart_rate":{},"steps":{}}}`), Purpose: "games", Expires: time.Now().Add(time.Hour).Truncate(time.Second),
		Ceiling: &entity.Clearance{Sensitivity: carnet.AllSensitive},
	})
	for _, path := range []string{"", "/history?limit=1"} {
		r, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+s.r5.Addr().String()+"/r5/avatars/"+m.Avatar.String()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept", senml.CBOR.ContentType())
		c.prove(r)
		a, err := c.http.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Body.Close()
		if link := a.Header.Get("Link"); path == "/history?limit=1" && !strings.HasPrefix(link, "</r5/avatars/"+m.Avatar.String()+"/history?") {
			t.Errorf("the next page is at %s", link)
		}
		body, err := io.ReadAll(a.Body)
		if err != nil {
			t.Fatal(err)
		}
		ms, err := senml.NewDecoder(senml.Limits{}).Decode(nil, senml.CBOR, body, time.Now().UnixNano())
		if err != nil || len(ms) != 1 || ms[0].Name != "heart_rate" {
			t.Errorf("%q shows %v, %v (%s)", path, numbers(ms), err, a.Status)
		}
	}
}
