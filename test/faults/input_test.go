package faults_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/access"
	"carnet/thing"
	"carnet/wire/file"
	"carnet/wire/mqtt/client"
	"carnet/wire/mqtt/packet"
)

// badMessages are what a device must not publish.
var badMessages = []struct {
	what, contentType string
	payload           func() string
	code              carnet.Code
	says              string // part of the reason
}{
	{"JSON that breaks off", "application/senml+json", is(`[{"n":"heart_rate","u":"beat/min","v":7`), carnet.Malformed, ""},
	{"JSON that is no pack", "application/senml+json", is(`{"heart_rate":70}`), carnet.Malformed, ""},
	{"a pack without a value", "application/senml+json", is(`[{"n":"heart_rate","u":"beat/min"}]`), carnet.Malformed, ""},
	{"CBOR that breaks off", "application/senml+cbor", is("\x81\xa2\x00\x6aheart"), carnet.Malformed, ""},
	{"CBOR nested without end", "application/senml+cbor", func() string { return strings.Repeat("\x81", 5000) }, carnet.Malformed, ""},
	{"an unknown content type", "text/plain", is("heart rate 70"), carnet.Malformed, "text/plain"},
	{"nothing", "", is(""), carnet.Malformed, ""},
	{"a text for a number", "application/senml+json", is(`[{"n":"heart_rate","u":"beat/min","vs":"fast"}]`), carnet.WrongType, "heart_rate"},
	{"a boolean for a number", "application/senml+json", is(`[{"n":"speed","u":"m/s","vb":true}]`), carnet.WrongType, "speed"},
	{"another unit", "application/senml+json", is(`[{"n":"speed","u":"km","v":3}]`), carnet.WrongUnit, "m/s"},
	{"an unknown property", "application/senml+json", is(`[{"n":"blood_pressure","v":120}]`), carnet.UnknownProperty, "blood_pressure"},
	{"out of range", "application/senml+json", is(`[{"n":"heart_rate","u":"beat/min","v":255}]`), carnet.OutOfRange, "254"},
	{"below the range", "application/senml+json", is(`[{"n":"heart_rate","u":"beat/min","v":-1}]`), carnet.OutOfRange, "heart_rate"},
	{"a fraction of an integer", "application/senml+json", is(`[{"n":"heart_rate","u":"beat/min","v":70.5}]`), "", "heart_rate"},
	{"the future", "application/senml+json", at(time.Hour), carnet.TooNew, "5m"},
	{"long ago", "application/senml+json", at(-31 * 24 * time.Hour), carnet.TooOld, "heart_rate"},
	{"half a position", "application/senml+json", is(`[{"n":"position/lat","u":"lat","v":52}]`), carnet.Incomplete, "position"},
	{"one good and one bad measurement", "application/senml+json", is(`[{"n":"heart_rate","u":"beat/min","v":70},{"n":"stress","v":101}]`), carnet.OutOfRange, "stress"},
	{"more records than a pack may have", "application/senml+json", func() string {
		return "[" + strings.Repeat(`{"n":"stress","v":1},`, 10_000) + `{"n":"stress","v":1}]`
	}, carnet.TooLarge, "10"},
}

func is(s string) func() string { return func() string { return s } }

func at(ahead time.Duration) func() string {
	return func() string {
		return fmt.Sprintf(`[{"n":"heart_rate","u":"beat/min","t":%d,"v":70}]`, time.Now().Add(ahead).Unix())
	}
}

// TestBadMessages publishes what can't be accepted, beside a device that behaves:
// each is refused with a reason, recorded, and told on the refusals topic, and
// the other device notices nothing.
func TestBadMessages(t *testing.T) {
	t.Parallel()
	v := newTown(t)
	w, good := v.addWatch(), v.addWatch()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	sent := make(chan error, 1)
	go func() { sent <- good.run(ctx, 10*time.Millisecond) }()

	acks, told := make(chan client.Ack, 100), make(chan refusal, 100)
	c := v.listen(w, acks, told)
	defer c.Close()
	refused := 0
	for _, bad := range badMessages {
		topic := thing.MeasurementsTopic(w.id)
		ack, heard := v.offer(c, acks, told, client.Message{Topic: topic, ContentType: bad.contentType, Payload: []byte(bad.payload()), QoS: 1})
		refused++
		t.Logf("%-35s %s: %s", bad.what, ack.Reason, ack.Text)
		if !ack.Reason.Failed() || bad.code != "" && heard.Code != bad.code || !strings.Contains(heard.Reason, bad.says) || len(heard.Reason) < 10 {
			t.Errorf("%s: acknowledged with %s %q, told %+v; want the code %s and a reason with %q", bad.what, ack.Reason, ack.Text, heard, bad.code, bad.says)
		}
		if kept := v.lastRefusal(w, refused); kept.Code != heard.Code || kept.Reason != heard.Reason {
			t.Errorf("%s: recorded is %+v, told was %+v", bad.what, kept, heard)
		}
	}
	other := client.Message{Topic: thing.MeasurementsTopic(good.id), Payload: []byte(at(0)()), QoS: 1}
	ack, heard := v.offer(c, acks, told, other)
	refused++
	t.Logf("%-35s %s: %s", "another thing's topic", ack.Reason, ack.Text)
	if ack.Reason != packet.NotAuthorized || heard.Code != carnet.Forbidden {
		t.Errorf("another thing's topic: %+v, told %+v", ack, heard)
	}
	refused += v.other311(w)
	v.mosquitto(w, &refused)
	v.wantListed(w, refused)
	v.badPackets(w)
	v.badPasswords(w)

	stop()
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if good.resent != 0 || len(good.refusals) != 0 {
		t.Errorf("the device that behaves had to publish %d messages again, and was refused %v", good.resent, good.refusals)
	}
	w.send(4)
	v.judge(good)
}

