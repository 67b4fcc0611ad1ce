package entity

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/hex"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"carnet"
	"carnet/ledger"
	"carnet/policy"
)

// The kinds of principals that the agent keeps.
const (
	KindApplication = "application" // an outside program, with a purpose
	KindAvatar      = "avatar"      // who acts as an avatar of this world
)

// Clearance bounds what somebody may receive.
type Clearance struct {
	Sensitivity carnet.Sensitivity `json:"sensitivity" doc:"What it may see: public, or kinds joined by +." example:"personal+health"`
	Residency   []string           `json:"residency,omitempty" doc:"Where it keeps data." example:"[\"de\"]" maxItems:"64"`
}

// Principal is an application, or who acts as an avatar.
type Principal struct {
	ID        string           `json:"id"`
	Kind      string           `json:"kind"`
	Name      string           `json:"name"`
	Avatar    *carnet.AvatarID `json:"avatar,omitempty"`
	Purpose   string           `json:"purpose"`
	Clearance Clearance        `json:"clearance"`
	Created   time.Time        `json:"created"`
	By        string           `json:"by"`
	Salt      []byte           `json:"salt"`
	Hash      []byte           `json:"hash"` // SHA-256 of salt and token

	version uint64
}

func (p *Principal) documentVersion() uint64     { return p.version }
func (p *Principal) setVersion(version uint64)   { p.version = version }
func (p *Principal) hashOf(secret string) []byte { return hash(p.Salt, secret) }

func hash(salt []byte, secret string) []byte {
	h := sha256.New()
	h.Write(salt)
	h.Write([]byte(secret))
	return h.Sum(nil)
}

// who is the principal as the guard knows it: an application by its id, an avatar
// by the avatar's.
func (p *Principal) who() policy.Principal {
	if p.Kind == KindAvatar {
		return policy.Principal{Kind: policy.AvatarSelf, Name: p.Avatar.String()}
	}
	return policy.Principal{Kind: policy.Application, Name: p.ID}
}

