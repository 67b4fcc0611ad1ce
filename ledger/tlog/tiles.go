package tlog

import (
	"context"
	"fmt"
	"sync"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/api"
	"github.com/transparency-dev/tessera/api/layout"
	"github.com/transparency-dev/tessera/client"
)

// maxTiles bounds the cache: 8 KiB of hashes a tile, and as many again inside.
const maxTiles = 512

// tileCache keeps the nodes of tiles in memory. Tiles only grow, so a tile that
// holds enough leaves for a tree serves every smaller tree too.
type tileCache struct {
	fetch client.TileFetcherFunc

	mu    sync.Mutex
	tiles map[tileID]*tile // guarded by mu
}

type tileID struct{ level, index uint64 }

// tile holds the nodes of a tile by level in it: levels[0] are its leaves, and
// each level above has the parents of complete pairs.
type tile struct {
	levels [layout.TileHeight + 1][][]byte
}

func newTileCache(fetch client.TileFetcherFunc) *tileCache {
	return &tileCache{fetch: fetch, tiles: make(map[tileID]*tile)}
}

// node returns the hash of a node that is complete in the tree of size.
func (c *tileCache) node(ctx context.Context, id compact.NodeID, size uint64) ([]byte, error) {
	level, index, inLevel, inIndex := layout.NodeCoordsToTileAddress(uint64(id.Level), id.Index)
	key := tileID{level, index}
	c.mu.Lock()
	t := c.tiles[key]
	c.mu.Unlock()
	if t == nil || inIndex >= uint64(len(t.levels[inLevel])) {
		var err error
		if t, err = c.load(ctx, key, size); err != nil {
			return nil, err
		}
	}
	if inIndex >= uint64(len(t.levels[inLevel])) {
		return nil, fmt.Errorf("tile %d/%d lacks node %d of level %d", level, index, inIndex, inLevel)
	}
	return t.levels[inLevel][inIndex], nil
}

// load reads a tile and hashes the nodes inside it.
func (c *tileCache) load(ctx context.Context, key tileID, size uint64) (*tile, error) {
	raw, err := c.fetch(ctx, key.level, key.index, layout.PartialTileSize(key.level, key.index, size))
	if err != nil {
		return nil, fmt.Errorf("read tile: %w", err)
	}
	var leaves api.HashTile
	if err := leaves.UnmarshalText(raw); err != nil {
		return nil, fmt.Errorf("read tile: %w", err)
	}
	t := new(tile)
	t.levels[0] = leaves.Nodes
	for i := 1; i < len(t.levels); i++ {
		below := t.levels[i-1]
		for j := 0; j+1 < len(below); j += 2 {
			t.levels[i] = append(t.levels[i], rfc6962.DefaultHasher.HashChildren(below[j], below[j+1]))
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.tiles) >= maxTiles {
		for old := range c.tiles {
			delete(c.tiles, old)
			break
		}
	}
	c.tiles[key] = t
	return t, nil
}
