package ledger

import (
	"bytes"
	"encoding/hex"
	"os"
	"reflect"
	"strings"
	"testing"

	"carnet"

	"github.com/fxamacker/cbor/v2"
)

func fill(b byte) (f carnet.Fingerprint) {
	for i := range f {
		f[i] = b
	}
	return f
}

// everyKind has one statement of each kind, with all its optional fields.
func everyKind() []Statement {
	stream, avatar, mapping := carnet.StreamID{1, 2}, carnet.AvatarID{3}, carnet.MappingID{4}
	return []Statement{
		{Kind: SentRoot, Who: "hub", Time: 1, Peer: "arena", Frame: 0, Root: fill(1), Header: fill(2), PolicyVersion: 7},
		{Kind: ReceivedRoot, Who: "arena", Time: 1795377452123456789, Peer: "hub", Frame: 1 << 40, Root: fill(1), Header: fill(2), PolicyVersion: 7},
		{Kind: ThingAdded, Who: "hub", Time: 2, Thing: "watch-1", Object: fill(3)},
		{Kind: Mapped, Who: "hub", Time: 3, Peer: "clinic", Mapping: mapping, Avatar: avatar, Thing: "watch-1", Stream: stream, PolicyVersion: 1},
		{Kind: ViewSet, Who: "hub", Time: 4, Peer: "clinic", PolicyVersion: 300, Thing: "watch-1", Mapping: mapping, Avatar: avatar, Object: fill(4)},
		{Kind: StoredObject, Who: "clinic", Time: 5, Peer: "vault", Object: fill(5), Size: 70000, Stream: stream},
		{Kind: Gap, Who: "arena", Time: 6, Peer: "hub", From: 0, To: 0, Stream: stream, Reason: "restored from backup"},
		{Kind: RefusedBatch, Who: "arena", Time: 7, Object: fill(6), Reason: "doesn't open", Peer: "hub", Stream: stream, Frame: 9},
		{Kind: Deleted, Who: "arena", Time: 8, Reason: "retention", Peer: "vault", Thing: "watch-1", Avatar: avatar, Stream: stream, Object: fill(7), From: 3, To: 4},
		{Kind: PeerInvited, Who: "arena", Time: 10, Peer: "watches", Object: fill(12)},
		{Kind: PeerAccepted, Who: "hub", Time: 11, Peer: "arena", Object: fill(13)},
		{Kind: PeerActive, Who: "hub", Time: 12, Peer: "arena", Object: fill(13)},
		{Kind: PeerSuspended, Who: "arena", Time: 13, Peer: "watches", Object: fill(13)},
		{Kind: PeerEnded, Who: "arena", Time: 14, Peer: "watches", Object: fill(13), Reason: "removed"},
		{Kind: OwnerPinned, Who: "hub", Time: 20, Peer: "arena", Thing: "watch-1", Mapping: mapping, Avatar: avatar, Object: fill(8)},
		{Kind: MandateAsked, Who: "citadel", Time: 21, Avatar: avatar, Object: fill(9)},
		{Kind: MandateTaken, Who: "citadel", Time: 22, Avatar: avatar, Object: fill(10)},
		{Kind: MandateWithdrawn, Who: "arena", Time: 23, Avatar: avatar, Object: fill(11)},
		{Kind: ShareGiven, Who: "arena", Time: 9, Peer: "citadel", Avatar: avatar, PolicyVersion: 2},
		{Kind: ShareTaken, Who: "citadel", Time: 10, Peer: "arena", Avatar: avatar},
		{Kind: ShareEnded, Who: "arena", Time: 11, Peer: "citadel", Avatar: avatar, Reason: "the grant is revoked"},
		{Kind: Derived, Who: "arena", Time: 12, Peer: "citadel", Frame: 5, Root: fill(8)},
		{Kind: GrantGiven, Who: "arena", Time: 16, Avatar: avatar, PolicyVersion: 1, Object: fill(4)},
		{Kind: GrantRevoked, Who: "arena", Time: 17, Avatar: avatar, PolicyVersion: 2, Object: fill(5)},
		{Kind: PrincipalAdded, Who: "arena", Time: 18, Object: fill(6)},
		{Kind: PrincipalRemoved, Who: "arena", Time: 19, Avatar: avatar, Object: fill(7)},
		{Kind: HomeEnrolled, Who: "vault", Time: 32, Object: fill(14)},
		{Kind: CrossingDecided, Who: "vault", Time: 33, Object: fill(15)},
		{Kind: HomeClaimed, Who: "vault", Time: 34, Object: fill(16)},
		{Kind: MappingMoved, Who: "hub", Time: 40, Peer: "arena", Mapping: mapping, Avatar: avatar, Thing: "watch-1", Object: fill(9)},
		{Kind: MoveRefused, Who: "hub", Time: 41, Peer: "arena", Mapping: mapping, Thing: "watch-1", Object: fill(9), Reason: "another's order"},
		{Kind: Departed, Who: "arena", Time: 13, Peer: "citadel", Avatar: avatar, Object: fill(9)},
		{Kind: Arrived, Who: "citadel", Time: 14, Peer: "arena", Avatar: avatar, Object: fill(10)},
		{Kind: RecoveryAsked, Who: "vault", Time: 35, Object: fill(17)},
		{Kind: ItemIssued, Who: "arena", Time: 48, Avatar: avatar, Object: fill(11)},
		{Kind: ItemGiven, Who: "arena", Time: 49, Avatar: avatar, Object: fill(12)},
		{Kind: ItemEquipped, Who: "arena", Time: 50, Avatar: avatar, Object: fill(12), Reason: "hand"},
		{Kind: ItemDeparted, Who: "arena", Time: 51, Peer: "citadel", Avatar: avatar, Object: fill(12)},
		{Kind: ItemArrived, Who: "citadel", Time: 52, Peer: "arena", Avatar: avatar, Object: fill(13)},
		{Kind: ItemRetired, Who: "arena", Time: 53, Avatar: avatar, Object: fill(14)},
		{Kind: ItemAccepted, Who: "citadel", Time: 54, Object: fill(15)},
		{Kind: ErasureOrdered, Who: "arena", Time: 15, Peer: "citadel", Avatar: avatar, Object: fill(11)},
		{Kind: Erased, Who: "arena", Time: 16, Peer: "citadel", Avatar: avatar, Object: fill(12)},
		{Kind: DeletionTaken, Who: "arena", Time: 17, Peer: "citadel", Avatar: avatar, Object: fill(13)},
		{Kind: HomeErased, Who: "vault", Time: 18, Object: fill(14)},
		{Kind: MappingErased, Who: "hub", Time: 19, Peer: "arena", Mapping: mapping, Avatar: avatar, Thing: "watch-1", Object: fill(15)},
		{Kind: JobOrdered, Who: "arena", Time: 20, Peer: "forge", Object: fill(16)},
		{Kind: JobAccepted, Who: "forge", Time: 21, Peer: "arena", Object: fill(16)},
		{Kind: JobEnded, Who: "forge", Time: 22, Peer: "arena", Object: fill(17), Reason: "done"},
		{Kind: JobCompared, Who: "arena", Time: 23, Peer: "forge", Object: fill(17), Reason: "the same output"},
		{Kind: JobWithdrawn, Who: "arena", Time: 24, Peer: "forge", Object: fill(18)},
		{Kind: ModuleAdded, Who: "arena", Time: 25, Object: fill(19)},
		{Kind: ModuleRevoked, Who: "forge", Time: 26, Peer: "arena", Object: fill(20)},
		{Kind: AvatarPolicySet, Who: "arena", Time: 27, Avatar: avatar, PolicyVersion: 3, Object: fill(21)},
	}
}