// refusal is what the refusals topic says.
type refusal struct {
	Code   carnet.Code `json:"code"`
	Reason string      `json:"reason"`
	Fix    string      `json:"fix"`
}

// listen connects as the watch and hears everything that it is told.
func (v *town) listen(w *watch, acks chan client.Ack, told chan refusal) *client.Client {
	v.t.Helper()
	c, err := client.Dial(v.t.Context(), client.Config{
		Address: v.hub.config.Listen.MQTT, TLS: v.hub.tls(), Version: packet.V5, User: string(w.id), Password: []byte(w.password),
		Acknowledged: func(a client.Ack) { acks <- a },
		Received: func(m client.Message) {
			var r refusal
			if err := json.Unmarshal(m.Payload, &r); err != nil || m.Topic != thing.RefusalsTopic(w.id) {
				r.Reason = fmt.Sprintf("not JSON of the refusals topic: %s: %s", m.Topic, m.Payload)
			}
			told <- r
		},
	})
	if err != nil {
		v.t.Fatal(err)
	}
	if err := c.Subscribe(v.t.Context(), thing.RefusalsTopic(w.id), 1); err != nil {
		v.t.Fatal(err)
	}
	return c
}

func (v *town) offer(c *client.Client, acks chan client.Ack, told chan refusal, m client.Message) (a client.Ack, r refusal) {
	v.t.Helper()
	if err := errors.Join(c.Publish(m), c.Flush()); err != nil {
		v.t.Fatal(err)
	}
	late := time.After(20 * time.Second)
	for range 2 {
		select {
		case a = <-acks:
		case r = <-told:
		case <-c.Done():
			v.t.Fatalf("the connection ended: %v", c.Err())
		case <-late:
			v.t.Fatalf("not acknowledged, or not told: %+v %+v", a, r)
		}
	}
	return a, r
}

// lastRefusal reads the newest recorded refusal, which is the nth.
func (v *town) lastRefusal(w *watch, nth int) thing.Refusal {
	v.t.Helper()
	all, err := v.hub.client.Refusals(v.t.Context(), w.id, 1000)
	if err != nil {
		v.t.Fatal(err)
	}
	if len(all) != nth {
		v.t.Fatalf("%d refusals are recorded, want %d", len(all), nth)
	}
	return all[0]
}

// other311 publishes something bad over MQTT 3.1.1, whose PUBACK can't say no.
func (v *town) other311(w *watch) (refused int) {
	v.t.Helper()
	acks := make(chan client.Ack, 1)
	c, err := client.Dial(v.t.Context(), client.Config{
		Address: v.hub.config.Listen.MQTT, TLS: v.hub.tls(), Version: packet.V311, User: string(w.id), Password: []byte(w.password),
		Acknowledged: func(a client.Ack) { acks <- a },
	})
	if err != nil {
		v.t.Fatal(err)
	}
	defer c.Close()
	m := client.Message{Topic: thing.MeasurementsTopic(w.id), Payload: []byte(`[{"n":"speed","u":"m/s","v":351}]`), QoS: 1}
	if err := errors.Join(c.Publish(m), c.Flush()); err != nil {
		v.t.Fatal(err)
	}
	select {
	case <-acks:
	case <-time.After(20 * time.Second):
		v.t.Fatal("MQTT 3.1.1: what can never be accepted isn't acknowledged")
	}
	return 1
}

