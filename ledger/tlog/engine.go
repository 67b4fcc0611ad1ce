package tlog

import (
	"context"
	"log/slog"
	"sync"

	"k8s.io/klog/v2"
)

// The engine logs through klog, which is one per process and must be set before
// anything logs; so the first ledger's logger gets it all.
var quieted sync.Once

// quietEngine lets only the engine's errors through.
func quietEngine(logger *slog.Logger) {
	quieted.Do(func() { klog.SetSlogLogger(slog.New(errorsOnly{logger.Handler()})) })
}

// errorsOnly drops everything below an error.
type errorsOnly struct{ slog.Handler }

func (h errorsOnly) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelError && h.Handler.Enabled(ctx, level)
}
