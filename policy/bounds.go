package policy

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"carnet"
)

// MaxBounds is how many bytes a document of bounds has at most: it goes along in the
// terms of a move.
const MaxBounds = 4 << 10

// Bounds are what an avatar's owner lets be done with it, as data: they permit
// nothing by themselves, and every decision holds them beside what permits it
// (docs/design/avatar-policy.md). The zero Bounds bound nothing.
//
// A list that is nil bounds nothing, an empty one allows none. Worlds, DPMs and
// depots are named by the did:key that they show their peers.
type Bounds struct {
	Store    StoreBounds    `json:"store,omitzero"`
	Use      UseBounds      `json:"use,omitzero"`
	Transmit TransmitBounds `json:"transmit,omitzero"`
	Cross    CrossBounds    `json:"cross,omitzero"`

	// Version is that of the avatar policy that says so; 0: there is none. It isn't in
	// the document.
	Version uint64 `json:"-"`
}

// StoreBounds say where an avatar's data may be kept beside its world.
type StoreBounds struct {
	Depots []string `json:"depots,omitzero"`
}

// UseBounds say what it may be used for, and by what.
type UseBounds struct {
	Purposes []string `json:"purposes,omitzero"`
	DPMs     []string `json:"dpms,omitzero"`
	Engines  []string `json:"engines,omitzero"`
	Modules  []string `json:"modules,omitzero"` // NAME, or NAME@VERSION
}

// TransmitBounds say who may be given it.
type TransmitBounds struct {
	Worlds       []string            `json:"worlds,omitzero"`
	Applications []string            `json:"applications,omitzero"`
	Avatars      []string            `json:"avatars,omitzero"` // of its own world
	Sensitivity  *carnet.Sensitivity `json:"sensitivity,omitzero"`
	Onward       *bool               `json:"onward,omitzero"`
}

// CrossBounds say where it may move, when, and with what.
type CrossBounds struct {
	Worlds      []string            `json:"worlds,omitzero"`
	From        time.Time           `json:"from,omitzero"`
	Until       time.Time           `json:"until,omitzero"`
	Sensitivity *carnet.Sensitivity `json:"sensitivity,omitzero"` // of the history that goes along
	Items       []string            `json:"items,omitzero"`
}

// ParseBounds reads a document of bounds. It refuses unknown members, those that stand
// twice, wrong types and values out of range, naming the place and what is wanted.
func ParseBounds(b []byte) (Bounds, error) { return ReadBounds(b, nil) }

// ReadBounds reads a document that may call worlds, DPMs and depots by names: did says
// what one's did:key is, or nothing.
func ReadBounds(b []byte, did func(name string) string) (bounds Bounds, err error) {
	root, err := parseJSON("avatar policy", MaxBounds, b)
	if err != nil {
		return Bounds{}, err
	}
	root.did = did
	err = root.object(func(key string, n node) error {
		switch key {
		case "store":
			return n.object(bounds.Store.member)
		case "use":
			return n.object(bounds.Use.member)
		case "transmit":
			return n.object(bounds.Transmit.member)
		case "cross":
			return n.object(bounds.Cross.member)
		}
		return n.refuse("unknown member: want store, use, transmit or cross")
	})
	if err != nil {
		return Bounds{}, err
	}
	if c := bounds.Cross; !c.From.IsZero() && !c.Until.IsZero() && !c.From.Before(c.Until) {
		return Bounds{}, node{what: root.what, pointer: "/cross/until"}.refuse("it is no later than from; leave worlds empty for never")
	}
	return bounds, nil
}

func (s *StoreBounds) member(key string, n node) (err error) {
	if key != "depots" {
		return n.refuse("unknown member: want depots")
	}
	s.Depots, err = n.list(didKey)
	return err
}

func (u *UseBounds) member(key string, n node) (err error) {
	switch key {
	case "purposes":
		u.Purposes, err = n.list(plainWord)
	case "dpms":
		u.DPMs, err = n.list(didKey)
	case "engines":
		u.Engines, err = n.list(plainWord)
	case "modules":
		u.Modules, err = n.list(moduleName)
	default:
		err = n.refuse("unknown member: want purposes, dpms, engines or modules")
	}
	return err
}

