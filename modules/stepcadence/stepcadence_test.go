package main

import (
	"slices"
	"testing"
	"time"

	"carnet/modules/guest"
	"carnet/modules/moduletest"
)

// series is a property, once every so often.
func series(name string, every time.Duration, values ...float64) (ms []guest.Measurement) {
	for i, v := range values {
		ms = append(ms, moduletest.Number(name, time.Duration(i)*every, v, ""))
	}
	return ms
}

func TestStepCadence(t *testing.T) {
	one := func(ms ...guest.Measurement) []moduletest.Said {
		return []moduletest.Said{{Avatar: "a1", Measurements: ms}}
	}
	late := series("steps", time.Minute, 0, 110, 260)
	slices.Reverse(late)
	for _, c := range []struct {
		name, parameters string
		said             []moduletest.Said
		want             string
	}{
		{"strides have two steps", "", one(series("cadence", 10*time.Second, 0, 30, 60, 75)...),
			`{"avatar":"a1","from":"cadence","measurements":4,"steps":55,"mean":110,"greatest":150,"seconds":[10,10,10,10]}`},
		{"a gap isn't walked through", "", one(series("cadence", time.Hour, 60, 60)...),
			`{"avatar":"a1","from":"cadence","measurements":2,"steps":40,"mean":120,"greatest":120,"seconds":[0,0,20,0]}`},
		{"counts, in whatever order", "", one(late...),
			`{"avatar":"a1","from":"steps","measurements":3,"steps":260,"mean":130,"greatest":150,"seconds":[0,0,60,60]}`},
		{"midnight", "", one(series("steps", time.Minute, 9000, 9110, 20)...),
			`{"avatar":"a1","from":"steps","measurements":3,"steps":130,"mean":65,"greatest":110,"seconds":[0,60,60,0]}`},
		{"counts too far apart", "", one(series("steps", time.Hour, 0, 6000)...),
			`{"avatar":"a1","from":"steps","measurements":2,"steps":0,"mean":0,"greatest":0,"seconds":[0,0,0,0]}`},
		{"the cadence counts where there are both", "", one(append(series("steps", time.Minute, 0, 500), series("cadence", time.Second, 60)...)...),
			`{"avatar":"a1","from":"cadence","measurements":1,"steps":20,"mean":120,"greatest":120,"seconds":[0,0,10,0]}`},
		{"other names and bands", `{"cadence":"spm","per":1,"bands":[50]}`, one(series("spm", time.Second, 49, 50)...),
			`{"avatar":"a1","from":"spm","measurements":2,"steps":8.333333333333334,"mean":50,"greatest":50,"seconds":[1,10]}`},
		{"nothing that is known", "", one(series("speed", time.Second, 3)...),
			`{"avatar":"a1","from":"steps","measurements":0,"steps":0,"mean":0,"greatest":0,"seconds":[0,0,0,0]}`},
	} {
		if got, err := moduletest.Run(t, &steps{}, c.parameters, c.said...); err != nil || got != c.want+"\n" {
			t.Errorf("%s: %s, %v, want %s", c.name, got, err, c.want)
		}
	}
	for _, wrong := range []string{`{"per":0}`, `{"bands":[]}`, `{"bands":[2,1]}`, `{"bands":[0]}`, `7`} {
		if _, err := moduletest.Run(t, &steps{}, wrong); err == nil {
			t.Errorf("%s is taken", wrong)
		}
	}
}
