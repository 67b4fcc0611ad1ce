package demo

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"carnet"
	"carnet/access"
	"carnet/api"
	"carnet/policy"
	"carnet/senml"
	"carnet/td"
	"carnet/thing"
	"carnet/wire/file"
)

// owner is who the demo's things belong to.
const owner = "owner"

// sensor is one of the demo's things: the device, and what it was given.
type sensor struct {
	name        string
	description []byte
	views       map[carnet.PartyID]string // what its owner lets each world have
	recordings  []*file.Recording
	joins       string // the sensor whose avatar in each world it is, too; empty: it has its own

	adopted  bool // from an earlier run
	id       carnet.ThingID
	password string
	address  string // host:port of the agent's MQTT listener
	ca       string
	mappings map[carnet.PartyID]thing.MappingInfo
}

// watch is always there: somebody may want to send a measurement of their own.
func watch() *sensor {
	return &sensor{name: "watch", description: td.Watch(), views: map[carnet.PartyID]string{
		"arena": `{
		  "properties": {
		    "heart_rate": {"round": 5, "rate": "1s"},
		    "speed":      {"rate": "1s"}
		  },
		  "purposes": ["fitness"]
		}`,
		"clinic": `{
		  "properties": {
		    "heart_rate": {},
		    "stress":     {},
		    "position":   {"precision_m": 1000}
		  },
		  "purposes": ["care"]
		}`,
		// Of its own citadel gets little: the rest comes by a share of arena's.
		"citadel": `{"properties": {"steps": {}}, "purposes": ["fitness"]}`,
	}}
}

// room is there when a recording of a room is played.
func room() *sensor {
	return &sensor{name: "room", description: td.Room(), views: map[carnet.PartyID]string{
		"arena":  `{"properties": {"temperature": {"round": 1, "rate": "5m"}, "light": {"round": 50}}, "purposes": ["fitness"]}`,
		"clinic": `{"properties": {"temperature": {}, "humidity": {}, "co2": {}, "occupancy": {}}, "purposes": ["care"]}`,
	}}
}

// sensors says whose recordings are whose: a room's has a property that only a
// room has.
func sensors(recordings []*file.Recording) []*sensor {
	w, r := watch(), room()
	for _, recording := range recordings {
		if slices.ContainsFunc(recording.Measurements, func(m carnet.Measurement) bool {
			return slices.Contains([]string{"humidity", "light", "co2", "occupancy"}, m.Name)
		}) {
			r.recordings = append(r.recordings, recording)
		} else {
			w.recordings = append(w.recordings, recording)
		}
	}
	if len(r.recordings) > 0 {
		return []*sensor{w, r}
	}
	return []*sensor{w}
}

// described refuses recordings with a property that the thing they are of doesn't
// have, or has in another unit, before anything is begun.
func described(sensors []*sensor) error {
	for _, s := range sensors {
		d, err := td.Parse(s.description)
		if err != nil {
			return err
		}
		for _, r := range s.recordings {
			for _, m := range r.Measurements {
				if p, known := d.Lookup(m.Name); known {
					if err := d.Check(p, &m); err != nil && err.Code == carnet.WrongUnit {
						return err
					}
					continue
				}
				var names []string
				for _, p := range d.Properties {
					names = append(names, p.Name)
				}
				return carnet.Errorf(carnet.UnknownProperty, "the columns name %q, which the demo's %s doesn't have", m.Name, s.name).
					WithFix("it has %s; a thing of your own may have any: docs/first-thing.md", strings.Join(names, ", "))
			}
		}
	}
	return nil
}

// worlds are all worlds that things are mapped to, in the order in which they are.
var worlds = [...]carnet.PartyID{"arena", "clinic", "citadel"}

// in lists the worlds that the sensor is mapped to.
func (w *sensor) in() (all []carnet.PartyID) {
	for _, world := range worlds {
		if _, mapped := w.views[world]; mapped {
			all = append(all, world)
		}
	}
	return all
}

// add adds the sensor to the agent and maps it to the worlds.
func (w *sensor) add(ctx context.Context, hub *party, joined *sensor) error {
	added, err := hub.client.AddThing(ctx, api.NewThing{Owner: owner, Description: api.Description(w.description)})
	if err != nil {
		return fmt.Errorf("add the %s: %w", w.name, err)
	}
	if err := w.meet(hub); err != nil {
		return err
	}
	w.id, w.password = added.ID, added.Password
	for _, world := range w.in() {
		view, err := policy.ParseView([]byte(w.views[world]))
		if err != nil {
			return err
		}
		if w.mappings[world], err = w.mapTo(ctx, hub, joined, api.NewMapping{World: world, Title: titles[world][w.name], View: view}); err != nil {
			return fmt.Errorf("map the %s to %s: %w", w.name, world, err)
		}
	}
	return nil
}

// meet notes how to reach the agent.
func (w *sensor) meet(hub *party) error {
	_, port, err := net.SplitHostPort(hub.config.Listen.MQTT)
	if err != nil {
		return err
	}
	w.address, w.ca = net.JoinHostPort("localhost", port), hub.ca()
	w.mappings = make(map[carnet.PartyID]thing.MappingInfo)
	return nil
}

// titles are what people in each world call the avatars: a name that two used
// would link them.
var titles = map[carnet.PartyID]map[string]string{
	"arena":   {"watch": "runner", "room": "stadium", "headset": "player"},
	"clinic":  {"watch": "patient", "room": "ward"},
	"citadel": {"watch": "scout"},
}

// mapTo maps the sensor to a world, once the link to it is up: to the avatar of the one
// that it joins, if it does.
func (w *sensor) mapTo(ctx context.Context, hub *party, joined *sensor, n api.NewMapping) (m thing.MappingInfo, err error) {
	if joined != nil {
		there := joined.mappings[n.World].Avatar
		n.Avatar, n.Title = &there, ""
	}
	for range 200 {
		m, err = hub.client.Map(ctx, w.id, n)
		if carnet.CodeOf(err) != carnet.Unavailable {
			return m, err
		}
		select {
		case <-ctx.Done():
			return m, context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
	return m, err
}

func (w *sensor) writeAccess(f *access.File) {
	f.Things = append(f.Things, access.Thing{
		ID: w.id, Password: w.password, Party: "hub", Owner: owner,
		TopicMeasurements: thing.MeasurementsTopic(w.id), TopicRefusals: thing.RefusalsTopic(w.id),
		Encodings: []string{senml.JSON.ContentType(), senml.CBOR.ContentType(), senml.XML.ContentType()},
	})
	for _, world := range w.in() {
		m := w.mappings[world]
		f.Avatars = append(f.Avatars, access.Avatar{ID: m.Avatar, World: world, Thing: w.id, Mapping: &m.ID})
	}
}

// tls trusts what the operator of the agent gave the device.
func (w *sensor) tls() (*tls.Config, error) {
	pem, err := os.ReadFile(w.ca)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, carnet.Errorf(carnet.Malformed, "%s holds no certificate", w.ca)
	}
	return &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS12}, nil
}

// generate makes a recording, writes it as FIT and reads it back.
func generate(length time.Duration) (*file.Recording, error) {
	made := file.Generate(uint64(time.Now().UnixNano()), length, time.Now().Truncate(time.Second))
	var fit bytes.Buffer
	if err := file.WriteFIT(&fit, made); err != nil {
		return nil, err
	}
	return file.ReadFIT(&fit, "generated.fit")
}
