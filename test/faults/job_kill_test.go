package faults_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"carnet"
	"carnet/api"
	"carnet/capsule"
	"carnet/dpm"
	"carnet/job"
	"carnet/test/wait"
)

// workersOf lists the processes that a DPM has started.
func workersOf(t *testing.T, p *party) (pids []int) {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	parent := fmt.Sprintf(" %d ", p.process.cmd.Process.Pid)
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // it has ended meanwhile
		}
		// pid (name) state ppid …
		if _, after, ok := strings.Cut(string(stat), ") "); ok && len(after) > 2 && strings.HasPrefix(after[1:], parent) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// long is a query that puts out ten long rows, and then counts for some seconds.
func (w *works) long() api.NewJob {
	return api.NewJob{
		At: "forge", Engine: "sql", Avatars: []carnet.AvatarID{w.watch.mappings["arena"].Avatar},
		Program: []byte("WITH RECURSIVE row(i) AS (VALUES (1) UNION ALL SELECT i+1 FROM row WHERE i < 10), n(i) AS (VALUES (1) UNION ALL SELECT i+1 FROM n WHERE i < 6000000) SELECT printf('%060000d', i) FROM row UNION ALL SELECT max(i) FROM n"),
	}
}

// runs waits until an attempt of a job runs.
func (w *works) runs(j api.Job, attempt int) { w.runsFor(w.arena, j, attempt) }

func (w *works) runsFor(world *party, j api.Job, attempt int) {
	w.t.Helper()
	wait.Until(w.t, fmt.Sprintf("attempt %d runs", attempt), func() bool {
		j, err := world.client.Job(w.t.Context(), j.ID, false)
		if err != nil {
			return false // the world has just started
		}
		if j.State == job.Ended {
			w.t.Fatalf("the job has ended before attempt %d: it is %s: %s", attempt, j.Outcome, j.Why)
		}
		return j.Progress != nil && j.Progress.State == string(dpm.Leased) && j.Progress.Attempt == attempt
	})
}

// hasPart waits until the world has something of what an attempt put out, unproved.
func (w *works) hasPart(j api.Job, attempt int) {
	w.t.Helper()
	wait.Until(w.t, fmt.Sprintf("there is a part of attempt %d", attempt), func() bool {
		p, err := w.arena.client.JobPartial(w.t.Context(), j.ID)
		if err == nil && p.Parts > 0 && (p.Proved || !strings.HasPrefix(p.Why, "unproved") || !strings.HasPrefix(string(p.Output), "[")) {
			w.t.Errorf("what there is so far is %+v", p)
		}
		return err == nil && p.Attempt == attempt && p.Parts > 0
	})
}

// counted fails unless a job has counted to its end.
func (w *works) counted(j api.Job) { w.countedFor(w.arena, j) }

func (w *works) countedFor(world *party, j api.Job) {
	w.t.Helper()
	if j = w.ended(world, j); j.Outcome != capsule.Done {
		w.t.Fatalf("the job is %s: %s", j.Outcome, j.Why)
	}
	if out, err := world.client.JobOutput(w.t.Context(), j.ID); err != nil || !strings.Contains(string(out), "[6000000]") {
		w.t.Errorf("the query says %s, %v", out, err)
	}
}

