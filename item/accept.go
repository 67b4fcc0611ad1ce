package item

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"carnet"
	"carnet/identity"
	"carnet/ledger"
)

// Acceptance says which items of another issuer this world takes, and as what.
type Acceptance struct {
	Issuer     string               `json:"issuer"` // did:key
	Kind       string               `json:"kind"`   // the issuer's
	As         string               `json:"as"`     // this world's
	Attributes map[string]Attribute `json:"attributes,omitempty"`
}

// Attribute says what an attribute of a foreign item is called here, and, of a number,
// within which bounds it is taken.
type Attribute struct {
	As  string   `json:"as"`
	Min *float64 `json:"min,omitempty"`
	Max *float64 `json:"max,omitempty"`
}

// Looks is what a foreign item is in this world, by this world's word.
type Looks struct {
	Kind       string              `json:"kind"`
	Attributes identity.Attributes `json:"attributes"`
}

func (a Acceptance) id() string { return a.Issuer + "/" + a.Kind }

func (a Acceptance) check() error {
	if _, err := identity.ParseDID(a.Issuer); err != nil {
		return err
	}
	for _, w := range []string{a.Kind, a.As} {
		if err := identity.CheckItemWord("kind", w); err != nil {
			return err
		}
	}
	names := make(map[string]bool)
	for name, is := range a.Attributes {
		for _, w := range []string{name, is.As} {
			if err := identity.CheckItemWord("attribute's name", w); err != nil {
				return err
			}
		}
		if names[is.As] {
			return carnet.Errorf(carnet.Malformed, "two attributes would be called %s here", is.As)
		}
		names[is.As] = true
		if is.Min != nil && is.Max != nil && *is.Min > *is.Max {
			return carnet.Errorf(carnet.Malformed, "the attribute %s has a least above its most", name)
		}
	}
	if len(a.Attributes) > 32 {
		return carnet.Errorf(carnet.TooLarge, "%d attributes would carry over, at most 32", len(a.Attributes))
	}
	return nil
}

// fit is what an item looks like here by an acceptance.
func (a Acceptance) fit(i identity.Item) (Looks, error) {
	l := Looks{Kind: a.As, Attributes: identity.Attributes{}}
	for _, name := range sorted(a.Attributes) {
		is := a.Attributes[name]
		v, has := i.Attributes[name]
		if !has {
			continue
		}
		n, number := v.(float64)
		switch {
		case (is.Min != nil || is.Max != nil) && !number:
			return Looks{}, beyond("its attribute %s is %v, and here it must be a number", name, v)
		case is.Min != nil && n < *is.Min:
			return Looks{}, beyond("its attribute %s is %v, and the least that is taken here is %v", name, n, *is.Min)
		case is.Max != nil && n > *is.Max:
			return Looks{}, beyond("its attribute %s is %v, and the most that is taken here is %v", name, n, *is.Max)
		}
		l.Attributes[is.As] = v
	}
	return l, nil
}

func beyond(format string, args ...any) error {
	return carnet.Errorf(carnet.Forbidden, format, args...).WithFix("the world can accept more: carnet item accept")
}

func sorted[T any](m map[string]T) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Accept takes items of a kind of another issuer from now on, in the place of what was
// accepted of it before. It is durable on return.
func (b *Book) Accept(ctx context.Context, a Acceptance) error {
	if err := a.check(); err != nil {
		return err
	}
	if a.Issuer == b.did {
		return carnet.Errorf(carnet.Malformed, "this world's own items are accepted always, as themselves")
	}
	b.changing.Lock()
	defer b.changing.Unlock()
	b.mu.RLock()
	n := len(b.accepted)
	_, had := b.accepted[a.id()]
	b.mu.RUnlock()
	if n >= maxAccepted && !had {
		return carnet.Errorf(carnet.TooLarge, "%d kinds of others are accepted, and at most so many", n).WithFix("remove some")
	}
	return b.putAcceptance(ctx, a, &a)
}

const maxAccepted = 10_000

// Refuse takes no more items of a kind of another issuer. Those that are here stay.
func (b *Book) Refuse(ctx context.Context, issuer, kind string) (Acceptance, error) {
	b.changing.Lock()
	defer b.changing.Unlock()
	a := Acceptance{Issuer: issuer, Kind: kind}
	b.mu.RLock()
	had, ok := b.accepted[a.id()]
	b.mu.RUnlock()
	if !ok {
		return a, carnet.Errorf(carnet.NotFound, "nothing is accepted of %.80q by %.80q", kind, issuer).WithFix("list what is: carnet item accepted")
	}
	return had.Acceptance, b.putAcceptance(ctx, had.Acceptance, nil)
}

// putAcceptance stores what is accepted of a kind from now on; nil: nothing. The caller
// holds changing.
func (b *Book) putAcceptance(ctx context.Context, of Acceptance, a *Acceptance) error {
	b.mu.RLock()
	had := b.accepted[of.id()]
	b.mu.RUnlock()
	next := accepted{of, had.version + 1}
	d := carnet.Document{Kind: kindAccepted, ID: of.id(), Version: next.version}
	if a != nil {
		var err error
		if d, err = b.document(kindAccepted, of.id(), next.version, a); err != nil {
			return err
		}
	}
	text, err := json.Marshal(struct {
		Of string      `json:"of"`
		Is *Acceptance `json:"is"`
	}{of.id(), a})
	if err != nil {
		return fmt.Errorf("write what is accepted: %w", err)
	}
	if err := b.put(ctx, []carnet.Document{d}, ledger.Statement{Kind: ledger.ItemAccepted, Object: carnet.FingerprintOf(text)}); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if a == nil {
		delete(b.accepted, of.id())
	} else {
		b.accepted[of.id()] = next
	}
	return nil
}

// Acceptances lists what is accepted, by issuer and kind.
func (b *Book) Acceptances() []Acceptance {
	b.mu.RLock()
	defer b.mu.RUnlock()
	all := make([]Acceptance, 0, len(b.accepted))
	for _, a := range b.accepted {
		all = append(all, a.Acceptance)
	}
	slices.SortFunc(all, func(p, q Acceptance) int {
		return cmp.Or(strings.Compare(p.Issuer, q.Issuer), strings.Compare(p.Kind, q.Kind))
	})
	return all
}

// Fit says what an item would be here, by its credential; carnet.Forbidden if it isn't
// accepted, with the reason.
func (b *Book) Fit(credential string) (identity.Item, Looks, error) {
	i, err := identity.OpenItem(credential)
	if err != nil {
		return i, Looks{}, err
	}
	if i.Issuer == b.did {
		return i, Looks{i.Kind, i.Attributes}, nil
	}
	b.mu.RLock()
	a, ok := b.accepted[i.FullKind()]
	b.mu.RUnlock()
	if !ok {
		return i, Looks{}, carnet.Errorf(carnet.Forbidden, "%s accepts no %s of the issuer %s", b.cfg.Party, i.Kind, i.Issuer).
			WithFix("its administrator can: carnet item accept --issuer %s --kind %s --counts-as KIND", i.Issuer, i.Kind)
	}
	l, err := a.fit(i)
	return i, l, err
}
