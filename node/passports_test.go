package node

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// slowTaker takes the last of a tar when the call's time is over.
type slowTaker struct {
	bytes.Buffer
	over context.CancelFunc
	err  error
}

func (s *slowTaker) Write(b []byte) (int, error) {
	s.over()
	if s.err != nil {
		return 0, s.err
	}
	return s.Buffer.Write(b)
}

// A passport that was taken whole is noted, however long that took; one that wasn't isn't.
func TestAPassportThatWasTakenSlowlyIsNoted(t *testing.T) {
	for _, breaks := range []error{nil, errors.New("the line is cut")} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "passport.json"), []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
		ctx, over := context.WithCancel(t.Context())
		noted := false
		err := giveOut(ctx, &slowTaker{over: over, err: breaks}, dir, func(ctx context.Context) error {
			noted = true
			if end, bounded := ctx.Deadline(); !bounded || time.Until(end) > time.Minute {
				t.Errorf("to note it may take until %v, %t", end, bounded)
			}
			return ctx.Err()
		})
		if !errors.Is(err, breaks) || noted != (breaks == nil) {
			t.Errorf("a taker with %v: %v, noted %t", breaks, err, noted)
		}
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("what was given out is left: %v", err)
		}
	}
}
