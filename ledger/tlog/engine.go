package tlog

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/klog/v2"
)

// The engine logs through klog, which is one per process and must be set before
// anything logs; so the first ledger's logger gets it all.
var quieted sync.Once

// quietEngine lets only the engine's errors through.
func quietEngine(logger *slog.Logger) {
	quieted.Do(func() { klog.SetSlogLogger(slog.New(&errorsOnly{Handler: logger.Handler()})) })
}

// errorsOnly drops everything below an error, but for why no checkpoint is published: the
// engine tries that again ten times a second, and warns each time.
type errorsOnly struct {
	slog.Handler
	said atomic.Int64 // when it let a warning through
}

// eachWarning is how often a warning is let through.
const eachWarning = 10 * time.Second

// Enabled lets what may be a warning come: klog hands it on as less.
func (h *errorsOnly) Enabled(ctx context.Context, _ slog.Level) bool {
	return h.Handler.Enabled(ctx, slog.LevelError)
}

func (h *errorsOnly) Handle(ctx context.Context, r slog.Record) error {
	if r.Level < slog.LevelError {
		now, said := time.Now().UnixNano(), h.said.Load()
		if !strings.HasPrefix(r.Message, "publishCheckpoint: ") || said != 0 && now-said < int64(eachWarning) || !h.said.CompareAndSwap(said, now) || !h.Handler.Enabled(ctx, slog.LevelWarn) {
			return nil
		}
		r.Level = slog.LevelWarn
	}
	return h.Handler.Handle(ctx, r)
}
