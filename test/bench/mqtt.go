package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"carnet"
	"carnet/node"
	"carnet/td"
)

// The demo's views of the watch.
var watchViews = map[carnet.PartyID]string{
	"arena":  `{"properties": {"heart_rate": {"round": 5, "rate": "1s"}, "speed": {"rate": "1s"}}, "purposes": ["fitness"]}`,
	"clinic": `{"properties": {"heart_rate": {}, "stress": {}, "position": {"precision_m": 1000}}, "purposes": ["care"]}`,
}

func wide(ctx context.Context, b *bench) ([]Figure, error) {
	f, err := against(ctx, b, "row1", 64, 16)
	if err != nil {
		return nil, err
	}
	f.Row, f.Name, f.Goal = 1, "MQTT QoS 1 TLS 64×16", 3
	return []Figure{f}, nil
}

func many(ctx context.Context, b *bench) ([]Figure, error) {
	f, err := against(ctx, b, "row2", 1000, 1)
	if err != nil {
		return nil, err
	}
	f.Row, f.Name, f.Goal = 2, "MQTT QoS 1 TLS 1,000×1", 1
	f.Note += " There is no plain figure: the program offers MQTT over TLS alone."
	return []Figure{f}, nil
}

// heartRate is one measurement a message, a second after the one before. Every
// message is as long as the others.
func heartRate(now time.Time) func([]byte, int64) []byte {
	from := now.Add(-29 * 24 * time.Hour).Unix()
	return func(dst []byte, n int64) []byte {
		dst = append(dst, `[{"n":"heart_rate","u":"beat/min","v":`...)
		dst = strconv.AppendInt(dst, 100+n%90, 10)
		dst = append(dst, `,"t":`...)
		dst = strconv.AppendInt(dst, from+n, 10)
		return append(dst, `}]`...)
	}
}

// against loads hub and Mosquitto in turn, twice.
func against(ctx context.Context, b *bench, name string, connections, window int) (f Figure, err error) {
	s, err := b.start(ctx, name, "arena", "clinic")
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	devices, err := s.add(ctx, connections, string(td.Watch()), watchViews)
	if err != nil {
		return f, err
	}
	broker, err := startMosquitto(b, name)
	if err != nil {
		return f, err
	}
	defer broker.stop()
	ours := load{
		address: s.hub.config.Listen.MQTT, tls: s.hub.trust, devices: devices, window: window, message: heartRate(time.Now()),
		warm: time.Second, measure: 6 * time.Second, from: make([]int64, connections),
	}
	if b.short {
		ours.measure = 3 * time.Second
	}
	// The first message of a thing, and of a stream, makes keys: not in the figure.
	first := ours
	first.warm, first.measure = 0, 0
	p, err := first.run(ctx)
	if err != nil {
		return f, err
	}
	if err := s.settle(ctx, time.Minute); err != nil {
		return f, err
	}
	theirs := ours
	theirs.address, theirs.tls, theirs.from = broker.address, broker.trust, make([]int64, connections)
	f = Figure{Unit: "messages/s", Raw: map[string]float64{"first message of each thing until the worlds have it, s": time.Since(p.begun).Seconds()}, Note: "hub passes everything on to arena and clinic meanwhile; Mosquitto stores nothing and has no subscriber."}
	var carnet, mosquitto []float64
	for round := range 2 {
		before := s.used()
		if p, err = ours.run(ctx); err != nil {
			return f, fmt.Errorf("load hub: %w", err)
		}
		carnet = append(carnet, p.rate)
		f.record(fmt.Sprintf("%d hub", round+1), p)
		for party, used := range s.used() {
			f.Raw[fmt.Sprintf("%d hub, CPU of %s, s", round+1, party)] = (used - before[party]).Seconds()
		}
		behind := time.Now()
		if err := s.settle(ctx, 3*time.Minute); err != nil {
			return f, err
		}
		f.Raw[fmt.Sprintf("%d hub, worlds behind, s", round+1)] = time.Since(behind).Seconds()
		used := cpuTime(broker.cmd.Process.Pid)
		if p, err = theirs.run(ctx); err != nil {
			return f, fmt.Errorf("load mosquitto: %w", err)
		}
		mosquitto = append(mosquitto, p.rate)
		f.record(fmt.Sprintf("%d mosquitto", round+1), p)
		f.Raw[fmt.Sprintf("%d mosquitto, CPU of it, s", round+1)] = (cpuTime(broker.cmd.Process.Pid) - used).Seconds()
	}
	f.Value, f.Peer = middle(carnet), middle(mosquitto)
	f.Ratio = f.Value / f.Peer
	// The clinic's view admits every measurement of the load.
	var sent uint64
	for _, n := range ours.from {
		sent += uint64(n)
	}
	st, err := s.worlds[1].client.Status(ctx)
	if err == nil && st.World.Measurements != sent {
		err = fmt.Errorf("clinic has %d measurements of %d that were acknowledged", st.World.Measurements, sent)
	}
	return f, err
}

// record keeps the raw numbers of one load.
func (f *Figure) record(of string, p pace) {
	f.Raw[of+", messages/s"] = p.rate
	f.Raw[of+", p50 ms"] = float64(p.p50.Microseconds()) / 1000
	f.Raw[of+", p99 ms"] = float64(p.p99.Microseconds()) / 1000
	f.Raw[of+", CPU of the load, s"] = p.generators.Seconds()
}

// broker is a Mosquitto with TLS and without persistence.
type broker struct {
	address string
	trust   *tls.Config
	cmd     *exec.Cmd
}

func mosquittoPath() (string, error) {
	if path, err := exec.LookPath("mosquitto"); err == nil {
		return path, nil
	}
	// Debian has it where only root's PATH leads.
	const sbin = "/usr/sbin/mosquitto"
	if _, err := os.Stat(sbin); err != nil {
		return "", errors.New("there is no mosquitto here: install the Debian package mosquitto")
	}
	return sbin, nil
}

func startMosquitto(b *bench, row string) (*broker, error) {
	path, err := mosquittoPath()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(b.dir, row, "mosquitto")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	m := &broker{}
	if m.trust, err = certify(dir); err != nil {
		return nil, err
	}
	if m.address, err = node.FreeAddress(); err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(m.address)
	conf := filepath.Join(dir, "conf")
	text := fmt.Sprintf("listener %s 127.0.0.1\nallow_anonymous true\npersistence false\nlog_type none\nmax_inflight_messages 0\nuser %s\ncertfile %s\nkeyfile %s\n",
		port, userName(), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return nil, err
	}
	m.cmd = exec.Command(path, "-c", conf)
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
	if err := m.cmd.Start(); err != nil {
		return nil, err
	}
	for range 200 {
		if c, err := net.Dial("tcp", m.address); err == nil {
			return m, c.Close()
		}
		time.Sleep(20 * time.Millisecond)
	}
	m.stop()
	return nil, errors.New("mosquitto does not listen")
}

func (m *broker) stop() {
	m.cmd.Process.Signal(syscall.SIGTERM)
	m.cmd.Wait() // how it ended says nothing about the figure
}

// userName is whom Mosquitto is to run as: not another one, whom the files
// aren't for.
func userName() string {
	if name := os.Getenv("USER"); name != "" {
		return name
	}
	return "root"
}

// certify makes a certificate for localhost of the kind that parties have.
func certify(dir string) (*tls.Config, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	cert := filepath.Join(dir, "cert.pem")
	err = errors.Join(
		os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
		os.WriteFile(filepath.Join(dir, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600),
	)
	if err != nil {
		return nil, err
	}
	return trust(cert)
}
