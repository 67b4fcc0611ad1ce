package access

import (
	"path/filepath"
	"slices"

	"carnet"
)

// Join adds how another file reaches parties. The file itself is to be written in the
// directory dir, to which paths are then relative; a path that can't be is absolute. A
// name may stand for one party only.
func (f *File) Join(other *File, dir string) error {
	near := func(path string) (string, error) {
		if path == "" {
			return "", nil
		}
		path, err := filepath.Abs(other.Path(path))
		if err != nil {
			return "", err
		}
		if dir, err = filepath.Abs(dir); err != nil {
			return "", err
		}
		if short, err := filepath.Rel(dir, path); err == nil {
			return short, nil
		}
		return path, nil
	}
	for _, p := range other.Parties {
		if had, err := f.Party(p.Name); err == nil {
			if had.Role != p.Role || had.HTTP != p.HTTP {
				return carnet.Errorf(carnet.Conflict, "two files have a party %q, at %s and at %s", p.Name, had.HTTP, p.HTTP).
					WithFix("join files of parties with different names")
			}
			continue
		}
		var err error
		if p.CAFile, err = near(p.CAFile); err != nil {
			return err
		}
		if p.Config, err = near(p.Config); err != nil {
			return err
		}
		f.Parties = append(f.Parties, p)
	}
	for _, t := range other.Tokens {
		if !slices.Contains(f.Tokens, t) {
			f.Tokens = append(f.Tokens, t)
		}
	}
	for _, t := range other.Things {
		if !slices.ContainsFunc(f.Things, func(had Thing) bool { return had.ID == t.ID && had.Party == t.Party }) {
			f.Things = append(f.Things, t)
		}
	}
	for _, a := range other.Avatars {
		if !slices.ContainsFunc(f.Avatars, func(had Avatar) bool { return had.ID == a.ID && had.World == a.World }) {
			f.Avatars = append(f.Avatars, a)
		}
	}
	return nil
}
