package job

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"carnet"
	"carnet/avatar"
	"carnet/capsule"
	"carnet/dpm"
	"carnet/seal"
)

// inputBytes is how large an input becomes before another begins.
const inputBytes = 8 << 20

// chosen are the inputs of a job, and what is known of them.
type chosen struct {
	inputs []capsule.Input
	pins   []Pin
	logs   []Log // at a things agent
	label  carnet.Label
	slots  slots
	bytes  int64
	// properties counts the measurements that the program is given; inward: some came by a
	// share that isn't to be passed on.
	properties map[string]uint64
	inward     bool
}

// slot is a key that the job needs: a batch that it opens, and all chosen batches' labels
// joined.
type slot struct {
	header seal.Header
	label  carnet.Label
}

// slots are the keys that a job needs, each once.
type slots []slot

// add sees to it that a batch's key is among them. What stands in a slot may have several
// labels: who is given its key reads all of it.
func (s *slots) add(b *avatar.Batch, at map[seal.Path]int) {
	path := slotPath(b.Header)
	if i, ok := at[path]; ok {
		(*s)[i].label = (*s)[i].label.Join(b.Label)
		return
	}
	at[path] = len(*s)
	*s = append(*s, slot{b.Header, b.Label})
}

// avatars are what jobs in a world are computed over.
type avatars struct{ *Agent }

// choose implements source: it finds the batches that a job needs.
func (a avatars) choose(ctx context.Context, s *Spec, away bool) (*chosen, error) {
	c := &chosen{properties: make(map[string]uint64)}
	places := make(map[seal.Path]int)
	for i, id := range s.Avatars {
		name := nameOf(i)
		var b *building
		end := func() {
			if b != nil {
				c.inputs, c.pins, b = append(c.inputs, b.input(name)), append(c.pins, b.pin), nil
			}
		}
		q := avatar.BatchQuery{From: s.From.UnixNano(), To: s.To.UnixNano(), Properties: s.Properties, Onward: away}
		err := a.cfg.World.EachBatch(ctx, id, q, func(stream carnet.StreamID, batch *avatar.Batch, ms []carnet.Measurement) error {
			if b != nil && (b.pin.Stream != stream || len(b.data) >= inputBytes) {
				end()
			}
			if b == nil {
				if len(c.inputs) == capsule.MostInputs {
					return carnet.Errorf(carnet.TooLarge, "the job needs more than %d inputs of %d MiB", capsule.MostInputs, inputBytes>>20).
						WithFix("choose a shorter time or fewer avatars, and order several jobs")
				}
				b = &building{pin: Pin{Avatar: id, Stream: stream, First: batch.Header.Number}}
			}
			b.add(batch, ms)
			for i := range ms {
				c.properties[ms[i].Name]++
			}
			c.inward = c.inward || batch.Inward
			c.bytes += int64(len(batch.Bytes))
			c.label = c.label.Join(batch.Label)
			c.slots.add(batch, places)
			return nil
		})
		if err != nil {
			return nil, err
		}
		end()
	}
	if len(c.inputs) == 0 {
		return nil, carnet.Errorf(carnet.NotFound, "the avatars have no such measurements in that time").WithFix("see their history, and the properties' names: carnet avatar history")
	}
	return c, nil
}

// rechoose implements source.
func (a avatars) rechoose(ctx context.Context, j *Job, away bool) (*chosen, error) {
	c := &chosen{inputs: j.Task.Inputs, pins: j.Pins, label: j.Label.Label()}
	places := make(map[seal.Path]int)
	for i, p := range j.Pins {
		b := &building{}
		q := avatar.BatchQuery{From: j.Task.From, To: j.Task.To, Properties: j.Task.Properties, Onward: away, Stream: p.Stream, First: p.First, Last: p.Last}
		err := a.cfg.World.EachBatch(ctx, p.Avatar, q, func(_ carnet.StreamID, batch *avatar.Batch, ms []carnet.Measurement) error {
			b.add(batch, ms)
			c.slots.add(batch, places)
			return nil
		})
		if err != nil {
			return nil, err
		}
		if carnet.FingerprintOf(b.data) != j.Task.Inputs[i].Fingerprint {
			return nil, carnet.Errorf(carnet.NotFound, "it can't be repeated: batches of %s are deleted since, or their keys are destroyed", p.Avatar)
		}
		c.bytes += int64(len(b.data))
	}
	c.label = j.Label.Label()
	return c, nil
}

// nameOf is what the program is told of the i-th avatar.
func nameOf(i int) string { return fmt.Sprintf("a%d", i+1) }

