package api_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"

	"carnet"
	"carnet/api"
	"carnet/engine"
	"carnet/engine/sql"
	"carnet/engine/wasm"
	"carnet/job"
	"carnet/job/thinglog"
)

// newOwnJobs is what owners have computed at hub.
func (s *served) newOwnJobs() *job.Agent {
	s.t.Helper()
	modules, err := wasm.New(s.t.TempDir())
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { modules.Close() })
	a, err := job.New(s.t.Context(), job.Config{
		Party: "hub", Key: newKey(), Purpose: "own", Owned: thinglog.Agent{Agent: s.agent}, Keys: s.pair.hub.table, Depot: onlyKeeps{}, Engines: []engine.Engine{sql.Engine{}, modules}, Log: quiet(),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	s.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			s.t.Error(err)
		}
	})
	return a
}

// ownQuery is a job of alice's over her watch.
func ownQuery() job.Spec {
	s := queryOf("", carnet.AvatarID{})
	s.Avatars, s.Owner, s.Things = nil, "alice", []carnet.ThingID{"watch-7"}
	return s
}

// ownDone has a job of alice's done at hub.
func (s *served) ownDone() job.Info {
	s.t.Helper()
	i, err := s.own.Order(s.t.Context(), ownQuery())
	if err != nil {
		s.t.Fatal(err)
	}
	s.eventually("a job is done", func() bool {
		if i, err = s.own.Job(s.t.Context(), i.ID, false); err != nil {
			s.t.Fatal(err)
		}
		return done(i)
	})
	return i
}

// ofOwnJob makes a job for an operation about one.
func (s *served) ofOwnJob(op string) (id string) {
	switch op {
	case "list-own-jobs", "run-own-job", "plan-own-job":
		s.ownDone()
		return ""
	case "cancel-own-job": // it may have ended by then, unless it takes long
		long := ownQuery()
		long.Program = []byte("WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i+1 FROM n WHERE i < 100000000) SELECT max(i) FROM n")
		i, err := s.own.Order(s.t.Context(), long)
		if err != nil {
			s.t.Fatal(err)
		}
		return i.ID.String()
	}
	return s.ownDone().ID.String()
}

// An owner's jobs are the owner's: to others they are absent, an auditor sees that there
// are some, and what came out is read by nobody else, whatever their role.
func TestJobsAreTheirOwners(t *testing.T) {
	s := newServed(t)
	d, m := s.watch("watch-7", `{"properties":{"heart_rate":{}},"purposes":["fitness"]}`)
	d.mustSend(heart(0, 72))
	d.mustSend(heart(1, 74))
	s.arrived(m.Avatar, 2)
	id := s.ownDone().ID
	path := fmt.Sprintf("%s/v1/jobs/%s", s.hubURL, id)
	body := marshal(t, api.NewJob{Engine: "sql", Program: []byte("SELECT 1"), Things: []carnet.ThingID{"watch-7"}})
	for _, v := range []struct {
		method, path, token, body string
		want                      int
	}{
		{"GET", path, "alice-token", "", 200}, {"GET", path, "bob-token", "", 404}, {"GET", path, "nameless-token", "", 404}, {"GET", path, "maker-token", "", 404},
		{"GET", path, "auditor-token", "", 200}, {"GET", path, "operator-token", "", 200}, {"GET", path, "reader-token", "", 403},
		{"GET", path + "/output", "alice-token", "", 200}, {"GET", path + "/output", "bob-token", "", 404}, {"GET", path + "/output", "operator-token", "", 403}, {"GET", path + "/output", "auditor-token", "", 403},
		{"GET", path + "/partial", "alice-token", "", 409}, {"GET", path + "/partial", "bob-token", "", 404}, {"GET", path + "/partial", "operator-token", "", 403}, {"GET", path + "/partial", "auditor-token", "", 403},
		{"GET", path + "/proof", "alice-token", "", 200}, {"GET", path + "/proof", "bob-token", "", 404},
		{"POST", path + "/repetitions", "bob-token", "{}", 404}, {"POST", path + "/repetitions", "operator-token", "{}", 403}, {"POST", path + "/repetitions", "auditor-token", "{}", 403},
		{"DELETE", path, "bob-token", "", 404}, {"DELETE", path, "auditor-token", "", 403}, {"DELETE", path, "alice-token", "", 409},
		{"POST", s.hubURL + "/v1/jobs", "alice-token", body, 201}, {"POST", s.hubURL + "/v1/jobs", "bob-token", body, 404}, {"POST", s.hubURL + "/v1/jobs", "operator-token", body, 404},
		{"POST", s.hubURL + "/v1/jobs", "nameless-token", body, 403}, {"POST", s.hubURL + "/v1/jobs", "auditor-token", body, 403}, {"POST", s.hubURL + "/v1/jobs", "reader-token", body, 403},
		{"POST", s.hubURL + "/v1/jobs/plans", "alice-token", body, 200}, {"POST", s.hubURL + "/v1/jobs/plans", "bob-token", body, 404}, {"POST", s.hubURL + "/v1/jobs/plans", "auditor-token", body, 404},
		{"POST", s.hubURL + "/v1/modules", "alice-token", "{}", 403}, {"POST", s.arenaURL + "/v1/jobs", "alice-token", body, 403}, {"GET", s.arenaURL + "/v1/jobs/" + id.String(), "alice-token", "", 404},
	} {
		if a := ask(t, v.method, v.path, v.token, v.body); a.status != v.want {
			t.Errorf("%s %s by %s is %d %s, want %d", v.method, v.path, v.token, a.status, a.body, v.want)
		}
	}
	if a := ask(t, "GET", path+"/output", "alice-token", ""); a.body != "[\"mean\"]\n[73]\n" {
		t.Errorf("the output is %q", a.body)
	}
	listed := map[string]int{}
	for token := range principals {
		if all, err := s.hub(token).Jobs(t.Context()); err == nil {
			listed[token] = len(all)
		}
	}
	if want := map[string]int{"alice-token": 2, "bob-token": 0, "nameless-token": 0, "maker-token": 0, "auditor-token": 2, "operator-token": 2}; fmt.Sprint(listed) != fmt.Sprint(want) {
		t.Errorf("jobs are listed as %v, want %v", listed, want)
	}
	s.module(s.own, "heartzones")
	if all, err := s.hub("bob-token").Modules(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("an owner sees the modules %v, %v", all, err)
	}
	if a := ask(t, "GET", s.hubURL+"/v1/modules/heartzones@1.0.0", "bob-token", ""); a.status != http.StatusOK {
		t.Errorf("an owner is shown a module: %d %s", a.status, a.body)
	}
}