func (t *TransmitBounds) member(key string, n node) (err error) {
	switch key {
	case "worlds":
		t.Worlds, err = n.list(didKey)
	case "applications":
		t.Applications, err = n.list(hexID)
	case "avatars":
		t.Avatars, err = n.list(hexID)
	case "sensitivity":
		t.Sensitivity, err = n.sensitivity()
	case "onward":
		is, ok := n.value.(bool)
		if t.Onward = &is; !ok {
			err = n.refuse("want true or false")
		}
	default:
		err = n.refuse("unknown member: want worlds, applications, avatars, sensitivity or onward")
	}
	return err
}

func (c *CrossBounds) member(key string, n node) (err error) {
	switch key {
	case "worlds":
		c.Worlds, err = n.list(didKey)
	case "from":
		c.From, err = n.moment()
	case "until":
		c.Until, err = n.moment()
	case "sensitivity":
		c.Sensitivity, err = n.sensitivity()
	case "items":
		c.Items, err = n.list(hexID)
	default:
		err = n.refuse("unknown member: want worlds, from, until, sensitivity or items")
	}
	return err
}

// form is what the entries of a list look like.
type form struct {
	is   func(string) bool
	want string
}

const (
	lower   = "abcdefghijklmnopqrstuvwxyz"
	digits  = "0123456789"
	base58  = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
	didHead = "did:key:z"
)

var (
	didKey = form{func(s string) bool {
		rest, is := strings.CutPrefix(s, didHead)
		return is && len(rest) == 47 && strings.Trim(rest, base58) == "" // of an Ed25519 key
	}, "the did:key of a party, as 'carnet owner policy show' lists them"}
	hexID = form{func(s string) bool { return len(s) == 32 && strings.Trim(s, digits+"abcdef") == "" }, "an id of 32 hexadecimal digits"}

	plainWord = form{func(s string) bool {
		return len(s) >= 1 && len(s) <= 64 && strings.Contains(lower, s[:1]) && strings.Trim(s, lower+digits+"_.-") == ""
	}, "a word of a-z, 0-9, '_', '.' and '-'"}
	moduleName = form{func(s string) bool {
		name, version, with := strings.Cut(s, "@")
		is := func(s string) bool { return len(s) >= 1 && len(s) <= 64 && strings.Trim(s, lower+digits+"_.-") == "" }
		return is(name) && (!with || is(version))
	}, "a module's NAME, or NAME@VERSION"}
)

// list reads an array of distinct texts of a form, and sorts it.
func (n node) list(f form) ([]string, error) {
	list, err := n.strings()
	if err != nil {
		return nil, err
	}
	for i, s := range list {
		if n.did != nil && f.want == didKey.want && n.did(s) != "" {
			s = n.did(s)
			list[i] = s
		}
		if !f.is(s) {
			return nil, n.refuse("%.80q isn't %s", s, f.want)
		}
	}
	slices.Sort(list)
	if len(slices.Compact(slices.Clone(list))) != len(list) {
		return nil, n.refuse("an entry stands twice")
	}
	return list, nil
}

func (n node) sensitivity() (*carnet.Sensitivity, error) {
	text, _ := n.value.(string)
	s, err := carnet.ParseSensitivity(text)
	if err != nil || text == "" {
		return nil, n.refuse("want public, personal, health, location, or several joined by '+'")
	}
	return &s, nil
}

func (n node) moment() (time.Time, error) {
	text, _ := n.value.(string)
	at, err := time.Parse(time.RFC3339, text)
	if err != nil || at.Nanosecond() != 0 || at.Unix() <= 0 {
		return time.Time{}, n.refuse("want a time such as 2026-12-01T00:00:00Z, in whole seconds")
	}
	return at.UTC(), nil
}

// Document is the bounds in their one form.
func (b Bounds) Document() ([]byte, error) { return json.Marshal(b) }

// refuse says which member forbids what, and what to do.
func (b Bounds) refuse(member, format string, args ...any) error {
	return carnet.Errorf(carnet.Forbidden, "the avatar's policy, version %d, forbids it: %s (%s)", b.Version, fmt.Sprintf(format, args...), member).
		WithFix("ask its owner, who alone may set another: carnet owner policy set")
}