func TestStatementsOfEveryKindComeBackAsTheyWere(t *testing.T) {
	for _, s := range everyKind() {
		b, err := s.Marshal()
		if err != nil {
			t.Errorf("%s: %v", s.Kind, err)
			continue
		}
		got, err := ParseStatement(b)
		if err != nil {
			t.Errorf("%s: %v", s.Kind, err)
		}
		if got != s {
			t.Errorf("%s: got %+v, want %+v", s.Kind, got, s)
		}
		if len(b) > MaxStatement {
			t.Errorf("%s: %d bytes, and at most %d are read", s.Kind, len(b), MaxStatement)
		}
	}
	have := make(map[Kind]bool)
	for _, s := range everyKind() {
		have[s.Kind] = true
	}
	for k := range 1 << 8 {
		if _, ok := Kind(k).rule(); ok != have[Kind(k)] {
			t.Errorf("of kind %d everyKind has %v, the table %v", k, have[Kind(k)], ok)
		}
	}
}

func TestStatementsAreCoreDeterministicCBOR(t *testing.T) {
	mode, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range everyKind() {
		b, err := s.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		var fields map[uint64]any
		if err := cbor.Unmarshal(b, &fields); err != nil {
			t.Fatalf("%s: %v", s.Kind, err)
		}
		again, err := mode.Marshal(fields)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again, b) {
			t.Errorf("%s: %x, and core deterministic %x", s.Kind, b, again)
		}
	}
}

