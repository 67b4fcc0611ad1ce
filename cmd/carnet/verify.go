package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"

	"carnet"
	"carnet/evidence"
	"carnet/passport"
)

type verifyCommand struct {
	Bundle   string   `arg:"" help:"A bundle's directory, a directory of bundles, or a bundle's manifest; or an item's proof, as 'carnet item export' wrote it."`
	Trust    []string `type:"existingfile" placeholder:"FILE" help:"The keys that you trust, got by another way: what 'carnet party trust' of a world and of its depot wrote; may be given several times. Without them only the bundle's own are used."`
	Receipts string   `type:"path" placeholder:"DIR" help:"Write each frame's receipt as a COSE receipt (RFC 9942) into a new directory."`
	Explain  bool     `help:"Say who is trusted for what."`
	JSON     bool     `help:"As JSON."`
}

// verified is what came of one bundle.
type verified struct {
	Bundle string `json:"bundle"`
	*evidence.Report
}

// Run ends with 0 if every bundle is proved, 1 if something in one is false, 2 if
// nothing is false and something can't be told.
func (c verifyCommand) Run(ctx context.Context, s streams) error {
	if p, is := itemProof(c.Bundle); is {
		if c.Receipts != "" {
			return noReceipts("an item's proof has none")
		}
		return c.verifyItem(s, p)
	}
	all, err := c.verify(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		return exitCode{evidence.ExitCode(nil, err), err}
	}
	worst := evidence.True
	for _, v := range all {
		if v.Verdict == evidence.False || worst == evidence.True {
			worst = v.Verdict
		}
	}
	if err := c.show(s, all); err != nil {
		return err
	}
	if worst == evidence.True {
		return nil
	}
	return exitCode{code: int(worst)}
}

// lessCollection is how much the heap may grow before garbage is collected, in
// percent. A verification keeps a few MB and leaves two cipher states a batch behind.
const lessCollection = 400

func (c verifyCommand) verify(ctx context.Context) (all []verified, err error) {
	defer debug.SetGCPercent(debug.SetGCPercent(lessCollection))
	var trust *evidence.Trust
	for _, path := range c.Trust {
		more, err := evidence.ReadTrust(path)
		if err != nil {
			return nil, err
		}
		if trust == nil {
			trust = more
		} else {
			trust.Join(more)
		}
	}
	dirs, err := bundles(c.Bundle)
	if err != nil {
		return nil, err
	}
	if c.Receipts != "" {
		if len(dirs) != 1 {
			return nil, noReceipts("there are %d bundles in %s", len(dirs), c.Bundle)
		}
		r, err := verifyWithReceipts(ctx, dirs[0], trust, c.Receipts)
		if err != nil {
			return nil, fmt.Errorf("verify %s: %w", dirs[0], err)
		}
		return []verified{{dirs[0], r}}, nil
	}
	for _, dir := range dirs {
		r, err := verifyOne(ctx, dir, trust)
		if err != nil {
			return nil, fmt.Errorf("verify %s: %w", dir, err)
		}
		all = append(all, verified{dir, r})
	}
	return all, nil
}

func noReceipts(format string, args ...any) error {
	return carnet.Errorf(carnet.Malformed, "--receipts is for one evidence bundle: "+format, args...).WithFix("name the directory of one bundle that carnet avatar evidence made")
}

// verifyWithReceipts verifies a bundle of evidence, and writes what proves its frames to
// be on the ledger: a file for each, called by sender, number and entry. They stand under
// the directory's name once all are written, and only if nothing in the bundle is false.
func verifyWithReceipts(ctx context.Context, dir string, trust *evidence.Trust, into string) (*evidence.Report, error) {
	if !isThere(filepath.Join(dir, evidence.FileManifest)) {
		return nil, noReceipts("%s is another one", dir)
	}
	if _, err := os.Lstat(into); !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(err, carnet.Errorf(carnet.Conflict, "%s is there already", into).WithFix("name another directory"))
	}
	draft, err := os.MkdirTemp(filepath.Dir(into), ".receipts-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(draft)
	r, err := evidence.Verify(ctx, dir, trust, evidence.VerifyOptions{Receipt: func(f evidence.FrameReceipt) error {
		receipt, err := f.COSE()
		if err != nil {
			return err
		}
		if _, err := carnet.ParsePartyID(string(f.Sender)); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(draft, fmt.Sprintf("%s-%d-%x.cose", f.Sender, f.Number, f.Entry)), receipt, 0o644)
	}})
	if err != nil || r.Verdict == evidence.False {
		return r, err
	}
	return r, errors.Join(os.Chmod(draft, 0o755), os.Rename(draft, into))
}

// verifyOne verifies an evidence bundle, a passport, or an erasure.
func verifyOne(ctx context.Context, dir string, trust *evidence.Trust) (*evidence.Report, error) {
	if isThere(filepath.Join(dir, evidence.ErasureFile)) {
		return evidence.VerifyErasure(dir, trust)
	}
	entries, err := os.ReadDir(dir)
	if err == nil && slices.ContainsFunc(entries, func(e os.DirEntry) bool { return passport.IsFile(e.Name()) }) {
		return passport.Verify(ctx, dir, trust)
	}
	return evidence.Verify(ctx, dir, trust, evidence.VerifyOptions{})
}

func (c verifyCommand) show(s streams, all []verified) error {
	if c.JSON {
		return writeJSON(s.out, all)
	}
	proved := 0
	for _, v := range all {
		fmt.Fprintf(s.out, "%s: %s", plain(v.Bundle), line(v.Summary()))
		if c.Explain {
			fmt.Fprintf(s.out, "\n%s", line(v.Report.Explain()))
		}
		if v.Verdict == evidence.True {
			proved++
		}
	}
	if len(all) > 1 {
		fmt.Fprintf(s.out, "%d bundles, %d of them proved\n", len(all), proved)
	}
	return nil
}

// line ends a text with one newline.
func line(text string) string {
	if n := len(text); n > 0 && text[n-1] == '\n' {
		return text
	}
	return text + "\n"
}

// bundles lists the bundles that a path means. Where one entry of a directory is a
// bundle every other counts as one, too, so that one whose files were taken away,
// or in whose place there is something else, is found false.
func bundles(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, noBundle("%v", err)
	}
	if !info.IsDir() {
		if base := filepath.Base(path); base != evidence.FileManifest && base != evidence.ErasureFile && base != passport.FileHead {
			return nil, noBundle("%s is no bundle's manifest", path)
		}
		return []string{filepath.Dir(path)}, nil
	}
	if found, err := bundled(path); found || err != nil {
		return []string{path}, err
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var dirs []string
	some := false
	for _, e := range entries {
		dir := filepath.Join(path, e.Name())
		found := false
		if e.IsDir() {
			if found, err = bundled(dir); err != nil {
				return nil, err
			}
		}
		some, dirs = some || found, append(dirs, dir)
	}
	if !some {
		return nil, noBundle("%s holds no evidence bundle", path)
	}
	return dirs, nil
}

func noBundle(format string, args ...any) error {
	return carnet.Errorf(carnet.NotFound, format, args...).
		WithFix("name a directory with " + evidence.FileManifest + ", or a directory of such directories; carnet avatar evidence makes them")
}

// bundled reports whether any file of a bundle is in a directory.
func bundled(dir string) (bool, error) {
	entries, err := os.ReadDir(dir)
	return slices.ContainsFunc(entries, func(e os.DirEntry) bool {
		return evidence.IsFile(e.Name()) || passport.IsFile(e.Name()) || e.Name() == evidence.ErasureFile
	}), err
}

func isThere(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}
