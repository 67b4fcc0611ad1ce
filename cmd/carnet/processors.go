package main

import (
	"os"
	"runtime"
)

// leastProcessors is how many goroutines may run at once at least. One that
// waits for the disk in a system call holds its place until the scheduler notices,
// and a party syncs all the time: with two places on two cores a thousand devices
// with one message in flight each wait a fifth longer.
const leastProcessors = 4

// useProcessors raises GOMAXPROCS on small machines, unless the operator set it.
func useProcessors() {
	if os.Getenv("GOMAXPROCS") == "" && runtime.GOMAXPROCS(0) < leastProcessors {
		runtime.GOMAXPROCS(leastProcessors)
	}
}
