package node

import (
	"maps"
	"slices"
	"testing"

	"carnet/api"
	"carnet/crossing/r5"
)

// What a world serves to other worlds is what its document says, and nothing else.
func TestTheDocumentHasAllOfR5(t *testing.T) {
	served := append(slices.Collect(maps.Keys((&Node{}).callRoutes(nil))), "POST "+r5.TokenPath, "POST "+recoveredPath)
	slices.Sort(served)
	if described := api.CallPatterns(); !slices.Equal(served, described) {
		t.Errorf("served is %q, described %q", served, described)
	}
}