func TestStatementsThatAreNotOfTheirKindAreRefused(t *testing.T) {
	good := Statement{Kind: SentRoot, Who: "hub", Time: 1, Peer: "arena", Frame: 1, Root: fill(1), Header: fill(2), PolicyVersion: 7}
	for name, change := range map[string]func(*Statement){
		"kind 0":               func(s *Statement) { s.Kind = 0 },
		"kind between others":  func(s *Statement) { s.Kind = OwnerPinned - 1 },
		"no who":               func(s *Statement) { s.Who = "" },
		"who not a party":      func(s *Statement) { s.Who = "Hub" },
		"no peer":              func(s *Statement) { s.Peer = "" },
		"peer not a party":     func(s *Statement) { s.Peer = "-" },
		"no root":              func(s *Statement) { s.Root = carnet.Fingerprint{} },
		"no header":            func(s *Statement) { s.Header = carnet.Fingerprint{} },
		"time 0":               func(s *Statement) { s.Time = 0 },
		"time before 1970":     func(s *Statement) { s.Time = -5 },
		"field of other kinds": func(s *Statement) { s.Reason = "why" },
		"thing in a sent root": func(s *Statement) { s.Thing = "watch" },
		"backwards": func(s *Statement) {
			*s = Statement{Kind: Gap, Who: "hub", Time: 1, Peer: "arena", From: 2, To: 1}
		},
		"thing not a thing": func(s *Statement) { *s = Statement{Kind: ThingAdded, Who: "hub", Time: 1, Thing: "Watch"} },
		"reason too long": func(s *Statement) {
			*s = Statement{Kind: Deleted, Who: "hub", Time: 1, Reason: strings.Repeat("x", MaxReason+1)}
		},
		"reason not UTF-8": func(s *Statement) { *s = Statement{Kind: Deleted, Who: "hub", Time: 1, Reason: "\xff"} },
	} {
		s := good
		change(&s)
		if b, err := s.Marshal(); err == nil {
			t.Errorf("%s: marshalled as %x", name, b)
		}
	}
	if _, err := good.Marshal(); err != nil {
		t.Errorf("the statement that all were made from: %v", err)
	}
}

