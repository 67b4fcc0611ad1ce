package identity

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"

	"carnet"
)

// readRequest reads what an owner is asked to sign into r, strictly: at most so many
// bytes, one object of known members, that check takes, in the one form that such
// requests have. what names it.
func readRequest(what string, data []byte, most int, r any, check func() error) error {
	if len(data) > most {
		return carnet.Errorf(carnet.TooLarge, "the %s has %d bytes, at most %d are read", what, len(data), most)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(r); err != nil {
		return carnet.Errorf(carnet.Malformed, "the %s can't be read: %v", what, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return carnet.Errorf(carnet.Malformed, "the %s goes on after its object", what)
	}
	if err := check(); err != nil {
		return err
	}
	again, err := json.Marshal(r)
	if err == nil && !bytes.Equal(again, bytes.TrimSpace(data)) {
		err = carnet.Errorf(carnet.Malformed, "the %s isn't in the one form that such requests have", what)
	}
	return err
}
