package faults_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"carnet"
	"carnet/api"
	"carnet/api/client"
	"carnet/identity"
	"carnet/node"
	"carnet/peering"
	"carnet/policy"
	"carnet/td"
	"carnet/test/wait"
	"carnet/thing"
)

// party is one of the town's parties, and the process that it runs as.
type party struct {
	name    carnet.PartyID
	role    identity.Role
	dir     string
	config  node.Config
	token   string // the operator's
	client  *client.Client
	roots   *x509.CertPool
	process *process
	log     capped // of all its processes

	database *database // nil: SQLite
}

func (p *party) file() string { return filepath.Join(p.dir, "carnet.toml") }
func (p *party) data() string { return filepath.Join(p.dir, "data") }

// town is the parties of a test: made and peered as their operators would, and
// all running.
type town struct {
	t                         *testing.T
	dir                       string
	vault, arena, clinic, hub *party
}

// newTown makes a town and starts it. stores says where parties have their stores.
func newTown(t *testing.T, stores ...func(*testing.T, *party)) *town {
	v := makeTown(t, t.TempDir(), stores...)
	for _, p := range v.parties() {
		p.start(t)
	}
	for _, p := range v.parties() {
		v.await(p)
	}
	return v
}

// makeTown makes the parties' files.
func makeTown(t *testing.T, dir string, stores ...func(*testing.T, *party)) *town {
	t.Helper()
	world := func(purpose, sensitivity string) node.WorldConfig {
		return node.WorldConfig{Purpose: purpose, Sensitivity: sensitivity, CompactEvery: node.Duration(2 * time.Second)}
	}
	v := &town{
		t: t, dir: dir,
		vault:  &party{name: "vault", role: identity.Depot},
		arena:  &party{name: "arena", role: identity.World, config: node.Config{World: world("fitness", "personal+health")}},
		clinic: &party{name: "clinic", role: identity.World, config: node.Config{World: world("care", "personal+health+location")}},
		hub:    &party{name: "hub", role: identity.Things},
	}
	for _, p := range v.parties() {
		p.config.Store.Kind = "sqlite"
		for _, store := range stores {
			store(t, p)
		}
		v.make(p)
	}
	for _, pair := range [][2]*party{{v.hub, v.arena}, {v.hub, v.clinic}, {v.hub, v.vault}, {v.arena, v.vault}, {v.clinic, v.vault}} {
		v.peer(pair[0], pair[1])
	}
	t.Cleanup(v.killAll)
	return v
}

func (v *town) parties() []*party { return []*party{v.vault, v.arena, v.clinic, v.hub} }
func (v *town) worlds() []*party  { return []*party{v.arena, v.clinic} }

// killAll is the end of a test; when it failed, the logs are shown.
func (v *town) killAll() {
	for _, p := range v.parties() {
		v.showEnd(p)
	}
}

func (v *town) showEnd(p *party) {
	if p.running() {
		p.kill(v.t)
	}
	if v.t.Failed() {
		log := p.log.String()
		v.t.Logf("the end of the log of %s:\n%s", p.name, log[max(0, len(log)-4000):])
	}
}

func (v *town) make(p *party) {
	v.t.Helper()
	ctx := v.t.Context()
	p.dir = filepath.Join(v.dir, string(p.name))
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		v.t.Fatal(err)
	}
	c := &p.config
	c.Party, c.Role, c.Data, c.KeyFile = p.name, p.role, "data", "kek"
	c.Listen.HTTP = freeAddress(v.t)
	*map[identity.Role]*string{identity.Depot: &c.Listen.R2, identity.World: &c.Listen.Link, identity.Things: &c.Listen.MQTT, identity.DPM: &c.Listen.R6}[p.role] = freeAddress(v.t)
	var kept node.Token
	p.token, kept = node.NewToken("operator", "administrator")
	c.Tokens = []node.Token{kept}
	if err := node.Init(ctx, p.file(), *c); err != nil {
		v.t.Fatal(err)
	}
	v.know(p)
}

// know reads what the party's operator knows: how to reach it.
func (v *town) know(p *party) {
	v.t.Helper()
	var err error
	if p.config, err = node.ReadConfig(p.file()); err != nil {
		v.t.Fatal(err)
	}
	ca := filepath.Join(p.dir, "ca.pem")
	if _, err := os.Stat(ca); err != nil {
		if err := node.WriteCA(v.t.Context(), p.config, ca); err != nil {
			v.t.Fatal(err)
		}
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		v.t.Fatal(err)
	}
	p.roots = x509.NewCertPool()
	p.roots.AppendCertsFromPEM(pem)
	p.client = &client.Client{
		Base: "https://" + p.config.Listen.HTTP, Token: p.token,
		HTTP: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: p.tls()}},
	}
}

func (p *party) tls() *tls.Config {
	return &tls.Config{RootCAs: p.roots, ServerName: "localhost", MinVersion: tls.VersionTLS12}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	address, err := node.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	return address
}