func TestStatementBytesHaveOneFormOnly(t *testing.T) {
	// thing_added by "hub" at 1 for "w": {0: 1, 1: 3, 2: "hub", 3: 1, 5: "w"}
	const good = "a5" + "0001" + "0103" + "0263687562" + "0301" + "056177"
	for name, in := range map[string]string{
		"empty":                  "",
		"version 2":              "a5" + "0002" + "0103" + "0263687562" + "0301" + "056177",
		"no version":             "a4" + "0103" + "0263687562" + "0301" + "056177",
		"unknown kind":           "a5" + "0001" + "0118ff" + "0263687562" + "0301" + "056177",
		"kind past a byte":       "a5" + "0001" + "01190103" + "0263687562" + "0301" + "056177",
		"number too long":        "a5" + "0001" + "0103" + "0263687562" + "031801" + "056177",
		"number much too long":   "a5" + "0001" + "0103" + "0263687562" + "031b0000000000000001" + "056177",
		"time past int64":        "a5" + "0001" + "0103" + "0263687562" + "031bffffffffffffffff" + "056177",
		"length too long":        "a5" + "0001" + "0103" + "027803687562" + "0301" + "056177",
		"keys out of order":      "a5" + "0103" + "0001" + "0263687562" + "0301" + "056177",
		"key twice":              "a6" + "0001" + "0001" + "0103" + "0263687562" + "0301" + "056177",
		"unknown key":            "a6" + "0001" + "0103" + "0263687562" + "0301" + "056177" + "1201",
		"indefinite map":         "bf" + "0001" + "0103" + "0263687562" + "0301" + "056177" + "ff",
		"indefinite text":        "a5" + "0001" + "0103" + "0263687562" + "0301" + "057f6177ff",
		"bytes for text":         "a5" + "0001" + "0103" + "0263687562" + "0301" + "054177",
		"optional and zero":      "a6" + "0001" + "0103" + "0263687562" + "0301" + "056177" + "0d5820" + strings.Repeat("00", 32),
		"hash too short":         "a6" + "0001" + "0103" + "0263687562" + "0301" + "056177" + "0d581f" + strings.Repeat("01", 31),
		"field of another kind":  "a6" + "0001" + "0103" + "0263687562" + "0301" + "046162" + "056177",
		"bytes after it":         good + "00",
		"a byte short":           good[:len(good)-2],
		"map longer than it has": "a6" + good[2:],
		"a huge map":             "bbffffffffffffffff" + good[2:],
		"an array":               "85" + good[2:],
	} {
		b, err := hex.DecodeString(in)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if s, err := ParseStatement(b); carnet.CodeOf(err) != carnet.Malformed {
			t.Errorf("%s: read as %+v, %v", name, s, err)
		}
	}
	b, _ := hex.DecodeString(good)
	if _, err := ParseStatement(b); err != nil {
		t.Errorf("the statement that all were made from: %v", err)
	}
}

// testdata/statements.txt is published: each line has a salt, a statement and
// their entry.
func TestPublishedStatementVectors(t *testing.T) {
	raw, err := os.ReadFile("testdata/statements.txt")
	if err != nil {
		t.Fatal(err)
	}
	want := everyKind()
	n := 0
	for line := range strings.Lines(string(raw)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		words := strings.Fields(line)
		if len(words) != 3 || n >= len(want) {
			t.Fatalf("line %q", line)
		}
		salt, _ := hex.DecodeString(words[0])
		statement, _ := hex.DecodeString(words[1])
		s, err := ParseStatement(statement)
		if err != nil || !reflect.DeepEqual(s, want[n]) {
			t.Errorf("vector %d: %+v, %v, want %+v", n, s, err, want[n])
		}
		if e := EntryOf(Salt(salt), statement); hex.EncodeToString(e[:]) != words[2] {
			t.Errorf("vector %d: entry %x, want %s", n, e, words[2])
		}
		n++
	}
	if n != len(want) {
		t.Errorf("%d vectors, want %d", n, len(want))
	}
}

func FuzzStatement(f *testing.F) {
	for _, s := range everyKind() {
		b, err := s.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseStatement(b)
		if err != nil {
			return
		}
		again, err := s.Marshal()
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x was read and written as %x, %v", b, again, err)
		}
	})
}
