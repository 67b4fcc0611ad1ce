package faults_test

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"
)

// random draws the test's random numbers, and says from which seed.
func random(t *testing.T) *rand.Rand {
	s := *seed
	if s == 0 {
		s = rand.Uint64()
	}
	t.Logf("seed %d", s)
	return rand.New(rand.NewPCG(s, 1))
}

// TestKill kills a party at a random moment, again and again, while a watch
// publishes and publishes again what wasn't acknowledged.
func TestKill(t *testing.T) {
	t.Parallel()
	killRounds(t, newTown(t), *rounds)
}

// TestKillOnPostgres does the same to parties whose stores are on PostgreSQL, each
// once for ten rounds.
func TestKillOnPostgres(t *testing.T) {
	t.Parallel()
	killRounds(t, newTown(t, onPostgres), max(4, *rounds*4/10))
}

func killRounds(t *testing.T, v *town, rounds int) {
	r := random(t)
	w := v.addWatch()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	sent := make(chan error, 1)
	go func() { sent <- w.run(ctx, 4*time.Millisecond) }()
	var order []int
	for round := range rounds {
		if round%4 == 0 {
			order = r.Perm(4) // so that in few rounds, too, each has its turn
		}
		victim := v.parties()[order[round%4]]
		time.Sleep(time.Duration(r.IntN(1500)) * time.Millisecond) // the random moment
		victim.kill(t)
		published, acknowledged := w.count()
		time.Sleep(time.Duration(r.IntN(400)) * time.Millisecond)
		victim.start(t)
		if r.IntN(2) == 0 { // every other time the next one dies while this one starts
			v.await(victim)
		}
		t.Logf("round %d: killed %s with %d of %d messages acknowledged", round, victim.name, acknowledged, published)
	}
	stop()
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	published, acknowledged := w.count()
	if published != acknowledged || len(w.refusals) > 0 {
		t.Errorf("%d of %d messages acknowledged, refused: %v", acknowledged, published, w.refusals)
	}
	t.Logf("%d messages, %d published again", published, w.resent)
	c := v.judge(w)
	if want := measurements(w); c.logged != want {
		t.Errorf("hub's log has %d measurements, want %d", c.logged, want)
	}
}

// measurements is how many the watch had acknowledged.
func measurements(w *watch) (n int) {
	for i, pack := range w.packs {
		if w.acked[i] {
			n += len(pack)
		}
	}
	return n
}
