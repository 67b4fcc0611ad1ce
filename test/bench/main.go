// Command bench measures the figures of docs/design/figures.md: the shipped
// binary as real parties, in processes of their own, with the demo's
// configuration, each figure beside its peer of the same minute where there is
// one.
//
// A figure is set up (parties made, peered and started in a directory of their
// own), loaded (bounded in time and count, over loopback only), drained (until
// the worlds have acknowledged everything), read, and taken down: every process
// that was started is ended by its id, whatever happened. A figure that misses
// its goal is printed as such and fails nothing; one that could not be measured
// does.
//
// The program must not configure a party in a way that its operator could not.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	binary  string
	only    []int
	short   bool
	json    string
	profile string
	keep    bool
	spread  int
	sizes   []int
	offer   float64
}

// row is one of the figures.
type row struct {
	number  int
	name    string
	measure func(context.Context, *bench) ([]Figure, error)
}

// rows are the figures, by their number in docs/design/figures.md.
var rows = []row{
	{1, "MQTT, 64 connections × 16 in flight", wide},
	{2, "MQTT, 1,000 connections × 1 in flight", many},
	{3, "device to world", path},
	{6, "device to subscriber", live},
	{7, "statement to receipt", receipts},

	{8, "offline verification", verification},
	{9, "policy decision", decisions},
	{10, "share: device to subscriber in the other world", share},
	{11, "token exchanges", exchanges},
	{12, "revocation", revocations},
	{13, "moves", moves},
	{14, "capsule: opening", capsules},
	{15, "a job over 10,000,000 measurements", jobs},
	{16, "engines: WebAssembly and SQL", engines},
}

// companions are measured in the course of another row.
var companions = map[int]int{4: 3, 5: 3}

// bench is one run.
type bench struct {
	options
	dir string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parse(args []string) (o options, err error) {
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.StringVar(&o.binary, "binary", "bin/carnet", "the program that is measured")
	f.BoolVar(&o.short, "short", false, "shorter loads: a look, not a figure")
	f.StringVar(&o.json, "json", "", "write the figures as JSON to `FILE`, too")
	f.StringVar(&o.profile, "profile", "", "write the parties' CPU profiles to `DIR`")
	f.BoolVar(&o.keep, "keep", false, "leave the parties' directories there")
	f.IntVar(&o.spread, "things", 1000, "how many things the load of row 3 comes from")
	sizes := f.String("sizes", "100,10,1", "the `SIZES` of batches in row 3")
	f.Float64Var(&o.offer, "offer", 0, "the `RATE` of measurements that row 3 offers in small batches; 0: a tenth above the goal")
	only := f.String("only", "", "`ROWS` to measure, such as 1,3; all if left out")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	for _, s := range strings.FieldsFunc(*only, func(r rune) bool { return r == ',' }) {
		n, err := strconv.Atoi(s)
		if with, ok := companions[n]; ok {
			n = with
		}
		if err != nil || !slices.ContainsFunc(rows, func(r row) bool { return r.number == n }) {
			return o, fmt.Errorf("--only %s: there is no row %s", *only, s)
		}
		o.only = append(o.only, n)
	}
	for _, s := range strings.Split(*sizes, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > 1000 {
			return o, fmt.Errorf("--sizes %s: want numbers from 1 to 1000", *sizes)
		}
		o.sizes = append(o.sizes, n)
	}
	if o.binary, err = filepath.Abs(o.binary); err != nil {
		return o, err
	}
	if o.profile != "" {
		if o.profile, err = filepath.Abs(o.profile); err != nil {
			return o, err
		}
		return o, os.MkdirAll(o.profile, 0o755)
	}
	return o, nil
}

// result is what --json writes.
type result struct {
	Conditions Conditions `json:"conditions"`
	Figures    []Figure   `json:"figures"`
}

func run(ctx context.Context, args []string) error {
	o, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	b := &bench{options: o}
	if b.dir, err = os.MkdirTemp("", "carnet-bench-"); err != nil {
		return err
	}
	if !o.keep {
		defer os.RemoveAll(b.dir)
	}
	r := result{Conditions: conditions(ctx, b)}
	r.Conditions.print(os.Stdout)
	var failed error
	for _, row := range rows {
		if len(o.only) > 0 && !slices.Contains(o.only, row.number) || ctx.Err() != nil {
			continue
		}
		fmt.Printf("\nrow %d: %s\n", row.number, row.name)
		begun := time.Now()
		before := surroundings(b.dir)
		figures, err := row.measure(ctx, b)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("row %d: %w", row.number, err))
			fmt.Println("  not measured:", err)
		}
		for i := range figures {
			figures[i].Surroundings = before
			figures[i].print(os.Stdout)
		}
		fmt.Printf("  took %.0f s; load %.1f, %.0f fsync/s at the beginning\n", time.Since(begun).Seconds(), before.Load, before.Fsync)
		r.Figures = append(r.Figures, figures...)
	}
	fmt.Println()
	table(os.Stdout, r.Figures)
	if o.json != "" {
		data, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return err
		}
		failed = errors.Join(failed, os.WriteFile(o.json, append(data, '\n'), 0o644))
	}
	return errors.Join(failed, ctx.Err())
}
