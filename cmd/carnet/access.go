package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"carnet"
	"carnet/access"
)

type accessCommands struct {
	Join accessJoin `cmd:"" help:"Join the access files of several parties, for one console or one person."`
}

type accessJoin struct {
	Files []string `arg:"" type:"existingfile" help:"The access files, as 'carnet party init' and 'carnet party token --out' wrote them."`
	Out   string   `required:"" type:"path" placeholder:"FILE" help:"Where to write the one file, which has every token of theirs."`
}

func (c accessJoin) Run(s streams) error {
	if _, err := os.Lstat(c.Out); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(err, carnet.Errorf(carnet.Conflict, "%s is there already", c.Out).WithFix("name another file with --out"))
	}
	joined := &access.File{Version: access.Version}
	for _, path := range c.Files {
		f, err := access.Read(path)
		if err != nil {
			return err
		}
		if err := joined.Join(f, filepath.Dir(c.Out)); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	if err := joined.Write(c.Out); err != nil {
		return err
	}
	_, err := fmt.Fprintf(s.out, "%s reaches %s. It has their tokens: nobody else may see it. The certificates stay where they are.\n", c.Out, access.Names(joined.Parties))
	return err
}