func slotPath(h seal.Header) seal.Path {
	return seal.Path{Level: seal.SlotLevel, Stream: h.Stream, Epoch: h.Epoch, Slot: h.Slot}
}

// building is an input in the making.
type building struct {
	pin    Pin
	data   []byte
	leaves []carnet.Fingerprint
}

func (b *building) add(batch *avatar.Batch, ms []carnet.Measurement) {
	b.data = binary.BigEndian.AppendUint32(b.data, uint32(len(batch.Bytes)))
	b.data = append(b.data, batch.Bytes...)
	b.leaves = append(b.leaves, carnet.FingerprintOf(batch.Bytes))
	b.pin.Last = batch.Header.Number
	b.pin.Measurements += uint64(len(ms))
	b.pin.Along += uint64(batch.Count) - min(uint64(batch.Count), uint64(len(ms)))
}

func (b *building) input(name string) capsule.Input {
	return capsule.Input{
		Content: capsule.Content{Fingerprint: carnet.FingerprintOf(b.data), Size: int64(len(b.data))},
		Avatar:  name, Batches: len(b.leaves), Root: seal.Root(b.leaves),
	}
}

// content makes a job's content again: carnet.NotFound if it can't be, since batches
// are gone.
func (a *Agent) content(ctx context.Context, j *Job, name carnet.Fingerprint) ([]byte, error) {
	if name == j.Task.Program.Fingerprint {
		return a.program(ctx, name)
	}
	i := slices.IndexFunc(j.Task.Inputs, func(in capsule.Input) bool { return in.Fingerprint == name })
	if i < 0 {
		return nil, carnet.Errorf(carnet.NotFound, "the job has no content %s", name)
	}
	p, b := j.Pins[i], &building{}
	q := avatar.BatchQuery{From: j.Task.From, To: j.Task.To, Properties: j.Task.Properties, Onward: j.At != "", Stream: p.Stream, First: p.First, Last: p.Last}
	err := a.cfg.World.EachBatch(ctx, p.Avatar, q, func(_ carnet.StreamID, batch *avatar.Batch, ms []carnet.Measurement) error {
		b.add(batch, ms)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if carnet.FingerprintOf(b.data) != name {
		return nil, carnet.Errorf(carnet.NotFound, "an input of %s is gone: some of its batches are deleted, or their keys are destroyed", p.Avatar)
	}
	return b.data, nil
}

// each implements source.
func (a avatars) each(ctx context.Context, j *Job, opened func(int, uint64), do func(string, []carnet.Measurement) error) error {
	var keyless error // why there was no key
	opener, err := seal.NewOpener(1024, func(header seal.Header) (seal.Key, bool) {
		k, err := a.cfg.World.SlotKey(ctx, header)
		if err != nil {
			keyless = err
		}
		return k, err == nil
	})
	if err != nil {
		return err
	}
	in := dpm.Inputs{Task: &j.Task, Opener: opener, Opened: opened, Content: func(c capsule.Content) ([]byte, error) { return a.content(ctx, j, c.Fingerprint) }}
	if err = in.Each(do); err != nil && keyless != nil { // it says that a batch doesn't open, and not why
		err = keyless
	}
	return err
}

// bagKeys is how many keys a bag has at most.
const bagKeys = 4096

// grant makes the key bags of a job.
func (a *Agent) grant(ctx context.Context, c *chosen, j *Job, to *seal.Reception, p *Peer) (bags [][]byte, err error) {
	clearance := p.Clearance
	clearance.Purposes = carnet.NewSet(j.Purpose)
	for some := range slices.Chunk(c.slots, bagKeys) {
		var entries []seal.Entry
		for _, s := range some {
			key, err := a.cfg.World.SlotKey(ctx, s.header)
			if err != nil {
				return nil, err
			}
			entries = append(entries, seal.Entry{Key: key, Ceiling: s.label})
		}
		bag, err := seal.Grant(a.cfg.Key, to, seal.Terms{
			Granter: a.cfg.Party, Grant: j.ID, Purpose: j.Purpose, Clearance: clearance, Time: j.Made, NotAfter: j.Until,
		}, entries)
		if err != nil {
			return nil, err
		}
		bags = append(bags, bag)
	}
	if len(bags) > capsule.MostBags {
		return nil, carnet.Errorf(carnet.TooLarge, "the job needs %d keys, at most %d are given", len(c.slots), bagKeys*capsule.MostBags).WithFix("choose a shorter time or fewer avatars")
	}
	return bags, nil
}
