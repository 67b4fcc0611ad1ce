package ledger

import (
	"fmt"
	"math"
	"strings"
	"unicode/utf8"

	"carnet"
)

// Kind says what a statement states. The table is closed: a kind that is not in
// it is refused, and so is a field that its kind doesn't have.
type Kind uint8

// The kinds of statements. Numbers are never used again for another kind.
const (
	SentRoot     Kind = 1 // a frame with this root was sent to peer
	ReceivedRoot Kind = 2 // a frame with this root was received from peer
	ThingAdded   Kind = 3 // a thing was added
	Mapped       Kind = 4 // a thing got an avatar at peer
	ViewSet      Kind = 5 // a mapping's view changed to this policy version
	StoredObject Kind = 6 // an object was stored at peer
	Gap          Kind = 7 // frames From to To are at no party any more; with a stream, what the reason says of it
	RefusedBatch Kind = 8 // a batch was refused for good
	Deleted      Kind = 9 // an object, or a stream's frames From to To, was deleted

	PeerInvited   Kind = 10 // peer was invited under the terms whose fingerprint is Object
	PeerAccepted  Kind = 11 // the terms were accepted by who was invited: peer, or who states it
	PeerActive    Kind = 12 // both accepted them, and the words were compared; or the peering was resumed
	PeerSuspended Kind = 13 // the peering was suspended by who states it
	PeerEnded     Kind = 14 // it, or the invitation, has ended for this reason

	GrantGiven       Kind = 15 // a grant about an avatar was given; its document
	GrantRevoked     Kind = 16 // a grant was revoked; its document
	PrincipalAdded   Kind = 17 // an application, or who acts as an avatar; its document
	PrincipalRemoved Kind = 18 // the same was removed; its id

	OwnerPinned      Kind = 20 // an owner's key was pinned with an avatar, by this ownership
	MandateAsked     Kind = 21 // an owner is asked for a mandate, by this request
	MandateTaken     Kind = 22 // an owner gave this mandate
	MandateWithdrawn Kind = 23 // an owner withdrew a mandate, by this withdrawal
	ShareGiven       Kind = 25 // peer is given what avatar gets, as far as a grant of this version goes
	ShareTaken       Kind = 26 // avatar takes what peer shares
	ShareEnded       Kind = 27 // a share with peer about avatar has ended
	Derived          Kind = 28 // batches of a frame to peer were derived from others: root over the pairs

	HomeEnrolled    Kind = 32 // a registrar enrolled a home, by this answer of its
	CrossingDecided Kind = 33 // a registrar decided a crossing, by this decision
	HomeClaimed     Kind = 34 // a home was claimed anew by its world, by this answer
	RecoveryAsked   Kind = 35 // a recovery of a home was petitioned for, by this answer about it
	MappingMoved    Kind = 40 // a mapping to peer has ended: its avatar moved, by this decision
	MoveRefused     Kind = 41 // peer told of a move, in this notice, that isn't one
	Departed        Kind = 36 // an avatar has moved to peer, by the decision whose fingerprint is Object
	Arrived         Kind = 37 // an avatar has come from peer with all that the manifest says, whose fingerprint is Object

	ItemIssued   Kind = 48 // avatar has an item, by this entry of its chain, as for those that follow
	ItemGiven    Kind = 49 // avatar has an item by its owner's gift
	ItemEquipped Kind = 50 // avatar has put an item on, or off: the reason says where
	ItemDeparted Kind = 51 // avatar's item has moved to peer
	ItemArrived  Kind = 52 // avatar has an item that came from peer
	ItemRetired  Kind = 53 // avatar's item is no more
	ItemAccepted Kind = 54 // what is accepted of others' items, from now on: its document

	ErasureOrdered Kind = 60 // an avatar is erased from now on, by the order whose fingerprint is Object; told by peer
	Erased         Kind = 61 // nothing of it is left here, by the deletion whose fingerprint is Object
	DeletionTaken  Kind = 62 // peer has deleted what it had of it, by its deletion
	HomeErased     Kind = 63 // a registrar noted that what a home is of is erased, by this answer
	MappingErased  Kind = 64 // a mapping to peer has ended: its avatar is erased, by the order

	JobOrdered   Kind = 70 // peer is to compute, by the order whose fingerprint is Object
	JobAccepted  Kind = 71 // peer's order was accepted, with its keys
	JobEnded     Kind = 72 // a job with peer, or of peer, has ended, by the result whose fingerprint is Object: the reason says how
	JobCompared  Kind = 73 // a repetition of a job by peer, whose result is Object, was compared: the reason says what was found
	JobWithdrawn Kind = 74 // a job at peer was withdrawn, by this withdrawal

	ModuleAdded   Kind = 75 // a module may be run from now on; the fingerprint of its record
	ModuleRevoked Kind = 76 // it may not any more, by the revocation whose fingerprint is Object; of peer's word, where it came from one

	AvatarPolicySet Kind = 80 // an avatar's owner bounds what is done with it, by this version of its policy
)

