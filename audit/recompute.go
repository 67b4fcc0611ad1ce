package audit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"carnet"
)

// Oracle knows one mapping's history of views. It is safe for concurrent use.
type Oracle struct {
	from       uint64
	upto       map[int64]uint64
	versions   []*version // oldest first
	properties []Property
	index      map[string]int // of a property, by name
	suspects   []int          // versions of which findUse must know whether they asked a memory
}

// version is a ViewVersion that was read.
type version struct {
	stopped bool
	since   map[int64]uint64
	leaves  []leaf          // by property
	keys    map[string]bool // the memories that it has
}

// New checks what is known of a mapping. It refuses what docs/design/policy.md
// refuses: a view that can't be read, or asks for what a property can't do.
func New(cfg Config) (*Oracle, error) {
	if len(cfg.Views) == 0 {
		return nil, carnet.Errorf(carnet.Malformed, "the mapping has no recorded view")
	}
	o := &Oracle{from: cfg.From, upto: cfg.Upto, properties: cfg.Views[0].Properties, index: make(map[string]int)}
	for i, p := range o.properties {
		if _, twice := o.index[p.Name]; twice {
			return nil, carnet.Errorf(carnet.Malformed, "the description has %q twice", p.Name)
		}
		o.index[p.Name] = i
	}
	for i, v := range cfg.Views {
		if i > 0 && v.Version <= cfg.Views[i-1].Version {
			return nil, carnet.Errorf(carnet.Malformed, "view %d comes after view %d: want ascending versions", v.Version, cfg.Views[i-1].Version)
		}
		read, err := o.read(v)
		if err != nil {
			return nil, fmt.Errorf("read view %d: %w", v.Version, err)
		}
		o.versions = append(o.versions, read)
	}
	o.suspects = suspects(o.versions)
	return o, nil
}

func (o *Oracle) read(v ViewVersion) (*version, error) {
	same := func(a, b Property) bool {
		return a.Name == b.Name && a.Unit == b.Unit && a.Kind == b.Kind && a.Linger == b.Linger
	}
	if !slices.EqualFunc(v.Properties, o.properties, same) {
		return nil, carnet.Errorf(carnet.Malformed, "its properties are not those of the first view")
	}
	lingers := make(map[string]time.Duration)
	for _, p := range v.Properties {
		if _, ok := v.Since[p.lane()]; !ok {
			return nil, carnet.Errorf(carnet.Malformed, "it doesn't say since when it decides %q, which waits for %v", p.Name, p.Linger)
		}
		object, _, _ := strings.Cut(p.Name, "/")
		if l, ok := lingers[object]; ok && l != p.Linger {
			return nil, carnet.Errorf(carnet.Malformed, "%q waits for %v, and another field of its object for %v", p.Name, p.Linger, l)
		}
		lingers[object] = p.Linger
	}
	parsed, err := parseView(v.View)
	if err != nil {
		return nil, err
	}
	leaves, err := compile(parsed, v.Properties)
	if err != nil {
		return nil, err
	}
	keys := make(map[string]bool)
	for _, l := range leaves {
		keys[l.key] = true
	}
	return &version{v.Stopped, v.Since, leaves, keys}, nil
}

// lane names the property's lane.
func (p Property) lane() int64 { return p.Linger.Milliseconds() }

// suspects are the versions that lack a memory which one before and one after
// them has: once such a version asks any memory, in whichever lane, that one is
// forgotten (policy.md section 5).
func suspects(versions []*version) (found []int) {
	before := make(map[string]bool)
	for i, v := range versions {
		lacks := func(key string) bool {
			return !v.keys[key] && slices.ContainsFunc(versions[i+1:], func(w *version) bool { return w.keys[key] })
		}
		for key := range before {
			if lacks(key) {
				found = append(found, i)
				break
			}
		}
		for key := range v.keys {
			before[key] = true
		}
	}
	return found
}

// deciding is the newest version that decides a lane's position, and -1 when
// none does.
func (o *Oracle) deciding(position uint64, lane int64) int {
	for i := len(o.versions) - 1; i >= 0; i-- {
		if o.versions[i].since[lane] <= position {
			return i
		}
	}
	return -1
}

// due says whether a position of a lane is decided and has reached the world.
func (o *Oracle) due(position uint64, lane int64) bool {
	upto, ok := o.upto[lane]
	return !ok || position < upto
}

// Recompute hands over what the log's messages may show to the world, in the
// log's order.
func (o *Oracle) Recompute(ctx context.Context, log Log, do func(Admitted) error) error {
	forgets, err := o.findUse(ctx, log)
	if err != nil {
		return err
	}
	memories := make(map[string]*memory)
	return o.each(ctx, log, func(position uint64, property, deciding int, m carnet.Measurement) error {
		v, p := o.versions[deciding], o.properties[property]
		l := &v.leaves[property]
		mem := memories[l.key]
		if mem == nil {
			mem = new(memory)
			memories[l.key] = mem
		}
		for i := mem.version + 1; i < deciding; i++ {
			if forgets[i] && !o.versions[i].keys[l.key] {
				*mem = memory{}
			}
		}
		mem.version = deciding
		shown, ok := l.apply(mem, m)
		if !ok {
			return nil
		}
		return do(Admitted{position, o.due(position, p.lane()), carnet.Measurement{Name: p.Name, Unit: p.Unit, Time: m.Time, Value: shown}})
	})
}

// each walks over the log's measurements that some version decides.
func (o *Oracle) each(ctx context.Context, log Log, do func(position uint64, property, deciding int, m carnet.Measurement) error) error {
	next := o.from
	return log(ctx, o.from, func(message Message) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if message.Position < next {
			return carnet.Errorf(carnet.Malformed, "the log has position %d where %d or more must come", message.Position, next)
		}
		next = message.Position + 1
		for _, m := range message.Measurements {
			property, ok := o.index[m.Name]
			if !ok {
				return carnet.Errorf(carnet.UnknownProperty, "the log has %q at position %d, which the description lacks", m.Name, message.Position)
			}
			deciding := o.deciding(message.Position, o.properties[property].lane())
			if deciding < 0 || o.versions[deciding].stopped {
				continue
			}
			if err := do(message.Position, property, deciding, m); err != nil {
				return err
			}
		}
		return nil
	})
}

var errKnown = errors.New("every suspect is known to be used")

// findUse says which of the suspects asked any memory. Only if there are any it
// reads the log for it.
func (o *Oracle) findUse(ctx context.Context, log Log) (map[int]bool, error) {
	if len(o.suspects) == 0 {
		return nil, nil
	}
	used := make(map[int]bool)
	err := o.each(ctx, log, func(_ uint64, property, deciding int, m carnet.Measurement) error {
		if !used[deciding] && o.versions[deciding].leaves[property].asks(m) && slices.Contains(o.suspects, deciding) {
			if used[deciding] = true; len(used) == len(o.suspects) {
				return errKnown
			}
		}
		return nil
	})
	if errors.Is(err, errKnown) {
		err = nil
	}
	return used, err
}
