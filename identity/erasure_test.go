package identity

import (
	"strings"
	"testing"
	"time"

	"carnet"
)

// erasing is what the tests below change one thing of at a time.
func erasing(t testing.TB) (ErasureOrder, Deletion) {
	m := newMoving(t)
	e := carnet.ErasureID{8}
	return ErasureOrder{
			Erasure: e, Registrar: did(m.registrar), Owner: did(m.owner), World: did(m.source), Home: carnet.HomeID{2},
			Avatar: ErasedMark(e, carnet.AvatarID{1}), Made: m.order.Made, Until: m.order.Until,
		}, Deletion{
			Erasure: e, Order: carnet.Fingerprint{7}, By: did(m.source), Role: DeletedShare, Of: strings.Repeat("0a", 16), Streams: 2, Batches: 30, Objects: 1,
			Unreadable: m.order.Made, Unrecoverable: m.order.Until,
		}
}

func TestMessagesOfAnErasureComeBackAsTheyWere(t *testing.T) {
	m := newMoving(t)
	order, deletion := erasing(t)
	atHome := deletion
	atHome.Role, atHome.Of, atHome.Items = DeletedAtHome, "", 3
	atDPM := atHome
	atDPM.Role, atDPM.Items, atDPM.Jobs = DeletedAtDPM, 0, 2
	for name, roundTrip := range map[string]func([]byte) (made, read any, err error){
		"order":            func([]byte) (any, any, error) { return trip(m.owner, order, SignErasure, OpenErasure)(nil) },
		"deletion":         func([]byte) (any, any, error) { return trip(m.source, deletion, SignDeletion, OpenDeletion)(nil) },
		"deletion at home": func([]byte) (any, any, error) { return trip(m.source, atHome, SignDeletion, OpenDeletion)(nil) },
		"deletion at DPM":  func([]byte) (any, any, error) { return trip(m.source, atDPM, SignDeletion, OpenDeletion)(nil) },
	} {
		made, read, err := roundTrip(nil)
		if err != nil || asJSON(t, made) != asJSON(t, read) {
			t.Errorf("%s: made %s, read %s, %v", name, asJSON(t, made), asJSON(t, read), err)
		}
	}
	other := testKey(t, strings.Repeat("66", 32))
	if _, err := SignErasure(other, order); err == nil {
		t.Error("somebody else's key signed an order")
	}
	if _, err := SignDeletion(other, deletion); err == nil {
		t.Error("somebody else's key signed a deletion")
	}
	if !order.About(carnet.AvatarID{1}) || order.About(carnet.AvatarID{2}) {
		t.Error("an order is about another avatar than the one it names")
	}
}

func TestMessagesOfAnErasureThatAreWrong(t *testing.T) {
	m := newMoving(t)
	order, deletion := erasing(t)
	for name, change := range map[string]func(*ErasureOrder){
		"longer than a day": func(o *ErasureOrder) { o.Until = o.Made.Add(OrderLife + time.Second) },
		"over before":       func(o *ErasureOrder) { o.Until = o.Made },
		"parts of seconds":  func(o *ErasureOrder) { o.Made = o.Made.Add(1) },
		"no world":          func(o *ErasureOrder) { o.World = "arena" },
		"no registrar":      func(o *ErasureOrder) { o.Registrar = "" },
	} {
		o := order
		change(&o)
		if _, err := SignErasure(m.owner, o); err == nil {
			t.Errorf("an order %s was signed", name)
		} else if token, err := SignMessage(m.owner, erasureType, o); err != nil {
			t.Errorf("%s: %v", name, err)
		} else if _, err := OpenErasure(token); err == nil {
			t.Errorf("an order %s was read", name)
		}
	}
	for name, change := range map[string]func(*Deletion){
		"by nobody known":          func(d *Deletion) { d.Role = "friend" },
		"of no share":              func(d *Deletion) { d.Of = "" },
		"of something cut short":   func(d *Deletion) { d.Of = d.Of[2:] },
		"in capitals":              func(d *Deletion) { d.Of = strings.ToUpper(d.Of) },
		"at home, of a share":      func(d *Deletion) { d.Role = DeletedAtHome },
		"at a DPM, of a share":     func(d *Deletion) { d.Role = DeletedAtDPM },
		"recoverable before":       func(d *Deletion) { d.Unrecoverable = d.Unreadable.Add(-time.Second) },
		"without a first date":     func(d *Deletion) { d.Unreadable = time.Time{} },
		"at a part of a second":    func(d *Deletion) { d.Unreadable = d.Unreadable.Add(1) },
		"by one who isn't a party": func(d *Deletion) { d.By = "arena" },
	} {
		d := deletion
		change(&d)
		if _, err := SignDeletion(m.source, d); err == nil {
			t.Errorf("a deletion %s was signed", name)
		} else if token, err := SignMessage(m.source, deletionType, d); err != nil {
			t.Errorf("%s: %v", name, err)
		} else if _, err := OpenDeletion(token); err == nil {
			t.Errorf("a deletion %s was read", name)
		}
	}
}

func TestRequestsToEraseAreReadInOneForm(t *testing.T) {
	m := newMoving(t)
	r := ErasureRequest{
		Erasure: carnet.ErasureID{8}, Registrar: did(m.registrar), Home: carnet.HomeID{2}, Owner: did(m.owner), World: "arena", WorldKey: did(m.source),
		Avatar: carnet.AvatarID{1}, Text: "You asked for it.", Report: []string{"It was shared with clinic."},
	}
	text, err := r.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if read, err := ParseErasureRequest(text); err != nil || asJSON(t, read) != asJSON(t, r) || !IsErasureRequest(text) || IsMoveRequest(text) {
		t.Fatalf("read as %+v, %v", read, err)
	}
	signed, err := r.Sign(m.owner, m.order.Made)
	if err != nil {
		t.Fatal(err)
	}
	if o, err := OpenErasure(signed.Order); err != nil || !o.About(r.Avatar) || o.Home != r.Home || o.World != r.WorldKey {
		t.Errorf("signed as %+v, %v", o, err)
	}
	if _, err := r.Sign(m.target, m.order.Made); err == nil {
		t.Error("a key signed an order that is by another")
	}
	for name, wrong := range map[string]string{
		"an unknown member": strings.Replace(string(text), `{"erasure"`, `{"more":1,"erasure"`, 1),
		"more after it":     string(text) + "{}",
		"another order":     strings.Replace(string(text), `"report":`, ` "report":`, 1),
		"a terminal's word": strings.Replace(string(text), "You asked", `\u001b[2J`, 1),
	} {
		if _, err := ParseErasureRequest([]byte(wrong)); err == nil {
			t.Errorf("a request with %s was read", name)
		}
	}
}
