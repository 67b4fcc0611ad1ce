package senml_test

import (
	"encoding/hex"
	"strings"
	"testing"

	"carnet"
	"carnet/senml"
)

const ow = "urn:dev:ow:10e2073a01080063"

// rfcExamples are those of RFC 8428 §5.1 with what they mean.
var rfcExamples = []struct {
	section, pack string
	want          []carnet.Measurement
}{
	{"5.1.1", `[ {"n":"urn:dev:ow:10e2073a01080063","u":"Cel","v":23.1} ]`,
		[]carnet.Measurement{num(ow, "Cel", now, 23.1)}},
	{"5.1.2", `[ {"bn":"urn:dev:ow:10e2073a01080063:","n":"voltage","u":"V","v":120.1},
		{"n":"current","u":"A","v":1.2} ]`,
		[]carnet.Measurement{num(ow+":voltage", "V", now, 120.1), num(ow+":current", "A", now, 1.2)}},
	{"5.1.2 with times", `[
		{"bn":"urn:dev:ow:10e2073a0108006:","bt":1.276020076001e+09,"bu":"A","bver":5,"n":"voltage","u":"V","v":120.1},
		{"n":"current","t":-5,"v":1.2},
		{"n":"current","v":1.7}]`,
		[]carnet.Measurement{
			num("urn:dev:ow:10e2073a0108006:voltage", "V", 1276020076001e6, 120.1),
			num("urn:dev:ow:10e2073a0108006:current", "A", 1276020071001e6, 1.2),
			num("urn:dev:ow:10e2073a0108006:current", "A", 1276020076001e6, 1.7)}},
	{"5.1.3", `[{"bn":"urn:dev:ow:10e2073a01080063","bt":1.320067464e+09,"bu":"%RH","v":20},
		{"u":"lon","v":24.30621},
		{"t":60,"v":20.3},
		{"u":"%EL","t":150,"v":98}]`,
		[]carnet.Measurement{
			num(ow, "%RH", 1320067464e9, 20), num(ow, "lon", 1320067464e9, 24.30621),
			num(ow, "%RH", 1320067524e9, 20.3), num(ow, "%EL", 1320067614e9, 98)}},
	{"5.1.5", `[{"bn":"urn:dev:ow:10e2073a01080063:","n":"temp","u":"Cel","v":23.1},
		{"n":"label","vs":"Machine Room"}, {"n":"open","vb":false}, {"n":"nfc-reader","vd":"aGkgCg"}]`,
		[]carnet.Measurement{
			num(ow+":temp", "Cel", now, 23.1),
			{Name: ow + ":label", Time: now, Value: carnet.String("Machine Room")},
			{Name: ow + ":open", Time: now, Value: carnet.Bool(false)},
			{Name: ow + ":nfc-reader", Time: now, Value: carnet.Bytes([]byte("hi \n"))}}},
	{"5.1.6", `[{"bn":"2001:db8::2/","bt":1.320078429e+09,"n":"temperature","u":"Cel","v":25.2},
		{"bn":"2001:db8::1/","n":"temperature","u":"Cel","v":12.3}, {"n":"humidity","u":"%RH","v":67}]`,
		[]carnet.Measurement{
			num("2001:db8::2/temperature", "Cel", 1320078429e9, 25.2),
			num("2001:db8::1/temperature", "Cel", 1320078429e9, 12.3),
			num("2001:db8::1/humidity", "%RH", 1320078429e9, 67)}},
	{"5.1.7", `[{"bn":"urn:dev:ow:10e2073a01080063:"}, {"n":"temp","u":"Cel","v":23.1}, {"n":"fan","u":"/","v":0}]`,
		[]carnet.Measurement{num(ow+":temp", "Cel", now, 23.1), num(ow+":fan", "/", now, 0)}},
	{"5.1.7 lights", `[{"bt":1.320078429e+09,"bu":"/","n":"2001:db8::3","v":0.5}, {"n":"2001:db8::4","t":0.1,"v":0}]`,
		[]carnet.Measurement{num("2001:db8::3", "/", 1320078429e9, 0.5), num("2001:db8::4", "/", 13200784291e8, 0)}},
}

func TestRFCExamples(t *testing.T) {
	d := senml.NewDecoder(senml.Limits{})
	for _, ex := range rfcExamples {
		got, err := d.Decode(nil, senml.JSON, []byte(ex.pack), now)
		if err != nil || !same(got, ex.want) {
			t.Errorf("§%s: got %v (%v), want %v", ex.section, got, err, ex.want)
		}
		for _, f := range formats[1:] {
			pack, err := senml.Append(nil, f, ex.want)
			if err != nil {
				t.Fatal(err)
			}
			want := ex.want
			if f == senml.Columns {
				want = grouped(want)
			}
			if got, err := d.Decode(nil, f, pack, 0); err != nil || !same(got, want) {
				t.Errorf("§%s in %s: got %v (%v), want %v", ex.section, f, got, err, want)
			}
		}
	}
}

// timed is the pack that RFC 8428 shows in §5.1.2, §6 and §7.
func timed() []carnet.Measurement {
	const device, at = "urn:dev:ow:10e2073a0108006:", 1276020076001e6
	ms := []carnet.Measurement{num(device+"voltage", "V", at, 120.1)}
	for i, v := range []float64{1.2, 1.3, 1.4, 1.5, 1.6, 1.7} {
		ms = append(ms, num(device+"current", "A", at+int64(i-5)*1e9, v))
	}
	return ms
}

func TestRFCExampleInCBOR(t *testing.T) {
	pack, err := hex.DecodeString(strings.Join(strings.Fields(`
		87 a7 21 78 1b 75726e3a6465763a6f773a3130653230373361303130383030363a
		22 fb41d303a15b001062 23 6141 20 05 00 67766f6c74616765 01 6156 02 fb405e066666666666
		a3 00 6763757272656e74 06 24 02 fb3ff3333333333333
		a3 00 6763757272656e74 06 23 02 fb3ff4cccccccccccd
		a3 00 6763757272656e74 06 22 02 fb3ff6666666666666
		a3 00 6763757272656e74 06 21 02 f93e00
		a3 00 6763757272656e74 06 20 02 fb3ff999999999999a
		a3 00 6763757272656e74 06 00 02 fb3ffb333333333333`), ""))
	if err != nil {
		t.Fatal(err)
	}
	want := timed()
	got, err := senml.NewDecoder(senml.Limits{}).Decode(nil, senml.CBOR, pack, now)
	if err != nil || !same(got, want) {
		t.Errorf("got %v (%v), want %v", got, err, want)
	}
}

func TestRFCExampleInXML(t *testing.T) {
	pack := `<sensml xmlns="urn:ietf:params:xml:ns:senml">
  <senml bn="urn:dev:ow:10e2073a0108006:" bt="1.276020076001e+09"
  bu="A" bver="5" n="voltage" u="V" v="120.1"></senml>
  <senml n="current" t="-5" v="1.2"></senml>
  <senml n="current" t="-4" v="1.3"></senml>
  <senml n="current" t="-3" v="1.4"></senml>
  <senml n="current" t="-2" v="1.5"></senml>
  <senml n="current" t="-1" v="1.6"></senml>
  <senml n="current" v="1.7"></senml>
</sensml>`
	got, err := senml.NewDecoder(senml.Limits{}).Decode(nil, senml.XML, []byte(pack), now)
	if err != nil || !same(got, timed()) {
		t.Errorf("got %v (%v), want %v", got, err, timed())
	}
}
