package owner

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"slices"
	"time"

	"carnet"
	"carnet/identity"
	"carnet/policy"
	"carnet/seal"
)

// ReceptionLife is how long an announced reception key is good: a passport must open
// when the world that made it is gone.
const ReceptionLife = 10 * 366 * 24 * time.Hour

// Reader is how an owner is called in key bags.
const Reader carnet.PartyID = "owner"

// Reception announces the reception key that the keystore has beside its key for a
// world, for passports that this world makes. The first time it draws one, which is on
// disk when Reception returns. Worlds that compare their announcements find nothing in
// common.
func (k *Keystore) Reception(party carnet.PartyID, now time.Time) ([]byte, error) {
	i, err := k.only(party)
	if err != nil {
		return nil, err
	}
	w := k.inside.Keys[i]
	if len(w.Reception) == 0 {
		key, err := seal.NewReceptionKey()
		if err != nil {
			return nil, err
		}
		in := k.inside
		in.Keys = slices.Clone(in.Keys)
		if in.Keys[i].Reception, err = key.Bytes(); err != nil {
			return nil, err
		}
		if err := k.save(in); err != nil {
			return nil, err
		}
		w = k.inside.Keys[i]
	}
	key, err := seal.ParseReceptionKey(w.Reception)
	if err != nil {
		return nil, err
	}
	return key.Announce(w.private(), Reader, now.UTC().Truncate(time.Second).Add(ReceptionLife))
}

// only finds the key for a world by the world's name, if there is one such world.
func (k *Keystore) only(party carnet.PartyID) (int, error) {
	at := -1
	for i, w := range k.inside.Keys {
		if w.World.Party != party || len(w.Avatars) == 0 {
			continue
		}
		if at >= 0 {
			return -1, carnet.Errorf(carnet.Conflict, "the keystore has keys for two worlds that are called %s", party).WithFix("use a keystore of its own for one of them")
		}
		at = i
	}
	if at < 0 {
		return -1, carnet.Errorf(carnet.NotFound, "no world that is called %s has pinned a key of this keystore", party).WithFix("carnet owner claim THING/WORLD --keystore FILE")
	}
	return at, nil
}

// Passported is what a passport has for the owner of its avatar.
type Passported struct {
	Bags   [][]byte
	Policy string // the avatar's, as it was signed; empty: none
}

// Recover signs what a recovery request asks for, by the key that is registered for the
// avatar's home, and seals the keys in a passport's bags anew, to the target. Bags that
// aren't for this keystore are left out. The avatar's policy goes along as it was signed
// last, here, or as the passport or the request has it, and binds the recovery itself.
// What is returned is on disk, with the key for the target.
func (k *Keystore) Recover(r identity.RecoveryRequest, from Passported, now time.Time, life time.Duration) (identity.Recovered, error) {
	var none identity.Recovered
	document, err := r.Marshal()
	if err != nil {
		return none, err
	}
	_, word, err := identity.ParseRecoveryRequest(document)
	if err != nil {
		return none, err
	}
	i := slices.IndexFunc(k.inside.Keys, func(w worldKey) bool { return w.did() == word.Owner })
	if i < 0 {
		return none, carnet.Errorf(carnet.NotFound, "the avatar's home is registered for the key %s, which this keystore doesn't have", word.Owner).
			WithFix("use the keystore with which it was claimed first")
	}
	owner := k.inside.Keys[i].private()
	target, err := identity.ParseDID(r.TargetKey)
	if err != nil {
		return none, err
	}
	if r.Policy, err = k.newestPolicy(word.Avatar, from.Policy, r.Policy); err != nil {
		return none, err
	}
	bounds, err := boundsOf(r.Policy)
	if err != nil {
		return none, err
	}
	if err := mayCome(r, bounds, now); err != nil {
		return none, err
	}
	sealed, err := k.sealAnew(r, word, owner, target, from.Bags, bounds, now)
	if err != nil {
		return none, err
	}
	world := World{r.Target, target}
	there, err := k.Key(world)
	if err != nil {
		return none, err
	}
	recovery, terms, err := r.Sign(owner, there, now, min(life, identity.RecoveryLife))
	if err != nil {
		return none, err
	}
	if err := k.Pinned(world, r.To); err != nil {
		return none, err
	}
	if err := k.keepPolicyOf(terms); err != nil {
		return none, err
	}
	return identity.Recovered{Recovery: recovery, Terms: terms, Bags: sealed}, nil
}

// PolicyFor is the policy under which an avatar would be recovered, from a passport that
// has one; empty: none.
func (k *Keystore) PolicyFor(r identity.RecoveryRequest, passported string) (string, error) {
	word, err := identity.OpenPassport(r.Passport)
	if err != nil {
		return "", err
	}
	return k.newestPolicy(word.Avatar, passported, r.Policy)
}

