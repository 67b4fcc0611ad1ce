package postgres

import (
	"context"
	"fmt"
	"sync"
	"time"

	"carnet"

	"github.com/jackc/pgx/v5"
)

// Presence is a process's place among those that have a schema open: an advisory lock,
// shared, on a connection of its own. It says who else is there; what keeps them apart if
// the connection is lost for a moment is each domain's own.
type Presence struct {
	db   *DB
	stop context.CancelFunc
	done chan struct{}

	mu   sync.Mutex
	conn *pgx.Conn // nil: lost
}

// presenceCheck is how often the connection is looked at.
const presenceCheck = 5 * time.Second

// Enter takes a place, which holds until it is left. It is refused while another has the
// schema alone.
func (db *DB) Enter(ctx context.Context) (*Presence, error) {
	run, stop := context.WithCancel(context.Background())
	p := &Presence{db: db, stop: stop, done: make(chan struct{})}
	if err := p.connect(ctx); err != nil {
		stop()
		return nil, err
	}
	go p.keep(run)
	return p, nil
}

// connect takes the shared lock, on a new connection if there is none. The caller holds mu,
// or is the first.
func (p *Presence) connect(ctx context.Context) error {
	if p.conn != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, p.db.patience)
	defer cancel()
	cfg := p.db.pool.Config().ConnConfig.Copy()
	// A machine that is lost doesn't keep its lock for as long as a connection lasts.
	for name, value := range map[string]string{"tcp_keepalives_idle": "10", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "3"} {
		cfg.RuntimeParams[name] = value
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return fmt.Errorf("enter store: %w", classify(err))
	}
	taken, err := p.ask(ctx, conn, `SELECT pg_try_advisory_lock_shared(hashtext('carnet presence'), hashtext($1))`)
	if err == nil && !taken {
		err = carnet.Errorf(carnet.Unavailable, "another process has the key table alone: it rotates the party's key").WithFix("try again when that is over")
	}
	if err != nil {
		conn.Close(context.WithoutCancel(ctx))
		return fmt.Errorf("enter store: %w", err)
	}
	p.conn = conn
	return nil
}

func (p *Presence) ask(ctx context.Context, conn *pgx.Conn, query string) (yes bool, err error) {
	if err := conn.QueryRow(ctx, query, p.db.schema).Scan(&yes); err != nil {
		return false, classify(err)
	}
	return yes, nil
}

// keep makes a lost connection anew.
func (p *Presence) keep(ctx context.Context) {
	defer close(p.done)
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			return
		case <-time.After(presenceCheck):
		}
		p.look(ctx)
	}
}

func (p *Presence) look(ctx context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.check(ctx)
	_ = p.connect(ctx) // it is tried again
}

// check gives a connection up that doesn't answer. The caller holds mu.
func (p *Presence) check(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, p.db.patience)
	defer cancel()
	if p.conn != nil && p.conn.Ping(ctx) != nil {
		p.lose()
	}
}

// lose gives a connection up, with its locks. The caller holds mu.
func (p *Presence) lose() {
	ending, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	p.conn.Close(ending)
	p.conn = nil
}

// Alone has nobody else enter until it is released, and is refused while somebody else is
// there.
func (p *Presence) Alone(ctx context.Context) (release func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, p.db.patience)
	defer cancel()
	p.check(ctx)
	if err := p.connect(ctx); err != nil {
		return nil, err
	}
	taken, err := p.ask(ctx, p.conn, `SELECT pg_try_advisory_lock(hashtext('carnet presence'), hashtext($1))`)
	if err != nil {
		p.lose()
		return nil, fmt.Errorf("have the store alone: %w", err)
	}
	if !taken {
		return nil, carnet.Errorf(carnet.Conflict, "another process has the key table open, and would miss that its key is another").
			WithFix("stop every other process of this party, on whatever machine, and try again")
	}
	return p.share, nil
}

// share has others enter again.
func (p *Presence) share() {
	p.mu.Lock()
	defer p.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), p.db.patience)
	defer cancel()
	if p.conn == nil {
		return // the lock went with the connection
	}
	if _, err := p.ask(ctx, p.conn, `SELECT pg_advisory_unlock(hashtext('carnet presence'), hashtext($1))`); err != nil {
		p.lose()
	}
}

// Leave gives the place up.
func (p *Presence) Leave() {
	p.stop()
	<-p.done
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn != nil {
		p.lose()
	}
}