// The worker that runs a job is killed (J8), then the DPM (J7, J9), then the
// world: each time the job goes on, a killed worker costs seconds, and nothing of it is
// left at the DPM.
func TestJobGoesOnAfterKills(t *testing.T) {
	t.Parallel()
	w := newWorks(t)
	w.watch.send(20)
	w.settle()

	j, err := w.arena.client.RunJob(t.Context(), w.long())
	if err != nil {
		t.Fatal(err)
	}
	w.runs(j, 1)
	w.hasPart(j, 1)
	workers := workersOf(t, w.forge)
	if len(workers) != 1 {
		t.Fatalf("the DPM has the workers %v", workers)
	}
	killed := time.Now()
	if err := syscall.Kill(workers[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	w.runs(j, 2)
	if took := time.Since(killed); took > 30*time.Second { // a lease, and some
		t.Errorf("the next attempt ran %s after the worker was killed", took)
	} else {
		t.Logf("the next attempt ran %s after the worker was killed", took)
	}
	w.hasPart(j, 2)
	w.counted(j)

	if j, err = w.arena.client.RunJob(t.Context(), w.long()); err != nil {
		t.Fatal(err)
	}
	w.runs(j, 1)
	w.forge.kill(t)
	w.forge.start(t)
	w.await(w.forge)
	w.counted(j)

	if j, err = w.arena.client.RunJob(t.Context(), w.long()); err != nil {
		t.Fatal(err)
	}
	w.runs(j, 1)
	w.arena.kill(t)
	w.arena.start(t)
	w.await(w.arena)
	w.hasPart(j, 1)
	w.counted(j)
	if left := w.sealedAt(w.forge); len(left) > 0 {
		t.Errorf("the DPM still has %s", strings.Join(left, ", "))
	}
}

// addWorker starts one more worker of a DPM, as its operator does.
func (w *works) addWorker(p *party) *exec.Cmd {
	w.t.Helper()
	worker := exec.Command(*program, "dpm", "--worker", "--config", p.file())
	worker.Stderr, worker.Stdout, worker.SysProcAttr = &p.log, &p.log, endsWithTest()
	if err := worker.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if worker.ProcessState == nil {
			worker.Process.Kill()
			worker.Wait()
		}
	})
	return worker
}

// Each process is one more worker: two jobs, of two worlds, run at the same time. One
// that is killed costs its job an attempt, and the other job nothing.
func TestMoreProcessesAreMoreWorkers(t *testing.T) {
	t.Parallel()
	w := newWorks(t)
	w.watch.send(20)
	w.settle()
	added := w.addWorker(w.forge)

	runs := func(world *party, what api.NewJob) api.Job {
		t.Helper()
		j, err := world.client.RunJob(t.Context(), what)
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
	ofClinic := w.long()
	ofClinic.Avatars = []carnet.AvatarID{w.watch.mappings["clinic"].Avatar}
	ofClinic.Properties = []string{"heart_rate"} // the clinic has places, too, which no DPM may have
	first, second := runs(w.arena, w.long()), runs(w.clinic, ofClinic)
	both := func(want ...int) bool { // their attempts
		for i, is := range []struct {
			world *party
			id    carnet.JobID
		}{{w.arena, first.ID}, {w.clinic, second.ID}} {
			j, err := is.world.client.Job(t.Context(), is.id, false)
			if err != nil {
				t.Fatal(err)
			}
			if j.State == job.Ended {
				t.Fatalf("the job of %s has ended before both ran: it is %s: %s", is.world.name, j.Outcome, j.Why)
			}
			if p := j.Progress; p == nil || p.State != string(dpm.Leased) || p.Attempt != want[i] {
				return false
			}
		}
		return true
	}
	wait.Until(t, "both run at the same time", func() bool { return both(1, 1) })
	if err := added.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	added.Wait()
	w.countedFor(w.arena, first)
	w.countedFor(w.clinic, second)
	attempts := 0
	for _, is := range []struct {
		world *party
		id    carnet.JobID
	}{{w.arena, first.ID}, {w.clinic, second.ID}} {
		proof, err := is.world.client.JobProof(t.Context(), is.id)
		if err != nil {
			t.Fatal(err)
		}
		signed, err := base64.RawURLEncoding.DecodeString(strings.Split(proof.Result, ".")[1])
		if err != nil {
			t.Fatal(err)
		}
		var r capsule.Result
		if err := json.Unmarshal(signed, &r); err != nil {
			t.Fatal(err)
		}
		attempts += r.Attempt
	}
	if attempts != 3 {
		t.Errorf("the two jobs took %d attempts, want one and two", attempts)
	}
	if workers := workersOf(t, w.forge); len(workers) != 1 {
		t.Errorf("the DPM itself has the workers %v", workers)
	}
	if left := w.sealedAt(w.forge); len(left) > 0 {
		t.Errorf("the DPM still has %s", strings.Join(left, ", "))
	}
}