// peer makes two parties peers, of which the second is a world or a depot.
func (v *town) peer(a, b *party) {
	v.t.Helper()
	o := peering.Offer{Scope: []peering.Scope{peering.R2}}
	if b.role == identity.World {
		var err error
		if o, err = b.config.Offers(peering.R1); err != nil {
			v.t.Fatal(err)
		}
	}
	i := node.Introduction{Inviter: a.config, Accepter: b.config, Calls: b.name, Offer: o}
	if err := node.Introduce(v.t.Context(), i, slog.New(slog.DiscardHandler)); err != nil {
		v.t.Fatal(err)
	}
}

// await waits until the party answers.
func (v *town) await(p *party) {
	v.t.Helper()
	wait.Until(v.t, fmt.Sprintf("%s answers", p.name), func() bool {
		if !p.running() {
			v.t.Fatalf("%s ended with %d when started:\n%s", p.name, p.process.cmd.ProcessState.ExitCode(), &p.log)
		}
		return p.client.Healthy(v.t.Context()) == nil
	})
}

// restart starts a party that has ended.
func (v *town) restart(p *party, by ...string) {
	v.t.Helper()
	if p.running() {
		v.t.Fatalf("%s runs", p.name)
	}
	p.start(v.t, by...)
	v.await(p)
}

// views are what each world gets of a watch.
var views = map[carnet.PartyID]string{
	"arena":  `{"properties": {"heart_rate": {"round": 5, "rate": "1s"}, "speed": {"rate": "1s"}}, "purposes": ["fitness"]}`,
	"clinic": `{"properties": {"heart_rate": {}, "stress": {}, "position": {"precision_m": 1000}}, "purposes": ["care"]}`,
}

// owner is a name that is found nowhere by chance.
const owner = "Wilhelmina-Zweistein"

// addWatch adds a watch and maps it to both worlds.
func (v *town) addWatch() *watch {
	v.t.Helper()
	return v.addWatchFor(views)
}

// addWatchFor adds a watch of which each world gets such a view.
func (v *town) addWatchFor(views map[carnet.PartyID]string) *watch {
	v.t.Helper()
	return v.addDescribed(string(td.Watch()), views)
}

// addDescribed adds a watch with a description, and maps it to the worlds that
// have a view.
func (v *town) addDescribed(description string, views map[carnet.PartyID]string) *watch {
	v.t.Helper()
	ctx := v.t.Context()
	added, err := v.hub.client.AddThing(ctx, api.NewThing{Owner: owner, Description: api.Description(description)})
	if err != nil {
		v.t.Fatalf("add a watch: %v", err)
	}
	w := &watch{town: v, id: added.ID, password: added.Password, mappings: make(map[carnet.PartyID]thing.MappingInfo)}
	for _, world := range v.worlds() {
		if view := views[world.name]; view != "" {
			w.mappings[world.name] = w.mapTo(ctx, world.name, view)
		}
	}
	return w
}

// mapTo maps the watch to a world as soon as the link is up.
func (w *watch) mapTo(ctx context.Context, world carnet.PartyID, document string) (m thing.MappingInfo) {
	w.town.t.Helper()
	view, err := policy.ParseView([]byte(document))
	if err != nil {
		w.town.t.Fatal(err)
	}
	wait.Until(w.town.t, fmt.Sprintf("the watch is mapped to %s", world), func() bool {
		m, err = w.town.hub.client.Map(ctx, w.id, api.NewMapping{World: world, Title: "runner", View: view})
		if err != nil && carnet.CodeOf(err) != carnet.Unavailable {
			w.town.t.Fatalf("map the watch to %s: %v", world, err)
		}
		return err == nil
	})
	return m
}

// settle waits until everything has been passed on: frames acknowledged by the
// worlds, statements in the ledger.
func (v *town) settle() {
	v.t.Helper()
	why := ""
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if why = v.unsettled(); why == "" {
			return
		}
		if time.Now().After(end) {
			v.t.Fatalf("not settled within 30 s: %s", why)
		}
	}
}

func (v *town) unsettled() string {
	for _, p := range []*party{v.hub, v.arena, v.clinic} {
		st, err := p.client.Status(v.t.Context())
		switch {
		case err != nil:
			return fmt.Sprintf("%s: %v", p.name, err)
		case st.Things != nil:
			for _, l := range st.Things.Links {
				if l.Lag > 0 || l.Waiting > 0 || !l.Up {
					return fmt.Sprintf("the link to %s: %+v", l.World, l)
				}
			}
			if st.Things.Receipts < st.Things.Statements {
				return fmt.Sprintf("hub has %d receipts of %d", st.Things.Receipts, st.Things.Statements)
			}
		case st.World.Receipts < st.World.Statements:
			return fmt.Sprintf("%s has %d receipts of %d", p.name, st.World.Receipts, st.World.Statements)
		}
	}
	return ""
}
