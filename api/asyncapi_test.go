package api_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"carnet"
	"carnet/senml"
	"carnet/thing"

	"github.com/coder/websocket"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// messages is an AsyncAPI document, with the schemas of its messages.
type messages struct {
	t   *testing.T
	doc map[string]any
}

func asyncAPI(t *testing.T, base string) messages {
	t.Helper()
	a := ask(t, "GET", base+"/asyncapi.json", "", "")
	var doc map[string]any
	if err := json.Unmarshal([]byte(a.body), &doc); err != nil || a.status != 200 || doc["asyncapi"] != "3.0.0" {
		t.Fatalf("the document is %d %s: %v", a.status, a.body, err)
	}
	return messages{t, doc}
}

// holds checks a payload against the schema of a message of a channel, and follows
// the document's references on the way.
func (m messages) holds(channel, message, payload string) {
	m.t.Helper()
	at := find(m.doc, "channels", channel, "messages", message, "$ref")
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	if err := c.AddResource("carnet:asyncapi.json", m.doc); err != nil {
		m.t.Fatal(err)
	}
	name, _ := at.(string)
	schema, err := c.Compile("carnet:asyncapi.json" + name + "/payload")
	if err != nil {
		m.t.Fatalf("%s of %s: %v", message, channel, err)
	}
	check(m.t, message+" of "+channel, schema, payload)
}

// examples checks the examples of a channel's messages, of which there are some.
func (m messages) examples(channel string) {
	m.t.Helper()
	n := 0
	for name := range messagesOf(m.doc, channel) {
		for _, e := range examplesOf(m.doc, name) {
			m.holds(channel, name, marshal(m.t, find(e, "payload")))
			n++
		}
	}
	if n == 0 {
		m.t.Errorf("no message of %s has an example", channel)
	}
}

// heardOf collects what a thing is told.
type heardOf struct{ topic, contentType, payload chan string }

func (h heardOf) Send(topic, contentType string, payload []byte) bool {
	h.topic <- topic
	h.contentType <- contentType
	h.payload <- string(payload)
	return true
}

func (heardOf) Cut(string) {}

// What a things agent takes and tells on its topics is what its document of messages
// says, examples included.
func TestTheDocumentOfTopicsIsTrue(t *testing.T) {
	s := newServed(t)
	d, _ := s.watch("watch-7", `{"properties":{"heart_rate":{}}}`)
	m := asyncAPI(t, s.hubURL)
	topic := func(channel string) string {
		return strings.ReplaceAll(find(m.doc, "channels", channel, "address").(string), "{thing}", "watch-7")
	}
	if topic("measurements") != thing.MeasurementsTopic("watch-7") || find(m.doc, "servers", "mqtt", "host") != "localhost:8883" {
		t.Errorf("measurements go to %s at %v", topic("measurements"), find(m.doc, "servers", "mqtt"))
	}
	payload, err := senml.Append(nil, senml.JSON, []carnet.Measurement{heart(0, 60)})
	if err != nil {
		t.Fatal(err)
	}
	m.holds("measurements", "pack", string(payload))
	d.mustSend(heart(0, 60))
	for _, channel := range []string{"measurements", "refusals"} {
		m.examples(channel)
	}
	told := heardOf{make(chan string, 1), make(chan string, 1), make(chan string, 1)}
	d.session.Attach(told)
	d.send(carnet.Measurement{Name: "mood", Time: heart(1, 0).Time, Value: carnet.Float(1)})
	if at, kind := <-told.topic, <-told.contentType; at != topic("refusals") || kind != find(m.doc, "components", "messages", "refusal", "contentType") {
		t.Errorf("a refusal is told at %s as %s", at, kind)
	}
	m.holds("refusals", "refusal", <-told.payload)
}

func messagesOf(doc map[string]any, channel string) map[string]any {
	all, _ := find(doc, "channels", channel, "messages").(map[string]any)
	return all
}

func examplesOf(doc map[string]any, message string) []any {
	all, _ := find(doc, "components", "messages", message, "examples").([]any)
	return all
}

// What a world sends live is what its document of messages says.
func TestTheDocumentOfLiveEventsIsTrue(t *testing.T) {
	s := newServed(t)
	d, v := s.watch("watch-7", `{"properties":{"heart_rate":{}}}`)
	m := asyncAPI(t, s.arenaURL)
	path := strings.ReplaceAll(find(m.doc, "channels", "live", "address").(string), "{id}", url.PathEscape(v.Avatar.String()))
	conn, _, err := websocket.Dial(t.Context(), s.arenaURL+path, &websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Bearer reader-token"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	for i, want := range []string{`"pack":[]`, `"heart_rate"`} {
		kind, frame, err := conn.Read(t.Context())
		if err != nil || kind != websocket.MessageText || !strings.Contains(string(frame), want) {
			t.Fatalf("a frame of kind %v: %s, %v", kind, frame, err)
		}
		m.holds("live", "frame", string(frame))
		if i == 0 {
			d.mustSend(heart(0, 60))
		}
	}
	m.examples("live")
	vault, _ := newVault(t)
	if a := ask(t, "GET", s.serve(vault)+"/asyncapi.json", "", ""); a.status != http.StatusNotFound {
		t.Errorf("a depot, which has no messages, has a document of them: %d", a.status)
	}
}

// Every operation of a document of messages is on a channel of it, at a server of it,
// and has a reference point.
func TestTheDocumentsOfMessagesHangTogether(t *testing.T) {
	s := newServed(t)
	for _, base := range []string{s.hubURL, s.arenaURL} {
		doc := asyncAPI(t, base).doc
		for id, o := range find(doc, "operations").(map[string]any) {
			tags, _ := find(o, "tags").([]any)
			if action := find(o, "action"); len(tags) != 1 || !slices.Contains([]any{"R1", "R4"}, find(tags[0], "name")) || action != "send" && action != "receive" {
				t.Errorf("%s is %v", id, o)
			}
			channel, _ := find(o, "channel", "$ref").(string)
			name := strings.TrimPrefix(channel, "#/channels/")
			carried, _ := find(o, "messages").([]any)
			if len(carried) == 0 || len(carried) != len(messagesOf(doc, name)) {
				t.Errorf("%s carries %v, and the channel %v", id, carried, messagesOf(doc, name))
			}
			for _, at := range find(doc, "channels", name, "servers").([]any) {
				if server, _ := find(at, "$ref").(string); find(doc, "servers", strings.TrimPrefix(server, "#/servers/")) == nil {
					t.Errorf("%s is at %v, which isn't there", id, at)
				}
			}
		}
	}
}
