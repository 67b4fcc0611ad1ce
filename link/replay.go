package link

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"slices"

	"carnet"
)

// Recorder writes down what a sender would say, in the form in which it says it,
// for Server.Replay.
type Recorder struct{ codec codec }

// NewRecorder makes a Recorder.
func NewRecorder() (*Recorder, error) {
	c, err := newCodec()
	return &Recorder{c}, err
}

// AppendCall appends a call.
func (r *Recorder) AppendCall(dst []byte, name string, body []byte) ([]byte, error) {
	if len(name) == 0 || len(name) > maxKind || len(body) > maxBody {
		return dst, carnet.Errorf(carnet.TooLarge, "call %q of %d bytes is over the limits of a link", clip(name, maxKind), len(body))
	}
	return r.codec.message(dst, kindCall, &call{Kind: name, Body: body})
}

// AppendFrame appends a frame.
func (r *Recorder) AppendFrame(dst, frame []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(frame))+1)
	return append(append(dst, byte(kindFrame)), frame...)
}

// recorded is a frame with the calls that were made before it.
type recorded struct {
	calls   []call
	arrival *Arrival
}

// Replay takes what a sender recorded on its connection with an incarnation, as if
// it came late over it: the calls before the first frame that isn't stored, that
// frame, and so on. All of it is verified first, calls names those that it may have,
// and nothing of it is used if anything is wrong. No connection of the sender
// registers meanwhile; while there is one, the error has code carnet.Unavailable. One
// of another incarnation is refused with carnet.Conflict. last is the last frame that
// is stored, whatever the error.
//
// A fork is refused and told as an alarm, and nobody is fenced: the sender's next
// connection begins with what is stored here.
func (s *Server) Replay(ctx context.Context, peer Peer, incarnation uint64, record []byte, calls ...string) (last uint64, err error) {
	p := s.port(peer.Party)
	select {
	case p.admitting <- struct{}{}:
		defer func() { <-p.admitting }()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	if s.Connected(peer.Party) {
		return 0, carnet.Errorf(carnet.Unavailable, "%s is connected", peer.Party)
	}
	st, err := s.Sink.State(ctx, peer.Party)
	if err != nil {
		return 0, err
	}
	if st.Incarnation != incarnation {
		return st.Last.Number, carnet.Errorf(carnet.Conflict, "the record is of incarnation %d of %s, and %d is the last", incarnation, peer.Party, st.Incarnation)
	}
	all, err := s.parseRecord(peer, incarnation, record, calls)
	if err != nil {
		return st.Last.Number, err
	}
	last = st.Last.Number
	for _, r := range all {
		number := r.arrival.Frame.Header.Number
		if number > last {
			if err := s.replayCalls(ctx, peer.Party, r.calls); err != nil {
				return last, err
			}
		}
		verdicts, err := s.Sink.Accept(ctx, peer.Party, []*Arrival{r.arrival})
		if err != nil {
			return last, err
		}
		if len(verdicts) != 1 || verdicts[0] != Next && verdicts[0] != Again {
			return last, s.misplaced(peer.Party, number, verdicts)
		}
		last = max(last, number)
	}
	return last, nil
}

func (s *Server) replayCalls(ctx context.Context, party carnet.PartyID, calls []call) error {
	ctx, done := context.WithTimeout(ctx, s.CallTimeout)
	defer done()
	for _, c := range calls {
		if _, err := s.Sink.Call(ctx, party, c.Kind, c.Body); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) misplaced(party carnet.PartyID, number uint64, verdicts []Verdict) error {
	if len(verdicts) == 1 && verdicts[0] == Forked {
		told := carnet.Errorf(carnet.Forked, "recorded frame %d of %s doesn't follow the frames stored before it", number, party)
		s.alarm(party, told)
		return told
	}
	return carnet.Errorf(carnet.Conflict, "recorded frame %d of %s isn't the next one", number, party)
}

// parseRecord reads and verifies a record.
func (s *Server) parseRecord(peer Peer, incarnation uint64, record []byte, allowed []string) (all []recorded, err error) {
	in := bytes.NewReader(record)
	var now recorded
	for in.Len() > 0 {
		k, n, err := readHeader(in, s.MaxFrame)
		if err != nil {
			return nil, carnet.Errorf(carnet.Malformed, "a record breaks off, or isn't one: %v", err)
		}
		body := make([]byte, n)
		if _, err := io.ReadFull(in, body); err != nil {
			return nil, carnet.Errorf(carnet.Malformed, "a record breaks off")
		}
		switch k {
		case kindCall:
			var c call
			if err := s.codec.decode(k, body, &c); err != nil {
				return nil, err
			}
			if c.ID != 0 || !slices.Contains(allowed, c.Kind) {
				return nil, carnet.Errorf(carnet.Malformed, "a record holds the call %q, which has no place there", clip(c.Kind, maxKind))
			}
			if now.calls = append(now.calls, c); len(now.calls) > maxRecorded {
				return nil, carnet.Errorf(carnet.TooLarge, "a record has more than %d calls before a frame", maxRecorded)
			}
		case kindFrame:
			now.arrival = &Arrival{Bytes: body}
			if err := s.checkRecorded(peer, incarnation, all, now.arrival); err != nil {
				return nil, err
			}
			all, now = append(all, now), recorded{}
		default:
			return nil, carnet.Errorf(carnet.Malformed, "a record holds a message of type %d", k)
		}
	}
	if now.calls != nil || len(all) == 0 {
		return nil, carnet.Errorf(carnet.Malformed, "a record doesn't end with a frame")
	}
	return all, nil
}

// maxRecorded is how many calls may be between two recorded frames: two for each
// batch, and some.
const maxRecorded = 16 << 10

// checkRecorded verifies a frame as one that arrives, and its place behind those
// before it.
func (s *Server) checkRecorded(peer Peer, incarnation uint64, before []recorded, a *Arrival) error {
	if err := a.Frame.Parse(a.Bytes); err != nil {
		return err
	}
	if err := a.Frame.Verify(peer.Key, s.Self); err != nil {
		return err
	}
	a.Hash = a.Frame.Hash()
	h := a.Head()
	if h.Incarnation != incarnation {
		return carnet.Errorf(carnet.Malformed, "a record of incarnation %d has a frame of %d", incarnation, h.Incarnation)
	}
	if n := len(before); n > 0 {
		if last := before[n-1].arrival; h.Number != last.Frame.Header.Number+1 || h.Parent != last.Hash {
			return carnet.Errorf(carnet.Forked, "the frames of a record don't follow each other at %d", h.Number)
		}
	}
	return nil
}