// newestPolicy is the policy of an avatar as it was signed last: in the keystore, which
// may be an older copy, or as a passport or a request has it, which may be brought by
// somebody who would have an older one. Empty: it has none.
func (k *Keystore) newestPolicy(avatar carnet.AvatarID, brought ...string) (string, error) {
	newest, _, err := k.policy(avatar)
	if err != nil && carnet.CodeOf(err) != carnet.NotFound {
		return "", err
	}
	for _, signed := range brought {
		if signed == "" {
			continue
		}
		said, err := identity.OpenAvatarPolicy(signed)
		if err != nil {
			return "", err
		}
		if w := k.worldOf(said.Owner); w == nil || said.Avatar != avatar || !slices.Contains(w.Avatars, avatar) {
			return "", signsOwn(carnet.Errorf(carnet.Forbidden, "the recovery is asked for under a policy of the avatar %s that no key of this keystore has signed", avatar), avatar)
		}
		if said.Version == newest.Said.Version && !bytes.Equal(said.Policy, newest.Said.Policy) {
			return "", signsOwn(carnet.Errorf(carnet.Conflict, "the avatar %s has two policies of version %d, which differ", avatar, said.Version), avatar)
		}
		if said.Version > newest.Said.Version {
			newest = Policy{Said: said, Signed: signed}
		}
	}
	return newest.Signed, nil
}

// signsOwn says what an owner does about a policy that can't be theirs.
func signsOwn(err error, avatar carnet.AvatarID) error {
	e, ok := errors.AsType[*carnet.Error](err)
	if !ok {
		return err
	}
	return e.WithFix("sign one of your own, with a greater --version (carnet owner policy set %s FILE), write it out (carnet owner policy signed %s --out FILE), and import the passport with that: --policy FILE", avatar, avatar)
}

func boundsOf(signed string) (b policy.Bounds, err error) {
	if signed == "" {
		return b, nil
	}
	said, err := identity.OpenAvatarPolicy(signed)
	if err != nil {
		return b, err
	}
	b, err = policy.ParseBounds(said.Policy)
	b.Version = said.Version
	return b, err
}

// mayCome refuses a recovery that the avatar's policy forbids. The order is the owner's
// word, and so is the policy: neither is passed over for the other.
func mayCome(r identity.RecoveryRequest, b policy.Bounds, now time.Time) error {
	err := b.MayCross(r.TargetKey, r.Target, now)
	for _, i := range r.Items {
		if err == nil {
			err = b.MayTakeItem(i.Item)
		}
	}
	return newer(err)
}

// newer says what to do about one's own policy.
func newer(err error) error {
	if e, ok := errors.AsType[*carnet.Error](err); ok {
		return e.WithFix("if you mean it, sign a newer policy that lets it (carnet owner policy set AVATAR FILE --keystore FILE), and approve again; where the import itself was refused for it, import the passport with it (carnet owner policy signed AVATAR --out FILE, --policy FILE)")
	}
	return err
}

// sealAnew opens the bags that are sealed to a reception key of this keystore, and seals
// their keys to the target: what it is cleared for, by its own word.
func (k *Keystore) sealAnew(r identity.RecoveryRequest, word identity.Passport, owner ed25519.PrivateKey, target ed25519.PublicKey, bags [][]byte, bounds policy.Bounds, now time.Time) (sealed [][]byte, err error) {
	source, err := identity.ParseDID(word.Source)
	if err != nil {
		return nil, err
	}
	reception, err := seal.ParseReception(r.Reception, target, now)
	if err != nil {
		return nil, err
	}
	if reception.Reader != r.Target {
		return nil, carnet.Errorf(carnet.Forbidden, "the request has a reception key of %s, and asks for %s", reception.Reader, r.Target)
	}
	clearance, err := r.Clearance()
	if err != nil {
		return nil, err
	}
	for _, bag := range bags {
		key, err := k.receptionOf(bag)
		if err != nil {
			return nil, err
		}
		if key == nil {
			continue
		}
		opened, err := key.OpenBag(bag, seal.Expected{Granter: word.World, Signer: source, Reader: Reader, Now: now})
		if err != nil {
			return nil, err
		}
		if opened.Grant != word.Passport {
			return nil, carnet.Errorf(carnet.Forbidden, "a key bag is of another passport")
		}
		for _, e := range opened.Entries {
			if s := e.Ceiling.Sensitivity; s&^bounds.MostHistory() != 0 {
				return nil, newer(carnet.Errorf(carnet.Forbidden, "your policy of the avatar, version %d, forbids it: what crosses is %s at most, and its history is %s (cross.sensitivity)", bounds.Version, bounds.MostHistory(), s))
			}
		}
		again, err := seal.Grant(owner, reception, seal.Terms{
			Granter: Reader, Grant: r.Recovery, Purpose: r.Purpose, Clearance: clearance, Time: now, NotAfter: opened.NotAfter,
		}, opened.Entries)
		if err != nil {
			return nil, err
		}
		sealed = append(sealed, again)
	}
	return sealed, nil
}

// receptionOf finds the reception key that a bag is sealed to; nil: it is somebody
// else's.
func (k *Keystore) receptionOf(bag []byte) (*seal.ReceptionKey, error) {
	id, err := seal.BagReception(bag)
	if err != nil {
		return nil, err
	}
	for _, w := range k.inside.Keys {
		if len(w.Reception) == 0 {
			continue
		}
		key, err := seal.ParseReceptionKey(w.Reception)
		if err != nil {
			return nil, err
		}
		if key.ID() == id {
			return key, nil
		}
	}
	return nil, nil
}
