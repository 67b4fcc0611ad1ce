package avatar

import (
	"testing"

	"carnet"
)

// What is withheld, or isn't here, nobody may read.
func TestReadable(t *testing.T) {
	here, away := carnet.NewAvatarID(), carnet.NewAvatarID()
	a := &Agent{avatars: map[carnet.AvatarID]*Avatar{here: {id: here}}}
	codes := func(id carnet.AvatarID, want carnet.Code) {
		t.Helper()
		if err := a.Readable(id); carnet.CodeOf(err) != want || (err == nil) != (want == "") {
			t.Errorf("it is readable: %v, want the code %q", err, want)
		}
	}
	codes(here, "")
	codes(away, carnet.NotFound)
	a.withheld.Store(&map[carnet.AvatarID]struct{}{here: {}})
	codes(here, carnet.Unavailable)
	codes(away, carnet.NotFound)
	a.Withhold(false)
	codes(here, "")
}
