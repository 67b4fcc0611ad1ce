package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"carnet"
	"carnet/api/client"
	"carnet/identity"
	"carnet/owner"
	"carnet/thing"

	"golang.org/x/term"
)

type keystoreCommands struct {
	New  keystoreNew  `cmd:"" help:"Make an empty keystore."`
	Show keystoreShow `cmd:"" help:"Show for which worlds there is a key. No secret is shown."`

	Reception keystoreReception `cmd:"" help:"Write the public part of your reception key for a world: it seals passports' keys to it."`
}

// passphrase is how a keystore's passphrase is given: typed, or in a file; never
// as an argument or in the environment, which others on the machine may see.
type passphrase struct {
	PassphraseFile string `type:"path" placeholder:"FILE" help:"Read the keystore's passphrase from the first line of this file, which only you may read; left out, it is asked for."`
}

const maxPassphrase = 4 << 10

func (p passphrase) read(s streams, prompts ...string) ([]byte, error) {
	if p.PassphraseFile != "" {
		return p.fromFile()
	}
	in, isFile := s.in.(*os.File)
	if !isFile || !term.IsTerminal(int(in.Fd())) {
		return nil, carnet.Errorf(carnet.Malformed, "there is no terminal to ask for the passphrase on").WithFix("give it in a file: --passphrase-file FILE")
	}
	var typed []byte
	for i, prompt := range prompts {
		fmt.Fprint(s.err, prompt)
		line, err := term.ReadPassword(int(in.Fd()))
		fmt.Fprintln(s.err)
		if err != nil {
			return nil, fmt.Errorf("read the passphrase: %w", err)
		}
		if i > 0 && string(line) != string(typed) {
			return nil, carnet.Errorf(carnet.Malformed, "the two passphrases differ").WithFix("type them again")
		}
		typed = line
	}
	return typed, nil
}

func (p passphrase) fromFile() ([]byte, error) {
	f, err := os.Open(p.PassphraseFile)
	if err != nil {
		return nil, fmt.Errorf("read the passphrase: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read the passphrase: %w", err)
	}
	if info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
		return nil, carnet.Errorf(carnet.Forbidden, "%s has mode %04o, so others can read the passphrase", p.PassphraseFile, info.Mode().Perm()).
			WithFix("chmod 600 %s", p.PassphraseFile)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxPassphrase+1))
	if err != nil {
		return nil, fmt.Errorf("read the passphrase: %w", err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	if line = strings.TrimSuffix(line, "\r"); line == "" || len(text) > maxPassphrase {
		return nil, carnet.Errorf(carnet.Malformed, "%s has no passphrase in its first line, or more than %d bytes", p.PassphraseFile, maxPassphrase).WithFix("write the passphrase into its first line")
	}
	return []byte(line), nil
}

// keystore is what the commands that open one have in common.
type keystore struct {
	Keystore string `required:"" type:"path" placeholder:"FILE" help:"Your keystore."`
	passphrase
}

func (k keystore) open(s streams) (*owner.Keystore, error) {
	secret, err := k.read(s, "Passphrase of "+plain(k.Keystore)+": ")
	if err != nil {
		return nil, err
	}
	return owner.Open(k.Keystore, secret)
}

// newKeystores is how hard it is to try passphrases of keystores that are made. (Tests, which
// open hundreds, have it easier.)
var newKeystores = owner.Usual

type keystoreNew struct {
	File string `arg:"" type:"path" help:"Where to write it."`
	passphrase
}

func (c keystoreNew) Run(s streams) error {
	secret, err := c.read(s, "Passphrase, of several words: ", "Again: ")
	if err != nil {
		return err
	}
	k, err := owner.Create(c.File, secret, newKeystores)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.out, "Made the keystore %s. Copy it to where you keep what you can't lose: nobody can make its keys again, or change which a world has pinned.\n", plain(c.File))
	return errors.Join(err, k.Close())
}

type keystoreShow struct {
	File string `arg:"" type:"path" help:"The keystore."`
	passphrase
	JSON bool `help:"As JSON."`
}

func (c keystoreShow) Run(s streams) error {
	k, err := keystore{c.File, c.passphrase}.open(s)
	if err != nil {
		return err
	}
	defer k.Close()
	worlds := k.Worlds()
	if c.JSON {
		return writeJSON(s.out, worlds)
	}
	t := table{{"WORLD", "YOUR KEY FOR IT", "PINNED WITH"}}
	for _, w := range worlds {
		var avatars []string
		for _, a := range w.Avatars {
			avatars = append(avatars, a.String())
		}
		t.add(string(w.World), w.Owner, strings.Join(avatars, " "))
	}
	return t.write(s.out)
}

type ownerClaim struct {
	reaching
	keystore
	Mapping string `arg:"" help:"The mapping, or THING/WORLD."`
	JSON    bool   `help:"As JSON."`
}

func (c ownerClaim) Run(ctx context.Context, s streams) error {
	k, err := c.open(s)
	if err != nil {
		return err
	}
	defer k.Close()
	a, err := c.asOwner()
	if err != nil {
		return err
	}
	id, err := findMapping(ctx, a.Client, c.Mapping, false)
	if err != nil {
		return a.explain(err)
	}
	m, err := a.Mapping(ctx, id)
	if err != nil {
		return a.explain(err)
	}
	if m, err = claim(ctx, k, a.Client, m); err != nil {
		return err
	}
	if c.JSON {
		return writeJSON(s.out, m)
	}
	return claimed(s, m)
}

// claim has the world of a mapping pin the key that the keystore has for it.
func claim(ctx context.Context, k *owner.Keystore, cl *client.Client, m thing.MappingInfo) (thing.MappingInfo, error) {
	world := owner.World{Party: m.WorldName, Key: m.WorldKey}
	key, err := k.Key(world)
	if err != nil {
		return m, err
	}
	word, err := identity.SignOwnership(key, identity.Ownership{Audience: m.WorldName, Avatar: m.Avatar, Issued: time.Now()})
	if err != nil {
		return m, err
	}
	if m, err = cl.Own(ctx, m.ID, word); err != nil {
		return m, err
	}
	return m, k.Pinned(world, m.Avatar)
}

func claimed(s streams, m thing.MappingInfo) error {
	_, err := fmt.Fprintf(s.out, "%s knows avatar %s as yours, by the key %s.\n", m.World, m.Avatar, identity.DID(ed25519.PublicKey(m.OwnerKey)))
	return err
}
