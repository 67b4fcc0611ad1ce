package problem

import (
	"errors"
	"net/http/httptest"
	"strings"
	"testing"

	"carnet"
)

func TestARefusalIsReadBack(t *testing.T) {
	for code, status := range statuses {
		said := carnet.Errorf(code, "it is so").WithFix("do this")
		w := httptest.NewRecorder()
		Refuse(w, "the depot", errors.Join(said, errors.New("beside")), func(err error) { t.Errorf("%s is logged: %v", code, err) })
		if w.Code != status || (w.Header().Get("Retry-After") != "") != (status == 503 || status == 507) {
			t.Errorf("%s: status %d, headers %v", code, w.Code, w.Header())
		}
		e, ok := errors.AsType[*carnet.Error](Read(w.Result(), "the depot"))
		if !ok || e.Code != code || e.Reason != "it is so" || e.Fix != "do this" {
			t.Errorf("%s was read as %+v", code, e)
		}
	}
}

// What nobody outside is to know isn't told, and its operator is.
func TestWhatHasNoCodeIsTheOperators(t *testing.T) {
	for _, err := range []error{errors.New("dial 10.0.0.1: refused"), carnet.Errorf("secret", "the key is in /etc")} {
		var logged error
		w := httptest.NewRecorder()
		Refuse(w, "the depot", err, func(err error) { logged = err })
		if body := w.Body.String(); w.Code != 500 || strings.Contains(body, "10.0.0.1") || strings.Contains(body, "/etc") || logged != err {
			t.Errorf("%v: %d %s, logged %v", err, w.Code, body, logged)
		}
		if err := Read(w.Result(), "the depot"); carnet.CodeOf(err) != carnet.Unavailable {
			t.Errorf("read as %v", err)
		}
	}
}

func TestWhatIsNoRefusalSaysNothing(t *testing.T) {
	for name, c := range map[string]struct{ media, body string }{
		"a proxy's page":      {"text/html", `{"code":"not_found","detail":"gone"}`},
		"no JSON":             {Type, "gone"},
		"an unknown code":     {Type, `{"code":"whatever","detail":"gone"}`},
		"a type that is none": {";", ""},
		"too long":            {Type, `{"code":"not_found","detail":"` + strings.Repeat("x", most) + `"}`},
	} {
		w := httptest.NewRecorder()
		w.Header().Set("Content-Type", c.media)
		w.WriteHeader(404)
		w.WriteString(c.body)
		err := Read(w.Result(), "the depot")
		if carnet.CodeOf(err) != carnet.Unavailable || !strings.Contains(err.Error(), "the depot answered 404") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