// mosquitto publishes with somebody else's client, good and bad.
func (v *town) mosquitto(w *watch, refused *int) {
	v.t.Helper()
	tool(v.t, "sh", "-c", "command -v mosquitto_pub")
	_, port, _ := strings.Cut(v.hub.config.Listen.MQTT, ":")
	for _, version := range []string{"311", "5"} {
		for _, value := range []string{"150", "999"} {
			before := v.things().Messages
			out, err := exec.CommandContext(v.t.Context(), "mosquitto_pub", "-h", "localhost", "-p", port, "--cafile", filepath.Join(v.hub.dir, "ca.pem"),
				"-u", string(w.id), "-P", w.password, "-q", "1", "-V", version, "-t", thing.MeasurementsTopic(w.id),
				"-m", fmt.Sprintf(`[{"n":"heart_rate","u":"beat/min","t":%d,"v":%s}]`, time.Now().UnixNano()/1e9, value)).CombinedOutput()
			v.t.Logf("mosquitto_pub -V %s, heart rate %s: %v %s", version, value, err, bytes.TrimSpace(out))
			if value == "150" && (err != nil || v.things().Messages == before) {
				v.t.Errorf("mosquitto_pub -V %s: a good message isn't stored: %v", version, err)
			}
			if value == "999" {
				*refused++
				if kept := v.lastRefusal(w, *refused); kept.Code != carnet.OutOfRange {
					v.t.Errorf("mosquitto_pub -V %s: recorded is %+v", version, kept)
				}
			}
		}
	}
}

// wantListed checks what people see: carnet thing refusals.
func (v *town) wantListed(w *watch, refused int) {
	v.t.Helper()
	file := filepath.Join(v.dir, "access.json")
	f := &access.File{
		Version: access.Version,
		Parties: []access.Party{{Name: "hub", Role: v.hub.role, HTTP: "https://localhost:" + v.hub.config.Listen.HTTP[len("127.0.0.1:"):],
			MQTT: v.hub.config.Listen.MQTT, CAFile: filepath.Join(v.hub.dir, "ca.pem")}},
		Tokens: []access.Token{{Party: "hub", Name: "operator", Role: "administrator", Token: v.hub.token}},
	}
	if err := f.Write(file); err != nil {
		v.t.Fatal(err)
	}
	out, errs, code := carnetCommand(v.t, "thing", "refusals", "--access", file, "--each", string(w.id))
	v.t.Logf("carnet thing refusals:\n%s%s", out, errs)
	if code != 0 || strings.Count(out, "\n") < refused || !strings.Contains(out, "blood_pressure") {
		v.t.Errorf("carnet thing refusals --each ends with %d and doesn't list %d", code, refused)
	}
}

// badPackets sends what isn't MQTT, or not as it should be: the connection ends,
// in MQTT 5 with a reason.
func (v *town) badPackets(w *watch) {
	v.t.Helper()
	connect := func(version packet.Version) []byte {
		return packet.AppendConnect(nil, &packet.Connect{Version: version, CleanStart: true, KeepAlive: 60, ClientID: []byte("x"),
			HasUser: true, User: []byte(w.id), HasPassword: true, Password: []byte(w.password)})
	}
	publish := func(version packet.Version) []byte {
		p := packet.Publish{QoS: 1, ID: 1, Topic: []byte(thing.MeasurementsTopic(w.id)), Payload: []byte(`[]`)}
		return p.Append(nil, version)
	}
	qos2 := publish(packet.V5)
	qos2[0] = byte(packet.PUBLISH)<<4 | 2<<1
	qos3 := publish(packet.V5)
	qos3[0] = byte(packet.PUBLISH)<<4 | 3<<1
	retain := publish(packet.V5)
	retain[0] |= 1
	for _, bad := range []struct {
		what string
		send []byte
		says packet.Reason // of the DISCONNECT or CONNACK; 0: closed without a word
	}{
		{"HTTP", []byte("GET / HTTP/1.1\r\n\r\n"), 0},
		{"noise", bytes.Repeat([]byte{0xff, 0x00, 0x81}, 100), 0},
		{"a packet before CONNECT", publish(packet.V5), 0},
		{"5: a reserved packet type", append(connect(packet.V5), 0x00, 0x00), packet.MalformedPacket},
		{"5: a length of five bytes", append(connect(packet.V5), 0x30, 0xff, 0xff, 0xff, 0xff, 0x01), packet.MalformedPacket},
		{"5: QoS 2", append(connect(packet.V5), qos2...), packet.QoSNotSupported},
		{"5: QoS 3", append(connect(packet.V5), qos3...), packet.MalformedPacket},
		{"5: retain", append(connect(packet.V5), retain...), packet.RetainNotSupported},
		{"5: a packet of 1 MB", append(connect(packet.V5), 0x32, 0x80, 0x80, 0x40), packet.PacketTooLarge},
		{"5: a second CONNECT", append(connect(packet.V5), connect(packet.V5)...), packet.ProtocolError},
		{"3.1.1: a reserved packet type", append(connect(packet.V311), 0x00, 0x00), 0},
	} {
		reason, text := v.raw(bad.send)
		v.t.Logf("%-35s %s: %s", bad.what, reason, text)
		if reason != bad.says {
			v.t.Errorf("%s: ended with %s %q, want %s", bad.what, reason, text, bad.says)
		}
	}
}