// Statement is one fact that a party commits itself to. Which fields a kind
// has, and which of them may be absent, is said by the table of kinds; all
// others are zero.
type Statement struct {
	Kind Kind
	Who  carnet.PartyID // who states it
	Time int64          // nanoseconds since the Unix epoch, above 0

	Peer          carnet.PartyID
	Thing         carnet.ThingID
	Mapping       carnet.MappingID
	Avatar        carnet.AvatarID
	Stream        carnet.StreamID
	Frame         uint64             // frame number on the link
	Root          carnet.Fingerprint // Merkle root of the frame's batches
	Header        carnet.Fingerprint // hash of the frame's signed header
	PolicyVersion uint64
	Object        carnet.Fingerprint // batch or stored object
	Size          uint64             // bytes
	From, To      uint64             // first and last, both included
	Reason        string             // for people, at most MaxReason bytes
}

// Limits of a statement.
const (
	MaxReason    = 256
	MaxStatement = 1024
)

// field numbers are the map keys of the encoding. The order of the constants is
// the order of the bytes.
type field uint8

const (
	fVersion field = iota
	fKind
	fWho
	fTime
	fPeer
	fThing
	fMapping
	fAvatar
	fStream
	fFrame
	fRoot
	fHeader
	fPolicyVersion
	fObject
	fSize
	fFrom
	fTo
	fReason
	fieldCount
)

const statementVersion = 1

type fields uint32

func set(of ...field) (s fields) {
	for _, f := range of {
		s |= 1 << f
	}
	return s
}

func (s fields) has(f field) bool { return s&(1<<f) != 0 }

type kindRule struct {
	name     string
	required fields // always encoded; ids, hashes and texts not zero
	optional fields // encoded when not zero
}

