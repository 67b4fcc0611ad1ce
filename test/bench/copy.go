package main

import (
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// copied is how fast a program copies a file that does nothing else: over TLS on
// loopback, hashed and written at the other end, synced, and the hash sent back. It
// is what a move is held against.
func copied(config *tls.Config, from, to string) (rate float64, err error) {
	listener, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		return 0, err
	}
	defer listener.Close()
	received := make(chan error, 1)
	go func() { received <- receive(listener, to) }()
	file, err := os.Open(from)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	begun := time.Now()
	conn, err := tls.Dial("tcp", listener.Addr().String(), &tls.Config{InsecureSkipVerify: true}) // of itself
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	own := sha256.New()
	n, err := io.Copy(conn, io.TeeReader(file, own))
	if err == nil {
		err = conn.CloseWrite()
	}
	theirs, failed := io.ReadAll(conn)
	took := time.Since(begun)
	if err := errors.Join(err, failed, <-received); err != nil {
		return 0, err
	}
	if string(theirs) != string(own.Sum(nil)) {
		return 0, fmt.Errorf("the copy has another hash")
	}
	return float64(n) / 1e6 / took.Seconds(), nil
}

func receive(listener net.Listener, path string) error {
	conn, err := listener.Accept()
	if err != nil {
		return err
	}
	defer conn.Close()
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer os.Remove(path)
	defer file.Close()
	hash := sha256.New()
	if _, err := io.CopyBuffer(io.MultiWriter(file, hash), struct{ io.Reader }{conn}, make([]byte, 1<<20)); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	_, err = conn.Write(hash.Sum(nil))
	return err
}
