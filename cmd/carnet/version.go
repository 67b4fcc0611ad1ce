package main

import (
	"fmt"
	"runtime/debug"
)

type versionCommand struct {
	JSON bool `help:"As JSON."`
}

// version says what the binary was built from.
type version struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Time     string `json:"time,omitempty"` // of the revision
	Modified bool   `json:"modified"`       // since the revision
	Go       string `json:"go"`
}

func (c versionCommand) Run(s streams) error {
	v := built()
	if c.JSON {
		return writeJSON(s.out, v)
	}
	line := "carnet " + v.Version
	if v.Revision != "" {
		line += ", revision " + v.Revision
	}
	if v.Modified {
		line += " (modified)"
	}
	_, err := fmt.Fprintf(s.out, "%s, %s\n", line, v.Go)
	return err
}

func built() version {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return version{Version: "unknown"}
	}
	v := version{Version: info.Main.Version, Go: info.GoVersion}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Revision = s.Value
		case "vcs.time":
			v.Time = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	return v
}
