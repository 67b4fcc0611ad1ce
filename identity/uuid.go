package identity

import (
	"crypto/rand"
	"fmt"
	"strings"
)

// urnUUID is how a UUID becomes a URN (RFC 9562 section 4).
const urnUUID = "urn:uuid:"

// newUUID draws a UUID of version 4 (RFC 9562 section 5.4).
func newUUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// isUUID reports whether s is a UUID of any version in small letters.
func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		dash := i == 8 || i == 13 || i == 18 || i == 23
		if dash != (s[i] == '-') || !dash && strings.IndexByte("0123456789abcdef", s[i]) < 0 {
			return false
		}
	}
	return true
}

func isURN(s string) bool {
	rest, ok := strings.CutPrefix(s, urnUUID)
	return ok && isUUID(rest)
}