// rule returns what a kind's statements look like; it is the closed table.
func (k Kind) rule() (kindRule, bool) {
	switch k {
	case SentRoot:
		return kindRule{"sent_root", set(fPeer, fFrame, fRoot, fHeader, fPolicyVersion), 0}, true
	case ReceivedRoot:
		return kindRule{"received_root", set(fPeer, fFrame, fRoot, fHeader), set(fPolicyVersion)}, true
	case ThingAdded:
		return kindRule{"thing_added", set(fThing), set(fObject)}, true
	case Mapped:
		return kindRule{"mapped", set(fPeer, fMapping, fAvatar), set(fThing, fStream, fPolicyVersion)}, true
	case ViewSet:
		return kindRule{"view_set", set(fPeer, fPolicyVersion), set(fThing, fMapping, fAvatar, fObject)}, true
	case StoredObject:
		return kindRule{"stored_object", set(fPeer, fObject, fSize), set(fStream)}, true
	case Gap:
		return kindRule{"gap", set(fPeer, fFrom, fTo), set(fStream, fReason)}, true
	case RefusedBatch:
		return kindRule{"refused_batch", set(fObject, fReason), set(fPeer, fStream, fFrame)}, true
	case Deleted:
		return kindRule{"deleted", set(fReason), set(fPeer, fThing, fAvatar, fStream, fObject, fFrom, fTo)}, true
	case PeerInvited:
		return kindRule{"peer_invited", set(fPeer, fObject), 0}, true
	case PeerAccepted:
		return kindRule{"peer_accepted", set(fPeer, fObject), 0}, true
	case PeerActive:
		return kindRule{"peer_active", set(fPeer, fObject), 0}, true
	case PeerSuspended:
		return kindRule{"peer_suspended", set(fPeer, fObject), 0}, true
	case PeerEnded:
		return kindRule{"peer_ended", set(fPeer, fObject, fReason), 0}, true
	case OwnerPinned:
		return kindRule{"owner_pinned", set(fPeer, fAvatar, fObject), set(fThing, fMapping)}, true
	case MandateAsked:
		return kindRule{"mandate_asked", set(fAvatar, fObject), 0}, true
	case MandateTaken:
		return kindRule{"mandate_taken", set(fAvatar, fObject), 0}, true
	case GrantGiven:
		return kindRule{"grant_given", set(fAvatar, fPolicyVersion, fObject), 0}, true
	case GrantRevoked:
		return kindRule{"grant_revoked", set(fAvatar, fPolicyVersion, fObject), 0}, true
	case PrincipalAdded:
		return kindRule{"principal_added", set(fObject), set(fAvatar)}, true
	case PrincipalRemoved:
		return kindRule{"principal_removed", set(fObject), set(fAvatar)}, true
	case MandateWithdrawn:
		return kindRule{"mandate_withdrawn", set(fAvatar, fObject), 0}, true
	case ShareGiven:
		return kindRule{"share_given", set(fPeer, fAvatar, fPolicyVersion), 0}, true
	case ShareTaken:
		return kindRule{"share_taken", set(fPeer, fAvatar), 0}, true
	case ShareEnded:
		return kindRule{"share_ended", set(fPeer, fAvatar, fReason), 0}, true
	case Derived:
		return kindRule{"derived", set(fPeer, fFrame, fRoot), 0}, true
	case HomeEnrolled:
		return kindRule{"home_enrolled", set(fObject), 0}, true
	case CrossingDecided:
		return kindRule{"crossing_decided", set(fObject), 0}, true
	case HomeClaimed:
		return kindRule{"home_claimed", set(fObject), 0}, true
	case RecoveryAsked:
		return kindRule{"recovery_asked", set(fObject), 0}, true
	case MappingMoved:
		return kindRule{"mapping_moved", set(fPeer, fMapping, fAvatar, fObject), set(fThing)}, true
	case MoveRefused:
		return kindRule{"move_refused", set(fPeer, fMapping, fObject, fReason), set(fThing)}, true
	case Departed:
		return kindRule{"departed", set(fPeer, fAvatar, fObject), 0}, true
	case Arrived:
		return kindRule{"arrived", set(fPeer, fAvatar, fObject), 0}, true
	case ItemIssued:
		return kindRule{"item_issued", set(fAvatar, fObject), 0}, true
	case ItemGiven:
		return kindRule{"item_given", set(fAvatar, fObject), 0}, true
	case ItemEquipped:
		return kindRule{"item_equipped", set(fAvatar, fObject, fReason), 0}, true
	case ItemDeparted:
		return kindRule{"item_departed", set(fPeer, fAvatar, fObject), 0}, true
	case ItemArrived:
		return kindRule{"item_arrived", set(fPeer, fAvatar, fObject), 0}, true
	case ItemRetired:
		return kindRule{"item_retired", set(fAvatar, fObject), 0}, true
	case ItemAccepted:
		return kindRule{"item_accepted", set(fObject), 0}, true
	case ErasureOrdered:
		return kindRule{"erasure_ordered", set(fAvatar, fObject), set(fPeer)}, true
	case Erased:
		return kindRule{"erased", set(fObject), set(fAvatar, fPeer)}, true
	case DeletionTaken:
		return kindRule{"deletion_taken", set(fPeer, fObject), set(fAvatar)}, true
	case HomeErased:
		return kindRule{"home_erased", set(fObject), 0}, true
	case MappingErased:
		return kindRule{"mapping_erased", set(fPeer, fMapping, fAvatar, fObject), set(fThing)}, true
	case JobOrdered:
		return kindRule{"job_ordered", set(fPeer, fObject), 0}, true
	case JobAccepted:
		return kindRule{"job_accepted", set(fPeer, fObject), 0}, true
	case JobEnded:
		return kindRule{"job_ended", set(fPeer, fReason), set(fObject)}, true
	case JobCompared:
		return kindRule{"job_compared", set(fPeer, fObject, fReason), 0}, true
	case JobWithdrawn:
		return kindRule{"job_withdrawn", set(fPeer, fObject), 0}, true
	case ModuleAdded:
		return kindRule{"module_added", set(fObject), 0}, true
	case ModuleRevoked:
		return kindRule{"module_revoked", set(fObject), set(fPeer)}, true
	case AvatarPolicySet:
		return kindRule{"avatar_policy_set", set(fAvatar, fPolicyVersion, fObject), 0}, true
	}
	return kindRule{}, false
}

