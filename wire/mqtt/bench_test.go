package mqtt

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"carnet/wire/mqtt/client"
	"carnet/wire/mqtt/packet"
)

// loads are the shapes of load that are measured.
var loads = []struct{ conns, window int }{{64, 16}, {1000, 1}}

// commitPause stands for the fsync of a commit group.
const commitPause = 300 * time.Microsecond

func BenchmarkPublish(b *testing.B) {
	for _, plain := range []bool{false, true} {
		for _, l := range loads {
			b.Run(name(plain, l.conns, l.window), func(b *testing.B) {
				cert := newCertificate(b)
				h := newHub()
				cfg := Config{TLS: cert.server, Backend: h}
				clientTLS := cert.client
				if plain {
					cfg.TLS, clientTLS = nil, nil
				}
				s, addr := serve(b, cfg)
				ctx, cancel := context.WithCancel(b.Context())
				defer cancel()
				go h.commits(ctx, commitPause)
				publishAll(b, addr, clientTLS, l.conns, l.window)
				st := s.Stats()
				b.ReportMetric(float64(st.Acknowledged)/float64(st.Writes), "acks/write")
			})
		}
	}
}

// BenchmarkMosquitto is the same load on a broker that acknowledges without
// storing anything.
func BenchmarkMosquitto(b *testing.B) {
	for _, plain := range []bool{false, true} {
		for _, l := range loads {
			b.Run(name(plain, l.conns, l.window), func(b *testing.B) {
				addr, clientTLS := mosquitto(b, plain)
				publishAll(b, addr, clientTLS, l.conns, l.window)
			})
		}
	}
}

func name(plain bool, conns, window int) string {
	if plain {
		return fmt.Sprintf("plain/%dx%d", conns, window)
	}
	return fmt.Sprintf("tls/%dx%d", conns, window)
}

// publishAll publishes b.N messages over conns connections with window in
// flight on each, and reports the rate.
func publishAll(b *testing.B, addr string, config *tls.Config, conns, window int) {
	var left atomic.Int64
	payload := []byte(`[{"bn":"","n":"heart_rate","u":"beat/min","v":72.5,"t":1763841451.125}]    `)
	clients := make([]*client.Client, conns)
	sessions := make([]func() bool, conns)
	drained := make(chan struct{}, conns)
	var dialing sync.WaitGroup
	slots := make(chan struct{}, 32)
	for i := range clients {
		user := fmt.Sprintf("watch-%04d", i)
		m := client.Message{Topic: "things/" + user + "/measurements", Payload: payload, QoS: 1}
		var flying atomic.Int64
		flying.Store(int64(window))
		next := func() bool { // one more, or one fewer in flight
			if left.Add(-1) >= 0 {
				return clients[i].Publish(m) == nil
			}
			if flying.Add(-1) == 0 {
				drained <- struct{}{}
			}
			return false
		}
		sessions[i] = next
		cfg := client.Config{
			Address: addr, TLS: config, ClientID: user, User: user, Password: []byte(backwards(user)),
			InFlight: window, Version: packet.V311, KeepAlive: time.Hour,
			Acknowledged: func(client.Ack) { next() },
		}
		dialing.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			var err error
			if clients[i], err = client.Dial(b.Context(), cfg); err != nil {
				b.Error(err)
			}
		})
	}
	dialing.Wait()
	if b.Failed() {
		b.FailNow()
	}
	defer func() {
		for _, c := range clients {
			c.Close()
		}
	}()
	left.Store(int64(b.N))
	b.ReportAllocs()
	b.ResetTimer()
	cpu := cpuTime(b)
	for i := range clients {
		go func() {
			for range window {
				sessions[i]()
			}
			clients[i].Flush()
		}()
	}
	for range clients {
		<-drained
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
	b.ReportMetric(float64(cpuTime(b)-cpu)/float64(b.N), "cpu-ns/msg")
}

// cpuTime is the processor time of this process: the load's own, and the
// server's where it is in the same process. A busy machine disturbs it less
// than the clock.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	must(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// tool finds a program that a test needs, or skips the test.
func tool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil && name == "mosquitto" {
		path, err = exec.LookPath("/usr/sbin/mosquitto")
	}
	if err == nil {
		return path
	}
	if os.Getenv("CARNET_REQUIRE_TOOLS") == "1" {
		t.Fatalf("%s is needed: install Mosquitto and its clients", name)
	}
	t.Skipf("%s not found; Debian packages mosquitto and mosquitto-clients have it", name)
	return ""
}

// mosquitto runs a broker without persistence for as long as the benchmark.
func mosquitto(b *testing.B, plain bool) (addr string, clientTLS *tls.Config) {
	path := tool(b, "mosquitto")
	cert := newCertificate(b)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(b, err)
	addr = ln.Addr().String()
	ln.Close()
	conf := fmt.Sprintf("listener %d 127.0.0.1\nallow_anonymous true\npersistence false\nlog_type none\nmax_inflight_messages 0\nuser root\n", ln.Addr().(*net.TCPAddr).Port)
	if !plain {
		conf += fmt.Sprintf("cafile %s\ncertfile %s\nkeyfile %s\n", cert.cert, cert.cert, cert.key)
		clientTLS = cert.client
	}
	file := filepath.Join(b.TempDir(), "mosquitto.conf")
	must(b, os.WriteFile(file, []byte(conf), 0o644))
	cmd := exec.Command(path, "-c", file)
	must(b, cmd.Start())
	b.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for range 200 {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			return addr, clientTLS
		}
		time.Sleep(10 * time.Millisecond)
	}
	b.Fatal("mosquitto does not listen")
	return "", nil
}

// BenchmarkSession is what the server itself does for one message: parse, hand
// over, take the outcome, make the acknowledgement; without a connection.
func BenchmarkSession(b *testing.B) {
	for _, v := range versions {
		b.Run(fmt.Sprintf("v%d", v), func(b *testing.B) {
			h := newHub()
			var sink Sink
			var tokens []uint64
			h.publish = func(_ *watch, _ Message, s Sink, token uint64) { sink, tokens = s, append(tokens, token) }
			s := detached(b, v, h)
			p := packet.Publish{Topic: []byte("things/watch-0001/measurements"), Payload: make([]byte, 80), QoS: 1, ID: 9}
			if v == packet.V5 {
				p.Properties.SetBytes(packet.ContentType, []byte("application/senml+json"))
			}
			many := bytes.Repeat(p.Append(nil, v), 16)
			b.ReportAllocs()
			for i := 0; i < b.N; i += 16 {
				s.buf, s.from, s.to = many, 0, len(many)
				if err := s.packets(); err != nil {
					b.Fatal(err)
				}
				for _, token := range tokens {
					sink.Done(token, Stored())
				}
				tokens = tokens[:0]
				s.scratch = s.flush(s.scratch)
			}
		})
	}
}
