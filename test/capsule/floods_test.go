package capsule_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"carnet"
	"carnet/capsule"
	"carnet/test/wait"
)

// What a world sends of a job's content is on the disk as it comes, once at a time: so neither
// memory nor disk are filled by what it begins and never ends.
func TestContentIsTakenAsItComes(t *testing.T) {
	c := &clock{}
	forge, arena := newOffice(t, c, "forge"), newCustomer(t, c, "arena", 2)
	forge.opens("arena", arena.key)
	d, client := arena.draftFor(forge), forge.client("arena")
	program := append([]byte("count"), bytes.Repeat([]byte(" "), 1<<20)...)
	d.order.Task.Program = capsule.Content{Fingerprint: carnet.FingerprintOf(program), Size: int64(len(program))}
	_, err := client.Submit(t.Context(), d.order.Job, d.sign())
	must(t, err)
	body, sends := io.Pipe()
	brought := make(chan error, 1)
	go func() {
		brought <- forge.agent.PutContent(t.Context(), "arena", d.order.Job, d.order.Task.Program.Fingerprint, body)
	}()
	_, err = sends.Write(program[:1<<19])
	must(t, err)
	onDisk := func() (n int64) {
		files, err := filepath.Glob(filepath.Join(forge.dir, "jobs", "*", "*"))
		must(t, err)
		for _, f := range files {
			if info, err := os.Stat(f); err == nil {
				n += info.Size()
			}
		}
		return n
	}
	wait.Until(t, "half of it is on the disk", func() bool { return onDisk() == 1<<19 })
	codeIs(t, "the same meanwhile", client.PutContent(t.Context(), d.order.Job, program), carnet.Unavailable)
	must(t, client.PutContent(t.Context(), d.order.Job, d.contents()[1]))
	sends.CloseWithError(errors.New("the world is gone"))
	codeIs(t, "what broke off", <-brought, carnet.Unavailable)
	for what, wrong := range map[carnet.Code][]byte{carnet.Malformed: program[1:], carnet.Tampered: bytes.ToUpper(program)} {
		codeIs(t, "another content", forge.agent.PutContent(t.Context(), "arena", d.order.Job, d.order.Task.Program.Fingerprint, bytes.NewReader(wrong)), what)
	}
	if n := onDisk(); n != d.order.Task.Inputs[0].Size {
		t.Errorf("of what broke off, or isn't it, there are %d bytes with the other content", n)
	}
	// What a process was writing when it was killed goes with the next.
	jobs, err := filepath.Glob(filepath.Join(forge.dir, "jobs", "*"))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(jobs[0], ".new-123"), program, 0o600))
	forge.restart()
	if n := onDisk(); n != d.order.Task.Inputs[0].Size {
		t.Errorf("after a restart there are %d bytes with the other content", n)
	}
	// A job that ends meanwhile is told so, and not where its content was to be.
	body, sends = io.Pipe()
	go func() {
		brought <- forge.agent.PutContent(t.Context(), "arena", d.order.Job, d.order.Task.Program.Fingerprint, body)
	}()
	_, err = sends.Write(program[:1<<19])
	must(t, err)
	must(t, os.RemoveAll(jobs[0]))
	_, err = sends.Write(program[1<<19:])
	must(t, err)
	sends.Close()
	if err := <-brought; carnet.CodeOf(err) != carnet.Conflict || strings.Contains(err.Error(), forge.dir) {
		t.Errorf("content of a job that has ended meanwhile: %v", err)
	}
	must(t, os.Mkdir(jobs[0], 0o700))
	client = forge.client("arena")
	must(t, client.PutContent(t.Context(), d.order.Job, program))
	wait.Until(t, "it is ready", func() bool { return forge.agent.Counts().Ready == 1 })
}

// begun is a body that never ends; it counts those that are read.
type begun struct {
	read *atomic.Int32
	end  <-chan struct{}
	did  bool
}

func (b *begun) Read(p []byte) (int, error) {
	if !b.did {
		b.did = true
		b.read.Add(1)
		return copy(p, "{"), nil
	}
	<-b.end
	return 0, io.EOF
}

// Of one world few capsules, and other large calls, are read at once, and nobody else waits
// for them.
func TestFewLargeCallsOfAWorldAreRead(t *testing.T) {
	c := &clock{}
	forge, arena := newOffice(t, c, "forge"), newCustomer(t, c, "arena", 2)
	forge.opens("arena", arena.key)
	transport := &http.Transport{ExpectContinueTimeout: time.Minute} // what isn't read isn't sent
	defer transport.CloseIdleConnections()
	var read [2]atomic.Int32
	end := make(chan struct{})
	ended := make(chan error, 10)
	send := func(who string, read *atomic.Int32, method, path string) {
		req, err := http.NewRequestWithContext(t.Context(), method, forge.server.URL+"/r6/"+path, &begun{read: read, end: end})
		must(t, err)
		req.Header.Set("Caller", who)
		req.Header.Set("Expect", "100-continue")
		go func() {
			resp, err := transport.RoundTrip(req)
			if err == nil {
				resp.Body.Close()
			}
			ended <- err
		}()
	}
	for range 3 {
		send("arena", &read[0], "PUT", "jobs/"+carnet.NewJobID().String())
		send("arena", &read[0], "POST", "deletions")
		send("arena", &read[0], "POST", "revoked")
	}
	wait.Until(t, "four are read", func() bool { return read[0].Load() == 4 })
	send("clinic", &read[1], "PUT", "jobs/"+carnet.NewJobID().String())
	wait.Until(t, "the clinic's is read", func() bool { return read[1].Load() == 1 })
	if n := read[0].Load(); n != 4 {
		t.Errorf("of nine large calls of one world %d are read at once", n)
	}
	close(end)
	for range 10 {
		must(t, <-ended)
	}
	if n := read[0].Load(); n != 9 {
		t.Errorf("in the end %d are read", n)
	}
}
