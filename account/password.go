package account

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"carnet"

	"golang.org/x/crypto/argon2"
)

// Password is a password's argon2id hash (RFC 9106) with its parameters and salt.
// It is comparable.
type Password struct {
	memory uint32 // KiB
	passes uint32
	lanes  uint8
	salt   [16]byte
	hash   [32]byte
}

// What new passwords are hashed with: RFC 9106's second choice.
const (
	usualMemory = 64 << 10
	usualPasses = 3
	usualLanes  = 4
)

// What a file may ask for: neither an endless sign-in nor a cheap hash.
const (
	leastMemory, mostMemory = 8 << 10, 256 << 10
	mostPasses, mostLanes   = 10, 8
)

// The length of a password, in bytes.
const (
	leastLength, mostLength = 8, 256
)

// NewPassword hashes a password.
func NewPassword(password string) (Password, error) {
	if n := len(password); n < leastLength || n > mostLength || !utf8.ValidString(password) {
		return Password{}, carnet.Errorf(carnet.Malformed, "a password has %d to %d bytes, in UTF-8", leastLength, mostLength)
	}
	p := Password{memory: usualMemory, passes: usualPasses, lanes: usualLanes}
	rand.Read(p.salt[:])
	p.hash = p.of(password)
	return p, nil
}

// nobodys is a hash of what can't be typed.
func nobodys() (Password, error) { return NewPassword(rand.Text() + rand.Text()) }

// Generate draws a password of 120 bits, in groups that people can type.
func Generate() string {
	text := strings.ToLower(rand.Text()[:24])
	return text[:6] + "-" + text[6:12] + "-" + text[12:18] + "-" + text[18:]
}

func (p Password) of(password string) [32]byte {
	return [32]byte(argon2.IDKey([]byte(password), p.salt[:], p.passes, p.memory, p.lanes, 32))
}

// is reports whether it is this password; it takes as long if not.
func (p Password) is(password string) bool {
	got := p.of(password)
	return subtle.ConstantTimeCompare(got[:], p.hash[:]) == 1
}

// MarshalText writes the form that the reference implementation of argon2 has.
func (p Password) MarshalText() ([]byte, error) {
	b64 := base64.RawStdEncoding
	return fmt.Appendf(nil, "$argon2id$v=19$m=%d,t=%d,p=%d$%s$%s", p.memory, p.passes, p.lanes,
		b64.EncodeToString(p.salt[:]), b64.EncodeToString(p.hash[:])), nil
}

// UnmarshalText reads that form, and no other spelling of it.
func (p *Password) UnmarshalText(text []byte) error {
	wrong := func(what string) error {
		return carnet.Errorf(carnet.Malformed, "a password hash is not one: %s", what).
			WithFix("have it written by: carnet console user NAME")
	}
	var q Password
	parts := strings.Split(string(text), "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != "v=19" {
		return wrong("want $argon2id$v=19$m=…,t=…,p=…$SALT$HASH")
	}
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &q.memory, &q.passes, &q.lanes); err != nil {
		return wrong("its parameters can't be read")
	}
	if q.memory < leastMemory || q.memory > mostMemory || q.passes < 1 || q.passes > mostPasses || q.lanes < 1 || q.lanes > mostLanes {
		return wrong(fmt.Sprintf("its parameters are out of bounds: m is %d to %d, t 1 to %d, p 1 to %d", leastMemory, mostMemory, mostPasses, mostLanes))
	}
	b64 := base64.RawStdEncoding.Strict()
	salt, err := b64.DecodeString(parts[4])
	if err != nil || len(salt) != len(q.salt) {
		return wrong("its salt has 16 bytes in base64")
	}
	hash, err := b64.DecodeString(parts[5])
	if err != nil || len(hash) != len(q.hash) {
		return wrong("its hash has 32 bytes in base64")
	}
	q.salt, q.hash = [16]byte(salt), [32]byte(hash)
	if again, _ := q.MarshalText(); string(again) != string(text) {
		return wrong("it is spelled in another way than it would be written")
	}
	*p = q
	return nil
}

// hashing bounds how many passwords are hashed at once: each takes memory and a
// processor for a while, and who isn't signed in may ask for it.
type hashing struct {
	working chan struct{} // has place for those that work
	inside  chan struct{} // and for those that work or wait
}

const (
	hashedAtOnce = 2
	hashingWaits = 8
)

func newHashing() *hashing {
	return &hashing{make(chan struct{}, hashedAtOnce), make(chan struct{}, hashedAtOnce+hashingWaits)}
}

// check compares a password with a hash, when it is its turn.
func (h *hashing) check(ctx context.Context, p Password, password string) (bool, error) {
	select {
	case h.inside <- struct{}{}:
		defer func() { <-h.inside }()
	default:
		return false, busy(time.Second, "many people are signing in")
	}
	select {
	case h.working <- struct{}{}:
		defer func() { <-h.working }()
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
	if len(password) > mostLength {
		password = "" // nobody's; and as dear as another
	}
	return p.is(password), nil
}
