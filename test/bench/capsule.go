package main

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"time"

	"carnet"
	"carnet/capsule"
	"carnet/dpm"
	"carnet/seal"
)

// capsules is row 14: a worker's way from the bag and the inputs to measurements, on one
// core, beside AES-GCM alone over the same bytes.
func capsules(_ context.Context, b *bench) (all []Figure, err error) {
	size := int64(200 << 20)
	if b.short {
		size = 20 << 20
	}
	for _, perBatch := range []int{100, 1000} {
		c, err := newOpening(perBatch, size)
		if err != nil {
			return all, err
		}
		limit, err := c.aead()
		if err != nil {
			return all, err
		}
		took, measurements, err := c.open()
		if err != nil {
			return all, err
		}
		again, err := c.aead()
		if err != nil {
			return all, err
		}
		f := Figure{
			Row: 14, Name: fmt.Sprintf("capsule, %d a batch, full width", perBatch), Value: float64(c.bytes) / 1e6 / took.Seconds(), Unit: "MB/s", Peer: (limit + again) / 2,
			Raw: map[string]float64{
				"MB": float64(c.bytes) / 1e6, "batches": float64(c.batches), "measurements": float64(measurements),
				"measurements/s": float64(measurements) / took.Seconds(), "AES-GCM alone, before, MB/s": limit, "AES-GCM alone, after, MB/s": again,
			},
			Note: "one core: the key bag opened, every batch hashed, proved against the order, opened, decoded and chosen from; the peer opens as many bytes in messages of the same length under one key, and nothing else.",
		}
		f.Ratio = f.Value / f.Peer
		all = append(all, f)
	}
	return all, nil
}

// opening is a capsule's content, and what its reader needs.
type opening struct {
	order   capsule.Task
	content map[carnet.Fingerprint][]byte
	bag     []byte
	key     *seal.ReceptionKey
	want    seal.Expected
	bytes   int64
	batches int
}

// inputSize is how large a world makes an input.
const inputSize = 8 << 20

func newOpening(perBatch int, size int64) (*opening, error) {
	w, err := newWriter(perBatch, size, true)
	if err != nil {
		return nil, err
	}
	o := &opening{content: make(map[carnet.Fingerprint][]byte)}
	o.order = capsule.Task{From: 0, To: time.Now().Add(time.Hour).UnixNano()}
	var data []byte
	var leaves []carnet.Fingerprint
	end := func() {
		if len(leaves) > 0 {
			f := carnet.FingerprintOf(data)
			o.order.Inputs = append(o.order.Inputs, capsule.Input{Content: capsule.Content{Fingerprint: f, Size: int64(len(data))}, Avatar: "a1", Batches: len(leaves), Root: seal.Root(leaves)})
			o.content[f], data, leaves = data, nil, nil
		}
	}
	for _, f := range w.frames {
		for i, batch := range f.Batches {
			data = append(binary.BigEndian.AppendUint32(data, uint32(len(batch))), batch...)
			leaves = append(leaves, f.Leaves[i])
			o.bytes, o.batches = o.bytes+int64(len(batch)), o.batches+1
			if len(data) >= inputSize {
				end()
			}
		}
	}
	end()
	return o, o.grant(w)
}

// grant seals the one key that all batches need to a new reception key.
func (o *opening) grant(w *writer) (err error) {
	if o.key, err = seal.NewReceptionKey(); err != nil {
		return err
	}
	now := time.Now()
	announced, err := o.key.Announce(w.sender, "forge", now.Add(time.Hour))
	if err != nil {
		return err
	}
	to, err := seal.ParseReception(announced, w.sender.Public().(ed25519.PublicKey), now)
	if err != nil {
		return err
	}
	o.bag, err = seal.Grant(w.world, to, seal.Terms{
		Granter: "arena", Grant: carnet.NewJobID(), Purpose: "fitness", Clearance: carnet.Clearance{Purposes: carnet.NewSet("fitness")},
		Time: now, NotAfter: now.Add(time.Hour),
	}, []seal.Entry{{Key: w.slot.Key()}})
	o.want = seal.Expected{Granter: "arena", Signer: w.world.Public().(ed25519.PublicKey), Reader: "forge", Now: now}
	return err
}

// open does what a worker does, with a program that counts.
func (o *opening) open() (took time.Duration, measurements uint64, err error) {
	begun := time.Now()
	bag, err := o.key.OpenBag(o.bag, o.want)
	if err != nil {
		return 0, 0, err
	}
	key := bag.Entries[0].Key
	opener, err := seal.NewOpener(1024, func(seal.Header) (seal.Key, bool) { return key, true })
	if err != nil {
		return 0, 0, err
	}
	in := dpm.Inputs{Task: &o.order, Opener: opener, Opened: func(int, uint64) {}, Content: func(c capsule.Content) ([]byte, error) {
		data := o.content[c.Fingerprint]
		if carnet.FingerprintOf(data) != c.Fingerprint { // as the worker does
			return nil, fmt.Errorf("content %s was changed", c.Fingerprint)
		}
		return data, nil
	}}
	err = in.Each(func(_ string, ms []carnet.Measurement) error {
		measurements += uint64(len(ms))
		return nil
	})
	return time.Since(begun), measurements, err
}

// aead is how fast as many bytes are opened, on one core, in messages of the batches'
// mean length.
func (o *opening) aead() (float64, error) {
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		return 0, err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return 0, err
	}
	length := int(o.bytes) / o.batches
	messages := make([][]byte, o.batches)
	nonce := make([]byte, gcm.NonceSize())
	plain := make([]byte, length-gcm.Overhead())
	for i := range messages {
		binary.BigEndian.PutUint64(nonce, uint64(i))
		messages[i] = gcm.Seal(nil, nonce, plain, nil)
	}
	begun := time.Now()
	for i, m := range messages {
		binary.BigEndian.PutUint64(nonce, uint64(i))
		if plain, err = gcm.Open(plain[:0], nonce, m, nil); err != nil {
			return 0, err
		}
	}
	return float64(length*o.batches) / 1e6 / time.Since(begun).Seconds(), nil
}