// raw sends bytes over a connection of their own, and returns what the server's
// DISCONNECT says once it has ended the connection.
func (v *town) raw(send []byte) (reason packet.Reason, text string) {
	v.t.Helper()
	conn, err := tls.Dial("tcp", v.hub.config.Listen.MQTT, v.hub.tls())
	if err != nil {
		v.t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := conn.Write(send); err != nil {
		v.t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		v.t.Errorf("the server keeps a connection open that sent %q", send[:min(len(send), 40)])
	}
	for len(answer) > 0 {
		h, err := packet.ParseHeader(answer)
		if err != nil {
			v.t.Fatalf("the server answers % x", answer)
		}
		body := answer[h.Len : h.Len+h.Size]
		if h.Type == packet.DISCONNECT {
			d, err := packet.ParseDisconnect(body, packet.V5)
			if err != nil {
				v.t.Fatal(err)
			}
			return d.Reason, string(d.Properties.Bytes(packet.ReasonString))
		}
		answer = answer[h.Len+h.Size:]
	}
	return 0, ""
}

// badPasswords connects as who one isn't: wrong passwords and unknown things look
// the same.
func (v *town) badPasswords(w *watch) {
	v.t.Helper()
	var said []string
	for _, version := range []packet.Version{packet.V311, packet.V5} {
		for _, who := range [][2]string{{string(w.id), "not-the-password"}, {"nobody", w.password}, {string(w.id), ""}, {"", ""}} {
			if version == packet.V311 && who[0] == "" {
				continue // no password without a user name there (§3.1.2.9)
			}
			_, err := client.Dial(v.t.Context(), client.Config{
				Address: v.hub.config.Listen.MQTT, TLS: v.hub.tls(), Version: version, User: who[0], Password: []byte(who[1]),
			})
			r, ok := errors.AsType[*client.Refusal](err)
			if !ok || r.Reason != packet.BadUserNameOrPassword && r.Reason != packet.NotAuthorized {
				v.t.Errorf("MQTT %v, user %q: %v", version, who[0], err)
				continue
			}
			v.t.Logf("MQTT %v, user %q: %s: %s", version, who[0], r.Reason, r.Text)
			if who[0] != "" && who[1] != "" {
				said = append(said, r.Error())
			}
		}
	}
	if len(said) == 4 && (said[0] != said[1] || said[2] != said[3]) {
		v.t.Errorf("a wrong password and an unknown thing are told apart: %q", said)
	}
}

// TestBadRecordings gives the demo what it can't play: it says so and ends with 1,
// before any party is made.
func TestBadRecordings(t *testing.T) {
	t.Parallel()
	var fit bytes.Buffer
	if err := file.WriteFIT(&fit, file.Generate(1, time.Minute, time.Now().Truncate(time.Second))); err != nil {
		t.Fatal(err)
	}
	broken := slices.Clone(fit.Bytes())
	broken[len(broken)/2] ^= 1
	for name, content := range map[string][]byte{
		"short.fit":    fit.Bytes()[:fit.Len()/2],
		"broken.fit":   broken,
		"header.fit":   fit.Bytes()[:12],
		"noise.fit":    bytes.Repeat([]byte{0, 1, 2, 3}, 500),
		"empty.csv":    nil,
		"quote.csv":    []byte("unix_time,heart_rate_bpm\n1,\"70\n2,71\n"),
		"cells.csv":    []byte("unix_time,heart_rate_bpm\n1,70\n2,71,3,4\n"),
		"headers.csv":  []byte("when,what\n1,2\n"),
		"novalues.csv": []byte("unix_time,heart_rate_bpm\nyesterday,70\n"),
	} {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		data := filepath.Join(t.TempDir(), "data")
		out, errs, code := carnetCommand(t, "demo", "--input", path, "--columns", "unix_time=time(s),heart_rate_bpm=heart_rate[beat/min]", "--data", data, "--speed", "max", "--json")
		t.Logf("%-12s %d %s", name, code, strings.TrimSpace(errs))
		_, err := os.Stat(data)
		if code != 1 || out != "" || !strings.HasPrefix(errs, "carnet: ") || strings.Count(errs, "\n") != 1 || !strings.Contains(errs, name) || err == nil {
			t.Errorf("%s: ended with %d, said %q and %q, and made parties: %v", name, code, out, errs, err == nil)
		}
	}
}
