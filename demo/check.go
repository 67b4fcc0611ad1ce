package demo

// Check is one thing that a demo is judged by.
type Check struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	// Detail says what was found, and of a check that isn't ok what was expected.
	Detail string `json:"detail"`
}

// check is how something is judged by what was seen in the parties' stores.
type check struct {
	name string
	of   func(*seen) (ok bool, detail string)
}

// seen is what the parties have, as it was read from their stores after they had ended.
type seen struct{}
