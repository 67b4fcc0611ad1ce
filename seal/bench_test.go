package seal

import (
	"crypto/ed25519"
	"fmt"
	"testing"

	"carnet"
)

// sizes of contents: one measurement, ten, a hundred.
var benchSizes = []int{64, 265, 1600}

func BenchmarkDerive(b *testing.B) {
	_, s := newSlot(b, 1)
	var salt [16]byte
	b.ReportAllocs()
	for n := range uint64(b.N) {
		secret := batchSecret(&s.key.Secret, n, &salt)
		contentKey(&secret)
	}
}

func BenchmarkSeal(b *testing.B) {
	for _, size := range benchSizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			_, s := newSlot(b, 1)
			plain, dst := body(b, size), make([]byte, 0, 4096)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for n := range uint64(b.N) {
				if _, err := s.Seal(dst, n, plain); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, size := range benchSizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			_, s := newSlot(b, 1)
			batch, dst := sealed(b, s, 1, body(b, size)), make([]byte, 0, 4096)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Open(dst, batch); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkOpenerOpen(b *testing.B) {
	epoch, s := newSlot(b, 1)
	o, err := NewOpener(16, func(Header) (Key, bool) { return epoch, true })
	if err != nil {
		b.Fatal(err)
	}
	batch, dst := sealed(b, s, 1, body(b, 265)), make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := o.Open(dst, batch); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkBody(b *testing.B) {
	content, dst := make([]byte, 265), make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		data, err := AppendBody(dst, Body{Retention: carnet.Day, Hour: 490_000, First: 1 << 20, Count: 10, Content: content})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := ParseBody(data); err != nil {
			b.Fatal(err)
		}
	}
}

func benchBatches(b *testing.B) [][]byte {
	_, s := newSlot(b, 1)
	batches, plain := make([][]byte, 256), body(b, 265)
	for i := range batches {
		batches[i] = sealed(b, s, uint64(i), plain)
	}
	return batches
}

func BenchmarkFrameSign256(b *testing.B) {
	_, key, _ := ed25519.GenerateKey(nil)
	batches := benchBatches(b)
	var f Frame
	var wire []byte
	b.ReportAllocs()
	for n := range uint64(b.N) {
		if err := f.Sign(key, FrameHeader{Audience: "arena", Number: n}, batches); err != nil {
			b.Fatal(err)
		}
		wire = f.AppendWire(wire[:0])
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/256, "ns/batch")
}

func BenchmarkFrameVerify256(b *testing.B) {
	pub, key, _ := ed25519.GenerateKey(nil)
	wire, err := SignFrame(key, FrameHeader{Audience: "arena"}, benchBatches(b))
	if err != nil {
		b.Fatal(err)
	}
	var f Frame
	b.ReportAllocs()
	for b.Loop() {
		if err := f.Parse(wire); err != nil {
			b.Fatal(err)
		}
		if err := f.Verify(pub, "arena"); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/256, "ns/batch")
}

func BenchmarkParseHeader(b *testing.B) {
	_, s := newSlot(b, 1)
	batch := sealed(b, s, 1, body(b, 265))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := ParseHeader(batch); err != nil {
			b.Fatal(err)
		}
	}
}