func (k Kind) String() string {
	if r, ok := k.rule(); ok {
		return r.name
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Marshal writes the statement's only form: a CBOR map whose integer keys are in
// order. It refuses what ParseStatement would refuse.
func (s Statement) Marshal() ([]byte, error) {
	rule, ok := s.Kind.rule()
	if !ok {
		return nil, fmt.Errorf("marshal statement: %s is not in the table of kinds", s.Kind)
	}
	if err := s.check(rule); err != nil {
		return nil, fmt.Errorf("marshal statement %s: %w", rule.name, err)
	}
	present := set(fVersion, fKind, fWho, fTime) | rule.required | s.nonZero()
	var keys []field
	for f := range fieldCount {
		if present.has(f) {
			keys = append(keys, f)
		}
	}
	b := appendHead(make([]byte, 0, 256), majorMap, uint64(len(keys)))
	for _, f := range keys {
		b = appendHead(b, majorUint, uint64(f))
		b = s.appendField(b, f)
	}
	return b, nil
}

// ParseStatement reads what Marshal writes and nothing else.
func ParseStatement(b []byte) (Statement, error) {
	s, err := parseStatement(b)
	if err != nil {
		return Statement{}, carnet.Errorf(carnet.Malformed, "the statement %s", err)
	}
	return s, nil
}

func parseStatement(b []byte) (s Statement, err error) {
	if len(b) > MaxStatement {
		return s, fmt.Errorf("has %d bytes where at most %d are allowed", len(b), MaxStatement)
	}
	r := reader{rest: b}
	n := r.head(majorMap)
	var seen fields
	next := uint64(0)
	for range min(n, uint64(fieldCount)+1) {
		key := r.head(majorUint)
		if r.err == nil && (key < next || key >= uint64(fieldCount)) {
			r.fail(fmt.Errorf("has key %d, which is unknown or out of order", key))
		}
		if r.err != nil {
			break
		}
		next = key + 1
		seen |= set(field(key))
		s.readField(&r, field(key))
	}
	if err := r.end(); err != nil {
		return s, err
	}
	rule, ok := s.Kind.rule()
	if !ok {
		return s, fmt.Errorf("is of %s, which is not in the table of kinds", s.Kind)
	}
	if want := set(fVersion, fKind, fWho, fTime) | rule.required | s.nonZero(); seen != want {
		return s, fmt.Errorf("of kind %s has a field absent or zero that may not be: %s", rule.name, seen^want)
	}
	return s, s.check(rule)
}

// check holds s against the rule of its kind.
func (s *Statement) check(rule kindRule) error {
	have := s.nonZero()
	if extra := have &^ (rule.required | rule.optional); extra != 0 {
		return fmt.Errorf("has fields that its kind does not have: %s", extra)
	}
	const numbers = 1<<fFrame | 1<<fPolicyVersion | 1<<fSize | 1<<fFrom | 1<<fTo
	if missing := rule.required &^ have &^ numbers; missing != 0 {
		return fmt.Errorf("lacks %s", missing)
	}
	if s.Time <= 0 {
		return fmt.Errorf("has time %d, want nanoseconds after 1970", s.Time)
	}
	if s.From > s.To {
		return fmt.Errorf("goes from %d to %d", s.From, s.To)
	}
	if len(s.Reason) > MaxReason || !utf8.ValidString(s.Reason) {
		return fmt.Errorf("has a reason that is not UTF-8 of at most %d bytes", MaxReason)
	}
	return s.checkNames()
}

func (s *Statement) checkNames() error {
	if _, err := carnet.ParsePartyID(string(s.Who)); err != nil {
		return fmt.Errorf("who: %w", err)
	}
	if s.Peer != "" {
		if _, err := carnet.ParsePartyID(string(s.Peer)); err != nil {
			return fmt.Errorf("peer: %w", err)
		}
	}
	if s.Thing != "" {
		if _, err := carnet.ParseThingID(string(s.Thing)); err != nil {
			return fmt.Errorf("thing: %w", err)
		}
	}
	return nil
}

// nonZero says which kind-specific fields hold something.
func (s *Statement) nonZero() (have fields) {
	for f, is := range [fieldCount]bool{
		fPeer: s.Peer != "", fThing: s.Thing != "", fMapping: s.Mapping != carnet.MappingID{},
		fAvatar: s.Avatar != carnet.AvatarID{}, fStream: s.Stream != carnet.StreamID{}, fFrame: s.Frame != 0,
		fRoot: s.Root != carnet.Fingerprint{}, fHeader: s.Header != carnet.Fingerprint{},
		fPolicyVersion: s.PolicyVersion != 0, fObject: s.Object != carnet.Fingerprint{}, fSize: s.Size != 0,
		fFrom: s.From != 0, fTo: s.To != 0, fReason: s.Reason != "",
	} {
		if is {
			have |= set(field(f))
		}
	}
	return have
}

// appendField writes the value of one field.
func (s *Statement) appendField(b []byte, f field) []byte {
	switch f {
	case fVersion:
		return appendHead(b, majorUint, statementVersion)
	case fKind:
		return appendHead(b, majorUint, uint64(s.Kind))
	case fTime:
		return appendHead(b, majorUint, uint64(s.Time))
	case fWho:
		return appendText(b, string(s.Who))
	case fPeer:
		return appendText(b, string(s.Peer))
	case fThing:
		return appendText(b, string(s.Thing))
	case fReason:
		return appendText(b, s.Reason)
	}
	if id := s.bytes(f); id != nil {
		return appendBytes(b, id)
	}
	return appendHead(b, majorUint, *s.number(f))
}

// readField reads the value of one field.
func (s *Statement) readField(r *reader, f field) {
	switch f {
	case fVersion:
		r.want(majorUint, statementVersion, "statement version")
	case fKind:
		s.Kind = Kind(min(r.head(majorUint), math.MaxUint8))
	case fTime:
		n := r.head(majorUint)
		if n > math.MaxInt64 {
			r.fail(fmt.Errorf("has time %d, which is too large", n))
		}
		s.Time = int64(n)
	case fWho:
		s.Who = carnet.PartyID(r.take(majorText, 32))
	case fPeer:
		s.Peer = carnet.PartyID(r.take(majorText, 32))
	case fThing:
		s.Thing = carnet.ThingID(r.take(majorText, 64))
	case fReason:
		s.Reason = string(r.take(majorText, MaxReason))
	default:
		if id := s.bytes(f); id != nil {
			r.fixed(id)
		} else {
			*s.number(f) = r.head(majorUint)
		}
	}
}

// bytes returns the id or hash that f holds, nil when it is a number.
func (s *Statement) bytes(f field) []byte {
	switch f {
	case fMapping:
		return s.Mapping[:]
	case fAvatar:
		return s.Avatar[:]
	case fStream:
		return s.Stream[:]
	case fRoot:
		return s.Root[:]
	case fHeader:
		return s.Header[:]
	case fObject:
		return s.Object[:]
	}
	return nil
}

func (s *Statement) number(f field) *uint64 {
	switch f {
	case fFrame:
		return &s.Frame
	case fPolicyVersion:
		return &s.PolicyVersion
	case fSize:
		return &s.Size
	case fFrom:
		return &s.From
	case fTo:
		return &s.To
	}
	panic(fmt.Sprintf("ledger: field %d is no number", f))
}

func (s fields) String() string {
	names := [fieldCount]string{"version", "kind", "who", "time", "peer", "thing", "mapping", "avatar", "stream",
		"frame", "root", "header", "policy version", "object", "size", "from", "to", "reason"}
	var in []string
	for f := range fieldCount {
		if s.has(f) {
			in = append(in, names[f])
		}
	}
	return strings.Join(in, ", ")
}
