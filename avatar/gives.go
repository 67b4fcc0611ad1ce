package avatar

import (
	"context"
	"math"
	"slices"
	"strings"

	"carnet"
	"carnet/policy"
)

// gives stands for what a stream gives now, as its sender has said: names of properties.
// There are millions of streams, and few such lists.
type gives uint16

const (
	givesUnknown gives = iota // the sender hasn't said it
	givesNothing              // the stream has ended, or its view admits nothing
)

// lists are the lists of names that streams give. Guarded by Agent.mu.
type lists struct {
	all []string // by gives: each name behind a line break, and one after the last
	ids map[string]gives
	of  map[carnet.PartyID]int // how many each sender has brought since the start
}

func newLists() lists {
	return lists{all: []string{"", "\n"}, ids: map[string]gives{"\n": givesNothing}, of: make(map[carnet.PartyID]int)}
}

// Bounds of what a sender says. Of what is beyond the last two it isn't known what is given.
const (
	maxGivesName = 128      // bytes of a name
	maxGives     = 32 << 10 // bytes of a list
	maxGivesOf   = 1024     // lists of one sender
)

// givesOf takes up what a sender says; nil: that it doesn't know.
func (a *Agent) givesOf(sender carnet.PartyID, names *[]string) (gives, error) {
	if names == nil {
		return givesUnknown, nil
	}
	all := slices.Clone(*names)
	slices.Sort(all)
	all = slices.Compact(all)
	var text strings.Builder
	for _, name := range all {
		if name == "" || len(name) > maxGivesName || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' }) {
			return givesUnknown, carnet.Errorf(carnet.Malformed, "a stream gives a property %.40q, which is no name", name)
		}
		text.WriteString("\n" + name)
	}
	text.WriteString("\n")
	a.mu.Lock()
	defer a.mu.Unlock()
	l := &a.lists
	if id, known := l.ids[text.String()]; known {
		return id, nil
	}
	if text.Len() > maxGives || l.of[sender] >= maxGivesOf || len(l.all) > math.MaxUint16 {
		return givesUnknown, nil
	}
	id := gives(len(l.all))
	l.all, l.ids[text.String()] = append(l.all, text.String()), id
	l.of[sender]++
	return id, nil
}

// givenBy is what a stream's sender has said; nil: nothing.
func (a *Agent) givenBy(s *stream) *[]string {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if s.gives == givesUnknown {
		return nil
	}
	names := namesOf(a.lists.all[s.gives])
	return &names
}

func namesOf(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == '\n' })
}

func has(list, name string) bool { return strings.Contains(list, "\n"+name+"\n") }

// takeGives notes what streams of a sender give. What isn't here, or has ended, is
// passed over: either side's store may be an older copy.
func (a *Agent) takeGives(ctx context.Context, from carnet.PartyID, told []carnet.StreamGives) error {
	a.changeMu.Lock()
	defer a.changeMu.Unlock()
	of := make(map[*Avatar][]given)
	for i := range told {
		s := a.stream(told[i].Stream)
		if s == nil || s.sender != from {
			continue
		}
		now, err := a.givesOf(from, &told[i].Properties)
		if err != nil {
			return err
		}
		of[s.avatar] = append(of[s.avatar], given{s, now})
	}
	for v, all := range of {
		if err := a.setGives(ctx, v, all); err != nil {
			return err
		}
	}
	return nil
}

// ShareGives notes what a share gives an avatar now, as its giver has said: names of the
// view's properties; nil: the giver doesn't know. It is durable on return.
func (a *Agent) ShareGives(ctx context.Context, id carnet.AvatarID, share carnet.ShareID, names *[]string) error {
	a.changeMu.Lock()
	defer a.changeMu.Unlock()
	v, err := a.avatar(id)
	if err != nil {
		return err
	}
	var all []given
	for _, s := range a.streamsOf(v) {
		if by, ok := a.shareOf(s.id); !ok || by.ID != share {
			continue
		}
		now, err := a.givesOf(s.sender, names)
		if err != nil {
			return err
		}
		all = append(all, given{s, now})
	}
	return a.setGives(ctx, v, all)
}

// given is what a stream gives now.
type given struct {
	stream *stream
	now    gives
}

// setGives keeps what streams of an avatar give, in one commit. The caller holds changeMu.
func (a *Agent) setGives(ctx context.Context, v *Avatar, all []given) error {
	all = slices.DeleteFunc(all, func(g given) bool { return g.stream.ended || g.stream.gives == g.now })
	if len(all) == 0 {
		return nil
	}
	before := make([]gives, len(all))
	for i, g := range all {
		before[i] = a.noteGives(g.stream, g.now)
	}
	err := a.saveAvatar(ctx, v, v.streams, nil)
	if err != nil {
		for i, g := range slices.Backward(all) {
			a.noteGives(g.stream, before[i])
		}
	}
	return err
}

// noteGives takes up what a stream gives, and returns what it gave before. The caller
// holds changeMu.
func (a *Agent) noteGives(s *stream, now gives) (before gives) {
	a.mu.Lock()
	before, s.gives = s.gives, now
	a.mu.Unlock()
	if before != now {
		a.givesChanged.Add(1)
	}
	return before
}

// GivesChanged grows whenever what is given to an avatar may be something else.
func (a *Agent) GivesChanged() uint64 { return a.givesChanged.Load() }

// allGive is what the streams of an avatar give now, list by list, and false unless each
// has said so.
func (a *Agent) allGive(v *Avatar, besides func(*stream) bool) (all []string, known bool) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, s := range v.streams {
		switch {
		case s.gives == givesNothing || besides(s):
		case s.gives == givesUnknown:
			return nil, false
		default:
			all = append(all, a.lists.all[s.gives])
		}
	}
	return all, true
}

// withdrawn says which of an avatar's properties nothing gives any more. None is unless
// that is known of all that gives to it.
func (a *Agent) withdrawn(v *Avatar) func(property string) bool {
	all, known := a.allGive(v, func(*stream) bool { return false })
	return func(property string) bool {
		return known && !slices.ContainsFunc(all, func(list string) bool { return has(list, property) })
	}
}

// Gives names what of a view's properties an avatar is given now and may pass on, and
// false where that isn't known.
func (a *Agent) Gives(id carnet.AvatarID, view policy.View) (names []string, known bool) {
	v, err := a.avatar(id)
	if err != nil {
		return nil, false
	}
	all, known := a.allGive(v, func(s *stream) bool {
		share, ok := a.shared[s.id] // a.mu is held
		return ok && !share.Onward
	})
	if !known {
		return nil, false
	}
	names = []string{}
	for property := range view.Properties {
		for _, list := range all {
			if has(list, property) {
				names = append(names, property)
			} else if strings.Contains(list, "\n"+property+"/") { // some of an object's fields
				names = append(names, slices.DeleteFunc(namesOf(list), func(n string) bool { return !strings.HasPrefix(n, property+"/") })...)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), true
}

// ShareGave names what a share gives an avatar now, and false where its giver hasn't said
// that, or nothing has come of it yet.
func (a *Agent) ShareGave(id carnet.AvatarID, share carnet.ShareID) (names []string, known bool) {
	v, err := a.avatar(id)
	if err != nil {
		return nil, false
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, s := range v.streams {
		if by, ok := a.shared[s.id]; !ok || by.ID != share {
			continue
		} else if s.gives == givesUnknown {
			return nil, false
		}
		names, known = append(names, namesOf(a.lists.all[s.gives])...), true
	}
	slices.Sort(names)
	return slices.Compact(names), known
}
