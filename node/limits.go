package node

import "carnet"

// Limits bound what callers may hold open at once, so that one can't keep others
// out. A limit that is left out takes its default.
type Limits struct {
	// Live is how many live subscriptions a world has, and LiveOfToken how many with
	// one token: one more is answered with 429. Default 4,096 and 64.
	Live        int `toml:"live,omitempty"`
	LiveOfToken int `toml:"live_of_token,omitempty"`
}

// most is the largest limit that can be asked for.
const most = 1 << 20

func (l Limits) check() error {
	for _, f := range []struct {
		name  string
		value int
	}{
		{"live", l.Live},
		{"live_of_token", l.LiveOfToken},
	} {
		if f.value < 0 || f.value > most {
			return carnet.Errorf(carnet.Malformed, "limits.%s is %d", f.name, f.value).WithFix("take 1 to %d, or leave it out", most)
		}
	}
	return nil
}
