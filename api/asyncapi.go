package api

import (
	"carnet/senml"
	"carnet/thing"

	"github.com/danielgtaylor/huma/v2"
)

// asyncAPI describes what goes in messages and not in calls, as AsyncAPI 3.0: the
// topics of MQTT at a things agent, and live events over a WebSocket at a world. It
// is made of the topics, types and schemas that the code has. A party without such
// channels has no document: nil.
func (s *server) asyncAPI() map[string]any {
	d := asyncDocument{servers: map[string]any{}, channels: map[string]any{}, operations: map[string]any{}, messages: map[string]any{}, schemes: map[string]any{}}
	if s.things != nil && s.mqtt != "" {
		d.addTopics(s.mqtt)
	}
	if s.world != nil {
		d.addLive()
	}
	if len(d.channels) == 0 {
		return nil
	}
	return map[string]any{
		"asyncapi": "3.0.0",
		"info": map[string]any{
			"title": "Carnet: " + string(s.party), "version": Version,
			"description": "Messages of one party: what a client publishes, and what it is told. Calls are in /openapi.json.",
		},
		"servers": d.servers, "channels": d.channels, "operations": d.operations,
		"components": map[string]any{"messages": d.messages, "securitySchemes": d.schemes},
	}
}

type asyncDocument struct{ servers, channels, operations, messages, schemes map[string]any }

func ref(to string) map[string]any { return map[string]any{"$ref": "#/" + to} }

// message adds one to the components.
func (d *asyncDocument) message(name, contentType, summary string, payload *huma.Schema, example any) {
	m := map[string]any{"name": name, "contentType": contentType, "summary": summary, "payload": plain(payload)}
	if example != nil {
		m["examples"] = []any{map[string]any{"payload": plain(example)}}
	}
	d.messages[name] = m
}

// channel adds one with its messages, and the operation on it. The party sends, or
// receives.
func (d *asyncDocument) channel(name, address, server, action, tag, summary string, parameters, bindings map[string]any, messages ...string) {
	has, carries := map[string]any{}, []any{}
	for _, m := range messages {
		has[m] = ref("components/messages/" + m)
		carries = append(carries, ref("channels/"+name+"/messages/"+m))
	}
	d.channels[name] = map[string]any{"address": address, "parameters": parameters, "messages": has, "servers": []any{ref("servers/" + server)}}
	o := map[string]any{
		"action": action, "channel": ref("channels/" + name), "summary": summary, "messages": carries,
		"tags": []any{map[string]any{"name": tag}},
	}
	if bindings != nil {
		o["bindings"] = bindings
	}
	d.operations[name] = o
}

// examplePack is what a message of a thing with a heart rate has.
func examplePack() any { return packSchema().Examples[0] }

// addTopics adds a things agent's topics (docs/design/mqtt.md).
func (d *asyncDocument) addTopics(address string) {
	d.schemes["thing"] = map[string]any{"type": "userPassword", "description": "The thing's id and its password."}
	d.servers["mqtt"] = map[string]any{
		"host": address, "protocol": "secure-mqtt", "description": "MQTT 3.1.1 and 5 over TLS. It is no broker: no device hears another.",
		"security": []any{ref("components/securitySchemes/thing")},
	}
	names := map[senml.Format]string{senml.JSON: "pack", senml.CBOR: "packCBOR", senml.XML: "packXML"}
	for format, name := range names {
		if format == senml.JSON {
			d.message(name, format.ContentType(), "Measurements. MQTT 5's content type says the form; without one the first byte does.", packSchema(), examplePack())
			continue
		}
		d.message(name, format.ContentType(), "The same in this form.", bytesOf("RFC 8428."), nil)
	}
	d.message("refusal", typeJSON, "Why a message was refused for good.", toldSchema(),
		thing.Told{Code: "unknown_property", Reason: `property "mood" is not in the description of "Pulse band"`, Fix: "use one of heart_rate"})
	parameters := map[string]any{"thing": map[string]any{"description": "The thing's id, which is its user name, too.", "examples": []any{"watch-7"}}}
	bindings := map[string]any{"mqtt": map[string]any{"qos": 1, "retain": false, "bindingVersion": "0.2.0"}}
	d.channel("measurements", thing.MeasurementsTopic("{thing}"), "mqtt", "receive", atR1,
		"A thing publishes what it measured. With QoS 1 it is acknowledged when it is on disk.", parameters, bindings, "pack", "packCBOR", "packXML")
	d.channel("refusals", thing.RefusalsTopic("{thing}"), "mqtt", "send", atR1,
		"A thing hears why messages of its own were refused.", parameters, bindings, "refusal")
}

// toldSchema is that of a thing.Told.
func toldSchema() *huma.Schema {
	text := func(description string) *huma.Schema { return &huma.Schema{Type: "string", Description: description} }
	return &huma.Schema{Type: "object", AdditionalProperties: false, Required: []string{"code", "reason"}, Properties: map[string]*huma.Schema{
		"code": text("What is wrong, for programs."), "reason": text("What is wrong, for people."), "fix": text("What to do about it."),
	}}
}

// addLive adds a world's live events (docs/design/api.md, Live).
func (d *asyncDocument) addLive() {
	d.schemes["bearer"] = map[string]any{"type": "http", "scheme": "bearer", "description": "A token; a browser offers it as the subprotocol bearer.TOKEN."}
	d.servers["live"] = map[string]any{
		"host": "{host}", "protocol": "wss", "description": "The listener that serves this document.", "security": []any{ref("components/securitySchemes/bearer")},
		"variables": map[string]any{"host": map[string]any{"description": "Host and port of the party's HTTP interface."}},
	}
	frame := &huma.Schema{Type: "object", AdditionalProperties: false, Required: []string{"cursor", "pack"}, Properties: map[string]*huma.Schema{
		"cursor": {Type: "string", Description: "Who is cut off goes on with after=CURSOR."}, "pack": packSchema(),
	}}
	d.message("frame", typeJSON, "What was measured: a text frame, without a subprotocol or with "+protoJSON+". The first has an empty pack for who begins from now on.", frame,
		map[string]any{"cursor": "AQIDBA", "pack": examplePack()})
	d.message("frameCBOR", typeCBOR, "The same in a binary frame, with the subprotocol "+protoCBOR+"; pack is SenML in CBOR.", bytesOf("A map of two text keys, cursor and pack."), nil)
	d.channel("live", livePath, "live", "send", atR4, "What is stored of an avatar from a place on, then what comes. Who says anything but control frames is disconnected.",
		map[string]any{"id": map[string]any{"description": "The avatar's id.", "examples": []any{exampleAvatar.String()}}}, nil, "frame", "frameCBOR")
}