func forbids(list []string, name string) bool { return list != nil && !slices.Contains(list, name) }

// MayStore refuses a depot that may not keep anything of the avatar.
func (b Bounds) MayStore(depot string) error {
	if forbids(b.Store.Depots, depot) {
		return b.refuse("store.depots", "nothing of it may be kept at the depot %s", depot)
	}
	return nil
}

// MayUseFor refuses a purpose.
func (b Bounds) MayUseFor(purpose string) error {
	if forbids(b.Use.Purposes, purpose) {
		return b.refuse("use.purposes", "it may be used for %s, and not for %s", orNothing(b.Use.Purposes), purpose)
	}
	return nil
}

// MayRun refuses a program over it: on an engine, and as a signed module NAME@VERSION;
// module is empty for a program that is none.
func (b Bounds) MayRun(engine, module string) error {
	name, _, _ := strings.Cut(module, "@")
	switch {
	case forbids(b.Use.Engines, engine):
		return b.refuse("use.engines", "%s may compute over it, and the engine %s not", orNothing(b.Use.Engines), engine)
	case b.Use.Modules != nil && module == "":
		return b.refuse("use.modules", "only signed modules may compute over it: %s", orNothing(b.Use.Modules))
	case forbids(b.Use.Modules, module) && forbids(b.Use.Modules, name):
		return b.refuse("use.modules", "%s may compute over it, and the module %s not", orNothing(b.Use.Modules), module)
	}
	return nil
}

// MayComputeAt refuses a DPM, or what it would be given there.
func (b Bounds) MayComputeAt(dpm string, label carnet.Label) error {
	if forbids(b.Use.DPMs, dpm) {
		return b.refuse("use.dpms", "it may not be computed over at the DPM %s", dpm)
	}
	return b.MayTransmit(label.Sensitivity)
}

// MayTransmit refuses that anybody but its world has something so sensitive of it.
func (b Bounds) MayTransmit(s carnet.Sensitivity) error {
	if s&^b.Most() != 0 {
		return b.refuse("transmit.sensitivity", "what others may have of it is %s at most, and this is %s", b.Most(), s)
	}
	return nil
}

// MayGiveWorld refuses avatars of a world as readers; name is what it is called here.
func (b Bounds) MayGiveWorld(did string, name carnet.PartyID) error {
	if forbids(b.Transmit.Worlds, did) {
		return b.refuse("transmit.worlds", "nothing of it may be given to %s, whose key is %s", name, did)
	}
	return nil
}

// MayGiveApplication refuses an application as a reader.
func (b Bounds) MayGiveApplication(id string) error {
	if forbids(b.Transmit.Applications, id) {
		return b.refuse("transmit.applications", "nothing of it may be given to the application %s", id)
	}
	return nil
}

// MayGiveAvatar refuses another avatar of its world as a reader.
func (b Bounds) MayGiveAvatar(id string) error {
	if forbids(b.Transmit.Avatars, id) {
		return b.refuse("transmit.avatars", "nothing of it may be given to the avatar %s", id)
	}
	return nil
}

// MayPassOn refuses that a reader passes on what it reads.
func (b Bounds) MayPassOn() error {
	if b.Transmit.Onward != nil && !*b.Transmit.Onward {
		return b.refuse("transmit.onward", "nobody who reads it may pass it on")
	}
	return nil
}

// Most is the most sensitive of it that anybody but its world may have.
func (b Bounds) Most() carnet.Sensitivity { return mostOf(b.Transmit.Sensitivity) }

// MayMoveTo refuses a world as its next home, whenever that is.
func (b Bounds) MayMoveTo(did string, name carnet.PartyID) error {
	if forbids(b.Cross.Worlds, did) {
		return b.refuse("cross.worlds", "it may not move to %s, whose key is %s", name, did)
	}
	return nil
}

