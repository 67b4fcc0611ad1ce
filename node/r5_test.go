package node

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"carnet/api"
	"carnet/crossing/r5"
)

// What a world serves to other worlds is what its document says, and nothing else. What
// source and target of a move say to each other is in docs/design/crossing.md; it isn't
// in the document yet (docs/open.md).
func TestTheDocumentHasAllOfR5(t *testing.T) {
	served := append(slices.Collect(maps.Keys((&Node{}).callRoutes(nil))), "POST "+r5.TokenPath)
	served = slices.DeleteFunc(served, func(pattern string) bool { return strings.Contains(pattern, "/moves/{crossing}") })
	slices.Sort(served)
	if described := api.CallPatterns(); !slices.Equal(served, described) {
		t.Errorf("served is %q, described %q", served, described)
	}
}
