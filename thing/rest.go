package thing

import (
	"context"
	"encoding/binary"
	"time"

	"carnet"
	"carnet/keys"
)

// What rests in the agent's store is sealed: messages under their thing's key of
// the day, everything else under the agent's one key for its documents. The
// associated data says where a value belongs.

var (
	restKey      = keys.ID{Kind: "rest", Name: "things"}
	statementAAD = []byte("statement")
	saltAAD      = []byte("salt")
)

func documentAAD(kind, id string) []byte { return []byte("document " + kind + " " + id) }

func stateAAD(link carnet.PartyID, number uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte("sent "+string(link)+" "), number)
}

func snapshotAAD(link carnet.PartyID, number uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte("snapshot "+string(link)+" "), number)
}

func refusalAAD(thing carnet.ThingID) []byte { return []byte("refusal " + string(thing)) }

// restSealer opens the agent's sealer, and makes its key at the first start.
func restSealer(ctx context.Context, table *keys.Table) (*keys.Sealer, error) {
	s, err := table.Sealer(ctx, restKey)
	if carnet.CodeOf(err) != carnet.NotFound {
		return s, err
	}
	if _, err := table.Make(ctx, restKey); err != nil {
		return nil, err
	}
	return table.Sealer(ctx, restKey)
}

const nanosPerDay = int64(24 * time.Hour)

func dayOf(t int64) uint32  { return uint32(t / nanosPerDay) }
func hourOf(t int64) uint32 { return uint32(t / int64(time.Hour)) }
