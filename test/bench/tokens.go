package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
)

var (
	exchangeLine = regexp.MustCompile(`(?m)^BenchmarkExchange(?:-\d+)?\s+\d+\s+[\d.]+ ns/op\s+([\d.]+) exchanges/s`)
	checkLine    = regexp.MustCompile(`(?m)^BenchmarkCheck(?:-\d+)?\s+\d+\s+([\d.]+) ns/op\s+\d+ B/op\s+(\d+) allocs/op`)
)

// exchanges is row 11: package crossing/r5's own benchmarks.
func exchanges(ctx context.Context, b *bench) ([]Figure, error) {
	program, times := os.Getenv("GO"), "20000x"
	if program == "" {
		program = "go"
	}
	if b.short {
		times = "2000x"
	}
	out, err := exec.CommandContext(ctx, program, "test", "-run", "^$", "-bench", "^Benchmark(Exchange|Check)$", "-benchtime", times, "./crossing/r5").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("go test ./crossing/r5: %w: %s", err, out)
	}
	exchanged, checked := exchangeLine.FindSubmatch(out), checkLine.FindSubmatch(out)
	if exchanged == nil || checked == nil {
		return nil, fmt.Errorf("go test ./crossing/r5 says nothing of its benchmarks: %s", out)
	}
	var numbers []float64
	for _, text := range [][]byte{exchanged[1], checked[1], checked[2]} {
		n, err := strconv.ParseFloat(string(text), 64)
		if err != nil {
			return nil, err
		}
		numbers = append(numbers, n)
	}
	return []Figure{{
		Row: 11, Name: "token exchanges", Value: numbers[0], Unit: "/s",
		Raw: map[string]float64{"check of a call, ns": numbers[1], "check of a call, allocations": numbers[2]},
	}}, nil
}
