package account

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"carnet"
)

// User is somebody who may sign in. It is comparable.
type User struct {
	Name     string   `json:"name"`
	Role     string   `json:"role"` // which token counts where a party gave the name several
	Password Password `json:"password"`
}

func (u User) check() error {
	if n := len(u.Name); n < 1 || n > 64 || strings.TrimSpace(u.Name) != u.Name || strings.ContainsFunc(u.Name, isControl) {
		return carnet.Errorf(carnet.Malformed, "a user is called %q: want 1 to 64 bytes, without control characters or spaces around", u.Name)
	}
	if n := len(u.Role); n < 1 || n > 32 || strings.ContainsFunc(u.Role, func(r rune) bool { return (r < 'a' || r > 'z') && r != '-' }) {
		return carnet.Errorf(carnet.Malformed, "user %q has the role %q: want 1 to 32 lower-case letters", u.Name, u.Role)
	}
	if u.Password == (Password{}) {
		return carnet.Errorf(carnet.Malformed, "user %q has no password", u.Name)
	}
	return nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f || r == '\uFFFD' }

const (
	usersVersion = 1
	mostUsers    = 1000
	maxUsersFile = 1 << 20
)

// usersFile is the form of a users file.
type usersFile struct {
	Version int    `json:"version"`
	Users   []User `json:"users"`
}

// ReadUsers reads a users file, which nobody but its owner may read.
func ReadUsers(path string) ([]User, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read users file: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("read users file: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, carnet.Errorf(carnet.Forbidden, "others may read or write the users file %s (mode %04o)", path, mode).
			WithFix("run: chmod 600 %s", path)
	}
	data, err := io.ReadAll(io.LimitReader(file, maxUsersFile+1))
	if err != nil {
		return nil, fmt.Errorf("read users file: %w", err)
	}
	users, err := parseUsers(data)
	if err != nil {
		return nil, fmt.Errorf("users file %s: %w", path, err)
	}
	return users, nil
}

func parseUsers(data []byte) ([]User, error) {
	if len(data) > maxUsersFile {
		return nil, carnet.Errorf(carnet.TooLarge, "it has more than %d bytes", maxUsersFile)
	}
	var f usersFile
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return nil, carnet.Errorf(carnet.Malformed, "it can't be read: %v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, carnet.Errorf(carnet.Malformed, "it goes on after its object")
	}
	if f.Version != usersVersion {
		return nil, carnet.Errorf(carnet.Malformed, "it has version %d, and %d is known", f.Version, usersVersion)
	}
	if len(f.Users) > mostUsers {
		return nil, carnet.Errorf(carnet.TooLarge, "it has %d users, more than %d", len(f.Users), mostUsers)
	}
	for i, u := range f.Users {
		if err := u.check(); err != nil {
			return nil, err
		}
		if slices.ContainsFunc(f.Users[:i], func(v User) bool { return v.Name == u.Name }) {
			return nil, carnet.Errorf(carnet.Malformed, "it has two users %q", u.Name)
		}
	}
	return f.Users, nil
}

// WriteUsers puts a users file at path, in place of one that is there. Whoever reads
// sees the old one or the new one, whole.
func WriteUsers(path string, users []User) (err error) {
	if users == nil {
		users = []User{}
	}
	data, err := json.MarshalIndent(usersFile{usersVersion, users}, "", "  ")
	if err != nil {
		return fmt.Errorf("write users file: %w", err)
	}
	if _, err := parseUsers(data); err != nil {
		return fmt.Errorf("write users file: %w", err)
	}
	t, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.new") // mode 0600
	if err != nil {
		return fmt.Errorf("write users file: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("write users file: %w", err), os.Remove(t.Name()))
		}
	}()
	_, err = t.Write(append(data, '\n'))
	if err == nil {
		err = t.Sync()
	}
	if err := errors.Join(err, t.Close()); err != nil {
		return err
	}
	return os.Rename(t.Name(), path)
}

// Put adds a user to a users file, which is made if there is none, or gives the one
// with the name another role and password.
func Put(path string, u User) (replaced bool, err error) {
	users, err := ReadUsers(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	i := slices.IndexFunc(users, func(v User) bool { return v.Name == u.Name })
	if i >= 0 {
		users[i] = u
	} else {
		users = append(users, u)
	}
	return i >= 0, WriteUsers(path, users)
}

// Remove takes a user out of a users file.
func Remove(path, name string) error {
	users, err := ReadUsers(path)
	if err != nil {
		return err
	}
	rest := slices.DeleteFunc(slices.Clone(users), func(u User) bool { return u.Name == name })
	if len(rest) == len(users) {
		return carnet.Errorf(carnet.NotFound, "the users file %s has no user %q", path, name)
	}
	return WriteUsers(path, rest)
}
