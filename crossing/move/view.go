package move

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"carnet"
	"carnet/avatar"
	"carnet/policy"
)

// A history moves as it is, whatever its things may send from then on. So a target whose
// view shows less than that doesn't get it.

// bears refuses an avatar of whose properties this world may see less than there is: by
// its own view, or by the one that is asked for.
func (a *Agent) bears(asked json.RawMessage, properties []string) error {
	if a.Bears != nil {
		if less := lessThan(*a.Bears, properties); less != "" {
			return carnet.Errorf(carnet.Forbidden, "the avatar can't come: its history comes as it is, and the view that %s has of everything shows less of it: %s", a.Party, less).
				WithFix("have it share what that view shows, and go on living where it is; or let the world see more: view in its configuration")
		}
	}
	return wholly(asked, properties)
}

// wholly refuses a view for what moves that shows less than its history has.
func wholly(asked json.RawMessage, properties []string) error {
	if len(asked) == 0 {
		return nil
	}
	v, err := policy.ParseView(asked)
	if err != nil {
		return fmt.Errorf("view of what moves: %w", err)
	}
	if less := lessThan(v, properties); less != "" {
		return carnet.Errorf(carnet.Forbidden, "the view shows less than the avatar's history has, which moves as it is: %s", less).
			WithFix("share what the view shows instead; or, if the history may be seen whole, leave --view out, and narrow what its things send there afterwards: carnet thing view set")
	}
	return nil
}

// lessThan says of which properties a view shows less than there is; empty: of none.
func lessThan(v policy.View, properties []string) string {
	var less []string
	for _, name := range slices.Sorted(slices.Values(properties)) {
		if v.Whole(name) {
			continue
		}
		how := "not at all"
		if pv, shown := v.Of(name); shown {
			how = pv.Explain("")
		}
		less = append(less, name+" "+how)
	}
	const most = 8
	if n := len(less); n > most {
		less = append(less[:most], fmt.Sprintf("and %d more", n-most))
	}
	return strings.Join(less, "; ")
}

// valuesOf names the properties of a manifest's state.
func valuesOf(m *avatar.Manifest) (names []string) {
	for i := range m.State {
		names = append(names, m.State[i].Name)
	}
	return names
}
