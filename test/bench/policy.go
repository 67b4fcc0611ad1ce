package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
)

// benchmarkLine is what go test says of one benchmark.
var benchmarkLine = regexp.MustCompile(`(?m)^BenchmarkApply/(\S+?)(?:-\d+)?\s+\d+\s+([\d.]+) ns/op\s+\d+ B/op\s+(\d+) allocs/op`)

// decisions is row 9: package policy's own benchmark. The figure is the dearest
// decision.
func decisions(ctx context.Context, _ *bench) ([]Figure, error) {
	program := os.Getenv("GO")
	if program == "" {
		program = "go"
	}
	out, err := exec.CommandContext(ctx, program, "test", "-run", "^$", "-bench", "^BenchmarkApply$", "-benchtime", "200ms", "./policy").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("go test ./policy: %w: %s", err, out)
	}
	f := Figure{Row: 9, Name: "policy decision", Unit: "ns", Goal: 50, AtMost: true, Raw: make(map[string]float64)}
	for _, m := range benchmarkLine.FindAllStringSubmatch(string(out), -1) {
		ns, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			return nil, err
		}
		allocations, err := strconv.ParseFloat(m[3], 64)
		if err != nil {
			return nil, err
		}
		f.Raw[m[1]+", ns"] = ns
		f.Raw["allocations"] += allocations
		f.Value = max(f.Value, ns)
	}
	if f.Value == 0 {
		return nil, fmt.Errorf("go test ./policy says nothing of BenchmarkApply: %s", out)
	}
	return []Figure{f}, nil
}