func newID() string {
	b := make([]byte, 16)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// NewPrincipal says who is to be added.
type NewPrincipal struct {
	Kind      string           `json:"kind" doc:"An outside program, or who acts as an avatar of this world." enum:"application,avatar" example:"application"`
	Name      string           `json:"name" doc:"For people." example:"Coach" minLength:"1" maxLength:"100"`
	Avatar    *carnet.AvatarID `json:"avatar,omitempty" doc:"Which avatar, of the kind avatar."`
	Purpose   string           `json:"purpose" doc:"What it uses data for, in one word." example:"coaching" minLength:"1" maxLength:"64"`
	Clearance Clearance        `json:"clearance"`
}

func (n NewPrincipal) check() error {
	switch {
	case n.Kind != KindApplication && n.Kind != KindAvatar:
		return carnet.Errorf(carnet.Malformed, "a principal's kind is %q: want application or avatar", n.Kind)
	case (n.Kind == KindAvatar) != (n.Avatar != nil):
		return carnet.Errorf(carnet.Malformed, "a principal of the kind avatar names one, and no other does")
	case n.Name == "" || len(n.Name) > 100 || !utf8.ValidString(n.Name):
		return carnet.Errorf(carnet.Malformed, "a principal's name is 1 to 100 bytes of UTF-8")
	case !word(n.Purpose):
		return carnet.Errorf(carnet.Malformed, "the purpose %.80q is not a word of a-z, 0-9, '_', '.' and '-'", n.Purpose)
	}
	return n.Clearance.check()
}

func (c Clearance) check() error {
	for _, w := range c.Residency {
		if !word(w) {
			return carnet.Errorf(carnet.Malformed, "the place %.80q is not a word of a-z, 0-9, '_', '.' and '-'", w)
		}
	}
	return nil
}

func word(s string) bool {
	return s != "" && len(s) <= 64 && s[0] >= 'a' && s[0] <= 'z' && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789_.-") == ""
}

// AddPrincipal adds a principal, and returns its token, which nobody is told
// again.
func (a *Agent) AddPrincipal(ctx context.Context, by string, n NewPrincipal) (Principal, string, error) {
	if err := n.check(); err != nil {
		return Principal{}, "", err
	}
	if n.Avatar != nil {
		if _, err := a.cfg.Avatars.Properties(*n.Avatar); err != nil {
			return Principal{}, "", err
		}
	}
	a.changing.Lock()
	defer a.changing.Unlock()
	if len(a.Principals()) >= maxPrincipals {
		return Principal{}, "", carnet.Errorf(carnet.TooLarge, "there are %d principals, which is all there may be", maxPrincipals).WithFix("remove some")
	}
	secret := make([]byte, 20)
	rand.Read(secret)
	p := Principal{ID: newID(), Kind: n.Kind, Name: n.Name, Avatar: n.Avatar, Purpose: n.Purpose, Clearance: n.Clearance,
		Created: a.cfg.Now().UTC(), By: by, Salt: make([]byte, 16), version: 1}
	rand.Read(p.Salt)
	text := strings.ToLower(base32.StdEncoding.EncodeToString(secret))
	p.Hash = p.hashOf(text)
	state := ledger.Statement{Kind: ledger.PrincipalAdded}
	if n.Avatar != nil {
		state.Avatar = *n.Avatar
	}
	return p, p.ID + "." + text, a.store(ctx, change{kindPrincipal, p.ID, 1, &p, state, nil})
}

// RemovePrincipal takes a principal's token away, and ends all that it has open.
func (a *Agent) RemovePrincipal(ctx context.Context, id string) (Principal, error) {
	a.changing.Lock()
	defer a.changing.Unlock()
	p, err := a.principal(id)
	if err != nil {
		return Principal{}, err
	}
	state := ledger.Statement{Kind: ledger.PrincipalRemoved}
	if p.Avatar != nil {
		state.Avatar = *p.Avatar
	}
	return *p, a.remove(ctx, p, state)
}

// remove deletes a principal's document.
func (a *Agent) remove(ctx context.Context, p *Principal, state ledger.Statement) error {
	state.Time, state.Object = a.cfg.Now().UnixNano(), carnet.FingerprintOf([]byte(p.ID))
	item, err := a.cfg.State(state)
	if err != nil {
		return err
	}
	err = a.cfg.Revocations.End(ctx, func(number carnet.Document) error {
		return a.cfg.Store.Put(ctx, []carnet.Document{{Kind: kindPrincipal, ID: p.ID, Version: p.version + 1}, number}, []ledger.Item{item})
	})
	if err != nil {
		return err
	}
	a.cfg.Recorded()
	return a.load(ctx)
}

func (a *Agent) principal(id string) (*Principal, error) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if p := a.principals[id]; p != nil {
		return p, nil
	}
	return nil, carnet.Errorf(carnet.NotFound, "there is no principal %.64q", id).WithFix("list the principals")
}

// Removed is closed when the next principal has been removed, in whichever process:
// what it has open without a grant ends with its token.
func (a *Agent) Removed() <-chan struct{} {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.removed
}

// Principals lists all principals, oldest first.
func (a *Agent) Principals() []Principal {
	a.mu.RLock()
	defer a.mu.RUnlock()
	all := make([]Principal, 0, len(a.principals))
	for _, p := range a.principals {
		all = append(all, *p)
	}
	slices.SortFunc(all, func(p, q Principal) int { return cmp.Or(p.Created.Compare(q.Created), cmp.Compare(p.ID, q.ID)) })
	return all
}

// Authenticate says whose token that is.
func (a *Agent) Authenticate(token string) (policy.Principal, bool) {
	id, secret, ok := strings.Cut(token, ".")
	if !ok {
		return policy.Principal{}, false
	}
	a.mu.RLock()
	p := a.principals[id]
	a.mu.RUnlock()
	if p == nil {
		hash(make([]byte, 16), secret) // the same work
		return policy.Principal{}, false
	}
	if subtle.ConstantTimeCompare(p.hashOf(secret), p.Hash) != 1 {
		return policy.Principal{}, false
	}
	return p.who(), true
}

// behind finds the principals that are the guard's one: several programs may act
// as one avatar.
func behind(principals map[string]*Principal, who policy.Principal) (all []*Principal) {
	if who.Kind == policy.Application {
		if p := principals[who.Name]; p != nil {
			return []*Principal{p}
		}
		return nil
	}
	for _, p := range principals {
		if p.who() == who {
			all = append(all, p)
		}
	}
	return all
}
