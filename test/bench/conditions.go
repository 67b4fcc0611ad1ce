package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Conditions are what figures depend on and a run does not change.
type Conditions struct {
	Time       time.Time `json:"time"`
	CPU        string    `json:"cpu"`
	Cores      int       `json:"cores"`
	GOMAXPROCS string    `json:"gomaxprocs"` // as the parties have it
	Kernel     string    `json:"kernel"`
	Files      string    `json:"file_system"`
	Go         string    `json:"go"`
	Mosquitto  string    `json:"mosquitto,omitempty"`
	Carnet     string    `json:"carnet"`
	Short      bool      `json:"short"`
}

// Surroundings are what else there was when a row began.
type Surroundings struct {
	Load  float64 `json:"load"`  // of the last minute
	Fsync float64 `json:"fsync"` // 4 KiB appended and fdatasynced, per second
}

func conditions(ctx context.Context, b *bench) Conditions {
	c := Conditions{
		Time: time.Now().UTC().Truncate(time.Second), Cores: runtime.NumCPU(), Go: runtime.Version(), Short: b.short,
		GOMAXPROCS: os.Getenv("GOMAXPROCS"), Files: fileSystem(b.dir),
		CPU: after("/proc/cpuinfo", "model name"), Kernel: content("/proc/sys/kernel/osrelease"),
	}
	if c.GOMAXPROCS == "" {
		c.GOMAXPROCS = fmt.Sprintf("%d (default)", runtime.GOMAXPROCS(0))
	}
	if path, err := mosquittoPath(); err == nil {
		out, _ := exec.CommandContext(ctx, path, "-h").Output() // ends with 3 and says its version
		line, _, _ := strings.Cut(string(out), "\n")
		c.Mosquitto = strings.TrimPrefix(line, "mosquitto version ")
	}
	out, err := exec.CommandContext(ctx, b.binary, "version").Output()
	if err != nil {
		out = []byte("unknown")
	}
	c.Carnet = strings.Join(strings.Fields(string(out)), " ")
	return c
}

func (c *Conditions) print(w io.Writer) {
	fmt.Fprintf(w, "%s, %d cores, GOMAXPROCS %s, Linux %s, %s\n%s, Mosquitto %s, carnet %s, %s\n",
		c.CPU, c.Cores, c.GOMAXPROCS, c.Kernel, c.Files, c.Go, c.Mosquitto, c.Carnet, c.Time.Format(time.RFC3339))
	if c.Short {
		fmt.Fprintln(w, "short loads: a look, not a figure")
	}
}

func surroundings(dir string) Surroundings {
	s := Surroundings{Fsync: fsyncs(dir)}
	s.Load, _ = strconv.ParseFloat(strings.Fields(content("/proc/loadavg") + " 0")[0], 64)
	return s
}

// fsyncs appends and syncs for half a second.
func fsyncs(dir string) float64 {
	f, err := os.CreateTemp(dir, "fsync")
	if err != nil {
		return 0
	}
	defer os.Remove(f.Name())
	defer f.Close()
	block := make([]byte, 4096)
	begun, n := time.Now(), 0
	for ; time.Since(begun) < 500*time.Millisecond; n++ {
		if _, err := f.Write(block); err != nil || syscall.Fdatasync(int(f.Fd())) != nil {
			return 0
		}
	}
	return float64(n) / time.Since(begun).Seconds()
}

func content(path string) string {
	data, _ := os.ReadFile(path) // what isn't known is empty
	return strings.TrimSpace(string(data))
}

// after returns what stands behind a key and a colon.
func after(path, key string) string {
	for line := range strings.Lines(content(path)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// fileSystem names the file system of dir: the mount with the longest path.
func fileSystem(dir string) string {
	name, longest := "", 0
	for line := range strings.Lines(content("/proc/self/mounts")) {
		f := strings.Fields(line)
		if len(f) < 4 || len(f[1]) < longest {
			continue
		}
		if rel, err := filepath.Rel(f[1], dir); err == nil && !strings.HasPrefix(rel, "..") {
			name, longest = f[2]+" ("+f[3]+")", len(f[1])
		}
	}
	return name
}

// cpuTime is what a process has used, all its threads, in user and system mode.
func cpuTime(pid int) time.Duration {
	stat := content(fmt.Sprintf("/proc/%d/stat", pid))
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.ParseInt(fields[11], 10, 64)
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * (time.Second / 100) // USER_HZ is 100 on every Linux that Go runs on
}

// ownCPU is what this process, which makes the load, has used.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
