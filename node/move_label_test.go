package node

import (
	"testing"

	"carnet"
	"carnet/entity"
)

// What moves by a grant that bounds it is at most that; without a bound it is everything.
func TestAMovesLabelIsBoundedByItsGrant(t *testing.T) {
	all := carnet.Label{Sensitivity: carnet.Personal | carnet.Health, Purposes: carnet.NewSet("care", "fitness")}
	grant := func(c *entity.Clearance) entity.Grant {
		return entity.Grant{Terms: entity.Terms{Purpose: "care", Ceiling: c}}
	}
	for _, c := range []struct {
		bound *entity.Clearance
		want  carnet.Label
	}{
		{nil, all},
		{&entity.Clearance{Sensitivity: carnet.AllSensitive}, all},
		{&entity.Clearance{Sensitivity: carnet.Personal}, carnet.Label{Sensitivity: carnet.Personal, Purposes: "care"}},
		{&entity.Clearance{}, carnet.Label{Purposes: "care"}},
	} {
		if got := bounded(all, grant(c.bound)); got != c.want {
			t.Errorf("bounded by %+v: %+v, want %+v", c.bound, got, c.want)
		}
	}
}
