package mqtt

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"carnet"
	"carnet/wire/mqtt/client"
	"carnet/wire/mqtt/packet"
)

// TestMosquittoClients speaks to the command-line clients that a user has.
func TestMosquittoClients(t *testing.T) {
	pub, sub := tool(t, "mosquitto_pub"), tool(t, "mosquitto_sub")
	cert := newCertificate(t)
	for _, version := range []string{"mqttv311", "mqttv5"} {
		t.Run(version, func(t *testing.T) {
			h := newHub()
			h.outboxes = make(chan Outbox, 8)
			h.publish = func(d *watch, m Message, sink Sink, token uint64) {
				if string(m.Topic) != "things/"+d.id+"/measurements" {
					sink.Done(token, Refused(carnet.Errorf(carnet.Forbidden, "another thing's topic")))
					return
				}
				h.hold(m, sink, token)
			}
			_, addr := serve(t, Config{TLS: cert.server, Backend: h})
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			go h.commits(ctx, 0)
			command := func(path, password string, args ...string) *exec.Cmd {
				_, port, _ := net.SplitHostPort(addr)
				args = append([]string{"-V", version, "-h", "127.0.0.1", "-p", port, "--cafile", cert.cert,
					"-u", "watch-1", "-P", password, "-q", "1"}, args...)
				return exec.CommandContext(ctx, path, args...)
			}

			many := command(pub, "1-hctaw", "-i", "many", "-t", "things/watch-1/measurements", "-l")
			var lines strings.Builder
			for i := range 200 {
				fmt.Fprintln(&lines, "measurement", i)
			}
			many.Stdin = strings.NewReader(lines.String())
			if out, err := many.CombinedOutput(); err != nil {
				t.Fatalf("mosquitto_pub: %v: %s", err, out)
			}
			h.mu.Lock()
			got := slices.Clone(h.messages)
			h.mu.Unlock()
			if len(got) != 200 || got[0] != "measurement 0" || got[199] != "measurement 199" {
				t.Errorf("%d messages arrived, want 200 in order", len(got))
			}

			if out, err := command(pub, "wrong", "-t", "x", "-m", "x").CombinedOutput(); err == nil {
				t.Errorf("a wrong password is accepted: %s", out)
			}
			out, err := command(pub, "1-hctaw", "-d", "-t", "things/watch-2/measurements", "-m", "x").CombinedOutput()
			if refused := "(Mid: 1, RC:135)"; version == "mqttv5" && !strings.Contains(string(out), refused) || err != nil {
				t.Errorf("another thing's topic: %v: %s", err, out)
			}
			hears(t, h, command(sub, "1-hctaw", "-i", "listens", "-t", "things/watch-1/refusals", "-C", "1"))
		})
	}
}

// hears runs a subscriber to the end of one message.
func hears(t *testing.T, h *hub, cmd *exec.Cmd) {
	t.Helper()
	for len(h.outboxes) > 0 {
		<-h.outboxes
	}
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	out := <-h.outboxes
	for !out.Send("things/watch-1/refusals", "text/plain", []byte("heart_rate is 900")) {
		time.Sleep(time.Millisecond) // until it has subscribed
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	must(t, err)
	if line != "heart_rate is 900\n" {
		t.Errorf("mosquitto_sub heard %q", line)
	}
	must(t, cmd.Wait())
}

// TestOwnClient runs the device client against the server over TLS.
func TestOwnClient(t *testing.T) {
	eachVersion(t, func(t *testing.T, v packet.Version) {
		cert := newCertificate(t)
		h := newHub()
		h.publish = func(_ *watch, m Message, sink Sink, token uint64) {
			if string(m.Payload) == "bad" {
				sink.Done(token, Refused(carnet.Errorf(carnet.Malformed, "not SenML")))
				return
			}
			h.hold(m, sink, token)
		}
		s, addr := serve(t, Config{TLS: cert.server, Backend: h})
		go h.commits(t.Context(), 0)
		c, err := client.Dial(t.Context(), client.Config{
			Address: addr, TLS: cert.client, Version: v, User: "watch-1", Password: []byte("1-hctaw"), InFlight: 100,
		})
		must(t, err)
		for i := range 500 {
			payload := "good"
			if i%10 == 0 {
				payload = "bad"
			}
			must(t, c.Publish(client.Message{Topic: "things/watch-1/measurements", Payload: []byte(payload), QoS: 1}))
		}
		must(t, c.Drain(t.Context()))
		want := client.Stats{Published: 500, Acknowledged: 500} // 3.1.1 cannot say that a message is refused
		if v == packet.V5 {
			want.Acknowledged, want.Refused = 450, map[packet.Reason]int64{packet.PayloadFormatInvalid: 50}
		}
		if got := c.Stats(); !reflect.DeepEqual(got, want) {
			t.Errorf("client counts %+v, want %+v", got, want)
		}
		if st := s.Stats(); st.Received != 500 || st.Acknowledged != 500 || st.Refused != 50 {
			t.Errorf("server counts %+v", st)
		}
		must(t, c.Close())
	})
}
