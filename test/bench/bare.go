package main

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"fmt"
	"time"

	"carnet"
	"carnet/senml"

	_ "modernc.org/sqlite" // to look into a database file
)

// bareLoop is what nobody can do without: columns, cipher and hash at the
// sender, hash, cipher and columns at the receiver, in microseconds a
// measurement at 100 a batch, over two million measurements that no cache holds.
// The keys are set up beforehand; there is no JSON in it.
func bareLoop() (float64, error) {
	const batches, size = 20_000, 100
	all := make([]carnet.Measurement, 0, batches*size)
	for i := range batches * size {
		all = append(all, carnet.Measurement{
			Name: "abcd"[i%4 : i%4+1], Unit: "V", Time: time.Unix(1_700_000_000+int64(i/4), 0).UnixNano(),
			Value: carnet.Float(float64(1000+i*37%1000) / 100),
		})
	}
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		return 0, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return 0, err
	}
	sealed := make([][]byte, batches)
	var columns []byte
	var nonce [12]byte
	var sums byte
	cpu := ownCPU()
	for i := range sealed {
		columns = senml.AppendColumns(columns[:0], all[i*size:(i+1)*size])
		binary.BigEndian.PutUint64(nonce[:], uint64(i))
		sealed[i] = aead.Seal(nil, nonce[:], columns, nil)
		sums ^= sha256.Sum256(sealed[i])[0]
	}
	d := senml.NewDecoder(senml.Limits{})
	var read []carnet.Measurement
	for i := range sealed {
		sums ^= sha256.Sum256(sealed[i])[0]
		binary.BigEndian.PutUint64(nonce[:], uint64(i))
		if columns, err = aead.Open(columns[:0], nonce[:], sealed[i], nil); err != nil {
			return 0, err
		}
		if read, err = d.Decode(read[:0], senml.Columns, columns, 0); err != nil {
			return 0, err
		}
	}
	if sums != 0 || len(read) != size {
		return 0, fmt.Errorf("the bare loop read something else than it wrote")
	}
	return (ownCPU() - cpu).Seconds() * 1e6 / (batches * size), nil
}

// freeBytes is how much of a database file holds nothing.
func freeBytes(ctx context.Context, file string) (float64, error) {
	db, err := sql.Open("sqlite", "file:"+file+"?mode=ro")
	if err != nil {
		return 0, err
	}
	defer db.Close()
	var pages, size float64
	err = db.QueryRowContext(ctx, "SELECT freelist_count, page_size FROM pragma_freelist_count, pragma_page_size").Scan(&pages, &size)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", file, err)
	}
	return pages * size, nil
}