// MayCross refuses a world as its next home, or the time.
func (b Bounds) MayCross(did string, name carnet.PartyID, at time.Time) error {
	if err := b.MayMoveTo(did, name); err != nil {
		return err
	}
	c := b.Cross
	switch {
	case !c.From.IsZero() && at.Before(c.From):
		return b.refuse("cross.from", "it may move from %s on", c.From.Format(time.RFC3339))
	case !c.Until.IsZero() && !at.Before(c.Until):
		return b.refuse("cross.until", "it might move until %s", c.Until.Format(time.RFC3339))
	}
	return nil
}

// MayTakeHistory refuses history of a sensitivity to go along when it moves.
func (b Bounds) MayTakeHistory(s carnet.Sensitivity) error {
	if most := b.MostHistory(); s&^most != 0 {
		return b.refuse("cross.sensitivity", "what goes along is %s at most, and its history is %s; --redact leaves behind what is above that", most, s)
	}
	return nil
}

// MostHistory is the most sensitive of its history that may go along when it moves.
func (b Bounds) MostHistory() carnet.Sensitivity { return mostOf(b.Cross.Sensitivity) }

// MayTakeItem refuses an item to leave its world.
func (b Bounds) MayTakeItem(id carnet.ItemID) error {
	if forbids(b.Cross.Items, id.String()) {
		return b.refuse("cross.items", "the item %s may not leave its world", id)
	}
	return nil
}

func mostOf(s *carnet.Sensitivity) carnet.Sensitivity {
	if s == nil {
		return carnet.AllSensitive
	}
	return *s
}

func orNothing(list []string) string {
	if len(list) == 0 {
		return "nothing"
	}
	return strings.Join(list, ", ")
}

// Explain says for people what the bounds mean. name says what a party is called; nil,
// or what returns nothing: it is called by its key.
func (b Bounds) Explain(name func(did string) string) (lines []string) {
	called := func(list []string) string {
		names := slices.Clone(list)
		for i, did := range names {
			if name != nil && name(did) != "" {
				names[i] = name(did) + " (" + did + ")"
			}
		}
		return orNothing(names)
	}
	say := func(list []string, format, none string) {
		switch {
		case list == nil:
		case len(list) == 0:
			lines = append(lines, none)
		default:
			lines = append(lines, fmt.Sprintf(format, called(list)))
		}
	}
	say(b.Store.Depots, "Depots that may keep of it: %s.", "No depot may keep anything of it: it is stored in its world only.")
	say(b.Use.Purposes, "It may be used for: %s.", "It may be used for nothing.")
	say(b.Use.DPMs, "It may be computed over in its world, and at: %s.", "It may be computed over in its world only.")
	say(b.Use.Engines, "Engines that may compute over it: %s.", "No engine may compute over it.")
	say(b.Use.Modules, "Programs that may compute over it: the signed modules %s.", "No program may compute over it.")
	say(b.Transmit.Worlds, "Worlds whose avatars may be given of it: %s.", "No other world may be given anything of it.")
	say(b.Transmit.Applications, "Applications that may be given of it: %s.", "No application may be given anything of it.")
	say(b.Transmit.Avatars, "Avatars of its world that may be given of it: %s.", "No other avatar of its world may be given anything of it.")
	if s := b.Transmit.Sensitivity; s != nil {
		lines = append(lines, fmt.Sprintf("Who isn't its world may have what is %s at most.", *s))
	}
	if b.MayPassOn() != nil {
		lines = append(lines, "Nobody who reads it may pass it on.")
	}
	say(b.Cross.Worlds, "It may move to: %s.", "It may not move to another world.")
	if !b.Cross.From.IsZero() {
		lines = append(lines, "It may move from "+b.Cross.From.Format(time.RFC3339)+" on.")
	}
	if !b.Cross.Until.IsZero() {
		lines = append(lines, "It may move until "+b.Cross.Until.Format(time.RFC3339)+".")
	}
	if s := b.Cross.Sensitivity; s != nil {
		lines = append(lines, fmt.Sprintf("Of its history, what is %s at most may go along when it moves.", *s))
	}
	say(b.Cross.Items, "Items that may leave its world: %s.", "None of its items may leave its world.")
	if len(lines) == 0 {
		lines = []string{"It bounds nothing."}
	}
	return lines
}
