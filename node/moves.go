package node

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/crossing/move"
	"carnet/crossing/r5"
	"carnet/identity"
	"carnet/peering"
	"carnet/policy"
)

// openMoves opens what the world knows of avatars that come and leave.
func (n *Node) openMoves(ctx context.Context, agent *avatar.Agent, key ed25519.PrivateKey, bears *policy.View) (err error) {
	n.api.Moves, err = move.New(ctx, move.Config{
		Party: n.config.Party, Key: key, World: agent, Items: n.api.Items, Peers: neighbours{n}, Far: far{n}, Registrar: n.register, Mandates: n.api.Mandates,
		Clearance: n.clearance, Bears: bears, Announce: func() ([]byte, error) { return agent.AnnounceTo(key, n.config.Party) }, Moved: agent.TellMoved,
		Unrecoverable: n.config.Backups.keep(),
		Vouch: func(_ carnet.AvatarID, s avatar.MovedStream) ([]byte, error) {
			return Prover{World: agent, Party: n.config.Party, Peers: peerFiles(n.peers)}.Vouch(ctx, s)
		},
		VouchLeft: func(s avatar.MovedStream, l avatar.LeftOut) ([]byte, error) {
			return Prover{World: agent, Party: n.config.Party, Peers: peerFiles(n.peers)}.VouchLeft(ctx, s, l)
		},
		HomeCheck: time.Duration(n.config.World.HomeCheck), BackupWithin: time.Duration(n.config.World.BackupBeforeMove), Log: n.log,
	})
	if err != nil {
		return err
	}
	n.api.Passports = passports{n}
	agent.Receive(n.api.Moves)
	n.work = append(n.work, n.api.Moves.Run)
	return nil
}

// register is the register that the world's depot keeps.
func (n *Node) register() (move.Registrar, string, error) {
	client, err := n.depot.register()
	if err != nil {
		return nil, "", err
	}
	return client, client.Registrar, nil
}

// neighbours are the worlds that this one has a peering with for calls.
type neighbours struct{ node *Node }

// Named implements move.Peers.
func (p neighbours) Named(name carnet.PartyID) (move.Peer, error) {
	found, err := p.node.peers.Named(name)
	if err != nil {
		return move.Peer{}, err
	}
	if !found.Allows(peering.R5, time.Now()) {
		return move.Peer{}, carnet.Errorf(carnet.Unavailable, "the peering with %s isn't in force for calls", name).WithFix("see 'carnet peer show %s'", name)
	}
	return asNeighbour(found), nil
}

// All implements move.Peers.
func (p neighbours) All() (all []move.Peer) {
	for _, found := range p.node.peers.All() {
		if found.Allows(peering.R5, time.Now()) {
			all = append(all, asNeighbour(found))
		}
	}
	return all
}

func asNeighbour(p peering.Peering) move.Peer {
	peer := peerFile(p)
	return move.Peer{Party: p.Name, OwnName: peer.Party, Key: peer.Key, Clearance: peering.Within(p.Terms, peer.Clearance())}
}

// target is the world that calls for an avatar to come to it, and what may.
func (n *Node) target(c r5.Call) (move.Asking, error) {
	if c.Mandate == "" { // what has gone was released under the mandate: the peering alone bounds it now
		peer, err := neighbours{n}.Named(c.Platform)
		if err == nil && peer.Clearance.Purposes == "" {
			err = carnet.Errorf(carnet.Forbidden, "nothing may be given to %s: its peering names no purpose", c.Platform).WithFix("agree on new terms: carnet peer invite")
		}
		return move.Asking{Party: c.Platform, Most: peer.Clearance}, err
	}
	most, _, err := n.mostFor(c)
	return move.Asking{Party: c.Platform, Most: most}, err
}

// moveRoutes serve targets, which are proven callers for an avatar that is to come; or,
// once the registrar has decided, peers to which something has gone by that.
func (n *Node) moveRoutes() map[string]callRoute {
	const at = " /r5/avatars/{id}/moves/{crossing}"
	routes := make(map[string]callRoute)
	moves := n.api.Moves
	// What brings the decision itself.
	decides := map[string]bool{http.MethodPut: true, http.MethodPost + "/decision": true}
	handle := func(method, rest string, serve func(*http.Request, moveCall) (any, error)) {
		routes[method+at+rest] = callRoute{identity.ActionMove, func(w http.ResponseWriter, r *http.Request, proven r5.Call) {
			c := moveCall{Call: proven}
			err := c.crossing.UnmarshalText([]byte(r.PathValue("crossing")))
			if c.Mandate == "" {
				if err == nil {
					c.decided, err = n.decidedCall(r, c, decides[method+rest])
				}
				err = n.letPeer(r.Context(), c.Platform, followDecided, c.Avatar.String(), err)
			}
			var answer any
			if err == nil {
				if answer, err = serve(r, c); err != nil && c.Mandate == "" {
					n.turnedAway(r.Context(), c.Platform, followDecided, c.Avatar.String(), err)
				}
			}
			if err != nil {
				refuseAbroad(w, err)
				return
			}
			if octets, ok := answer.(net.Buffers); ok {
				length := 0
				for _, part := range octets {
					length += len(part)
				}
				w.Header().Set("Content-Type", "application/octet-stream")
				w.Header().Set("Content-Length", strconv.Itoa(length))
				_, _ = octets.WriteTo(w) // a failed write means that the caller went away
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(answer)
		}, recordsMoves}
	}
	handle(http.MethodPut, "", func(r *http.Request, c moveCall) (any, error) {
		by, err := n.target(c.Call)
		if err != nil {
			return nil, err
		}
		if c.Mandate == "" {
			return moves.TakeDecided(r.Context(), by, c.Avatar, c.crossing, c.decided)
		}
		var o move.SignedOrder
		if err := strictBody(r, &o, maxMoveBody); err != nil {
			return nil, err
		}
		return moves.TakeOffer(r.Context(), by, c.Avatar, c.crossing, o)
	})
	handle(http.MethodGet, "/stretches", func(r *http.Request, c moveCall) (any, error) {
		from, err := placeOf(r.URL.Query())
		if err != nil {
			return nil, err
		}
		by, err := n.target(c.Call)
		if err != nil {
			return nil, err
		}
		return moves.Stretches(r.Context(), by, c.Avatar, c.crossing, from)
	})
	handle(http.MethodPost, "/stretches", func(r *http.Request, c moveCall) (any, error) {
		var asked stretchesAsked
		if err := strictBody(r, &asked, maxMoveBody); err != nil {
			return nil, err
		}
		if asked.several != nil {
			given, err := moves.Several(r.Context(), c.Platform, c.Avatar, c.crossing, asked.several)
			return piecesOut(given), err
		}
		body, proof, err := moves.Stretch(r.Context(), c.Platform, c.Avatar, c.crossing, asked.one, r.URL.Query().Has(lookedAt))
		if err != nil {
			return nil, err
		}
		return net.Buffers{binary.BigEndian.AppendUint32(nil, uint32(len(body))), body, proof}, nil
	})
	handle(http.MethodPost, "/freeze", func(r *http.Request, c moveCall) (any, error) {
		announcement, err := wholeBody(r.Body, r.ContentLength, maxMoveBody)
		if err != nil {
			return nil, err
		}
		by, err := n.target(c.Call)
		if err != nil {
			return nil, err
		}
		return moves.Freeze(r.Context(), by, c.Avatar, c.crossing, announcement)
	})
	handle(http.MethodGet, "/manifest", func(r *http.Request, c moveCall) (any, error) {
		manifest, err := moves.ManifestFor(r.Context(), c.Platform, c.Avatar, c.crossing)
		return net.Buffers{manifest}, err
	})
	handle(http.MethodGet, "/order", func(_ *http.Request, c moveCall) (any, error) {
		return moves.OrderOf(c.Platform, c.Avatar, c.crossing)
	})
	handle(http.MethodPost, "/decision", func(r *http.Request, c moveCall) (any, error) {
		d := c.decided
		if c.Mandate != "" {
			if err := strictBody(r, &d, maxMoveBody); err != nil {
				return nil, err
			}
		}
		return moves.Hear(r.Context(), c.Platform, c.Avatar, c.crossing, d)
	})
	return routes
}

// moveCall is a call about a move.
type moveCall struct {
	r5.Call
	crossing carnet.CrossingID
	decided  move.Decided // what a call without a token brings, if it is such a call
}

// followDecided is what a target does without a token.
const followDecided = "follow-decided"

// decidedCall refuses a call without a token that isn't about what the registrar has
// decided: by what it brings, or else by what is known here.
func (n *Node) decidedCall(r *http.Request, c moveCall, brings bool) (d move.Decided, err error) {
	if !brings {
		return d, n.api.Moves.DecidedTo(c.Platform, c.Avatar, c.crossing)
	}
	if err := strictBody(r, &d, maxMoveBody); err != nil {
		return d, err
	}
	return d, n.api.Moves.Proves(c.Platform, c.Avatar, c.crossing, d)
}

// Bounds of what worlds say to each other about a move.
const (
	maxMoveBody = 256 << 10
	maxListing  = 1 << 20
	maxPiece    = 64 << 20 // a stretch with its proof, or several
	maxFreezing = 64 << 20
	maxTrusted  = 8 << 20 // as long as that a body is believed to be before it is here
)

// placeOf reads from where on stretches are to be listed.
func placeOf(query url.Values) (from avatar.Place, err error) {
	if !query.Has("stream") && !query.Has("from") {
		return from, nil
	}
	if from.Stream, err = carnet.ParseStreamID(query.Get("stream")); err != nil {
		return from, err
	}
	if from.Batch, err = strconv.ParseUint(query.Get("from"), 10, 63); err != nil {
		return from, carnet.Errorf(carnet.Malformed, "from isn't the number of a batch")
	}
	return from, nil
}

// lookedAt asks for a stretch that the source has looked at: what it sent as it is
// there wasn't what it should be.
const lookedAt = "looked"

// stretchesAsked is what a target asks for: a stretch, or a list of several.
type stretchesAsked struct {
	one     avatar.MovedStretch
	several []avatar.MovedStretch // nil: it is one
}

// UnmarshalJSON implements json.Unmarshaler.
func (s *stretchesAsked) UnmarshalJSON(text []byte) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if text[0] != '[' {
		return d.Decode(&s.one)
	}
	if _, err := d.Token(); err != nil {
		return err
	}
	for s.several = []avatar.MovedStretch{}; d.More(); {
		if len(s.several) == move.MaxSeveral { // so that few bytes don't become many
			return fmt.Errorf("more than %d stretches are asked for", move.MaxSeveral)
		}
		var m avatar.MovedStretch
		if err := d.Decode(&m); err != nil {
			return err
		}
		s.several = append(s.several, m)
	}
	return nil
}

// piecesOut writes several stretches: of each its length and its proof's, in 4 bytes,
// and then both.
func piecesOut(given []move.Piece) (out net.Buffers) {
	for _, p := range given {
		lengths := binary.BigEndian.AppendUint32(nil, uint32(len(p.Body)))
		out = append(out, binary.BigEndian.AppendUint32(lengths, uint32(len(p.Proof))), p.Body, p.Proof)
	}
	return out
}

// piecesIn reads what piecesOut writes.
func piecesIn(b []byte) (given []move.Piece, ok bool) {
	take := func(n uint64) (part []byte) {
		if ok = ok && n <= uint64(len(b)); ok {
			part, b = b[:n:n], b[n:]
		}
		return part
	}
	for ok = true; ok && len(b) > 0; {
		lengths := take(8)
		if !ok {
			break
		}
		given = append(given, move.Piece{
			Body: take(uint64(binary.BigEndian.Uint32(lengths))), Proof: take(uint64(binary.BigEndian.Uint32(lengths[4:]))),
		})
	}
	return given, ok
}

// wholeBody reads a body of at most so many bytes, which is said to have length of
// them (less than 0: nobody said).
func wholeBody(r io.Reader, length, most int64) ([]byte, error) {
	var body bytes.Buffer
	body.Grow(int(min(max(length, 0), most, maxTrusted)) + bytes.MinRead)
	if _, err := body.ReadFrom(io.LimitReader(r, most+1)); err != nil {
		return nil, carnet.Errorf(carnet.Unavailable, "what is said breaks off: %v", err)
	}
	if int64(body.Len()) > most {
		return nil, carnet.Errorf(carnet.TooLarge, "what is said has more than %d bytes", most)
	}
	return body.Bytes(), nil
}

func strictBody(r *http.Request, into any, most int64) error {
	body, err := wholeBody(r.Body, r.ContentLength, most)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return carnet.Errorf(carnet.Malformed, "what is said can't be read: %v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return carnet.Errorf(carnet.Malformed, "what is said goes on after its object")
	}
	return nil
}

// far asks sources.
type far struct{ node *Node }

// Offer implements move.Far.
func (f far) Offer(ctx context.Context, to move.Visit, o move.SignedOrder) (s move.Standing, err error) {
	if to.Decision != "" {
		return s, f.json(ctx, to, http.MethodPut, "", move.Decided{SignedOrder: o, Decision: to.Decision}, &s, maxListing)
	}
	return s, f.json(ctx, to, http.MethodPut, "", o, &s, maxListing)
}

// Stretches implements move.Far.
func (f far) Stretches(ctx context.Context, to move.Visit, from avatar.Place) (all []avatar.MovedStretch, err error) {
	at := "/stretches"
	if from != (avatar.Place{}) {
		at += "?stream=" + from.Stream.String() + "&from=" + strconv.FormatUint(from.Batch, 10)
	}
	return all, f.json(ctx, to, http.MethodGet, at, nil, &all, maxListing)
}

// Stretch implements move.Far.
func (f far) Stretch(ctx context.Context, to move.Visit, m avatar.MovedStretch, looked bool) (body, proof []byte, err error) {
	question, err := json.Marshal(m)
	if err != nil {
		return nil, nil, err
	}
	path := "/stretches"
	if looked {
		path += "?" + lookedAt
	}
	both, err := f.call(ctx, to, http.MethodPost, path, question, maxPiece)
	if err != nil {
		return nil, nil, err
	}
	if len(both) < 4 || int64(len(both)-4) < int64(binary.BigEndian.Uint32(both)) {
		return nil, nil, carnet.Errorf(carnet.Malformed, "%s gave a stretch that breaks off", to.Source)
	}
	n := binary.BigEndian.Uint32(both)
	return both[4 : 4+n : 4+n], both[4+n:], nil
}

// Several implements move.Far.
func (f far) Several(ctx context.Context, to move.Visit, some []avatar.MovedStretch) ([]move.Piece, error) {
	question, err := json.Marshal(some)
	if err != nil {
		return nil, err
	}
	answer, err := f.call(ctx, to, http.MethodPost, "/stretches", question, maxPiece)
	if err != nil {
		return nil, err
	}
	given, ok := piecesIn(answer)
	if !ok {
		return nil, carnet.Errorf(carnet.Malformed, "%s gave stretches that break off", to.Source)
	}
	return given, nil
}

// Freeze implements move.Far.
func (f far) Freeze(ctx context.Context, to move.Visit, announcement []byte) (given move.Freezing, err error) {
	answer, err := f.call(ctx, to, http.MethodPost, "/freeze", announcement, maxFreezing)
	if err == nil && json.Unmarshal(answer, &given) != nil {
		err = carnet.Errorf(carnet.Unavailable, "%s answered with something else than a release", to.Source)
	}
	return given, err
}

// Manifest implements move.Far.
func (f far) Manifest(ctx context.Context, to move.Visit) ([]byte, error) {
	return f.call(ctx, to, http.MethodGet, "/manifest", nil, avatar.MaxManifest)
}

// Decided implements move.Far.
func (f far) Decided(ctx context.Context, to move.Visit, d move.Decided) (left move.Left, err error) {
	return left, f.json(ctx, to, http.MethodPost, "/decision", d, &left, maxMoveBody)
}

// Ordered implements move.Far.
func (f far) Ordered(ctx context.Context, to move.Visit) (o move.SignedOrder, err error) {
	return o, f.json(ctx, to, http.MethodGet, "/order", nil, &o, maxMoveBody)
}

func (f far) json(ctx context.Context, to move.Visit, method, rest string, question, answer any, most int64) error {
	var body []byte
	if question != nil {
		var err error
		if body, err = json.Marshal(question); err != nil {
			return err
		}
	}
	got, err := f.call(ctx, to, method, rest, body, most)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(got, answer); err != nil {
		return carnet.Errorf(carnet.Unavailable, "%s answered with something else than was asked: %v", to.Source, err)
	}
	return nil
}

func (f far) call(ctx context.Context, to move.Visit, method, rest string, body []byte, most int64) (answer []byte, err error) {
	path := "/r5/avatars/" + to.About.String() + "/moves/" + to.Crossing.String() + rest
	if to.Decision != "" {
		answer, err = f.node.tellAbroad(ctx, to.Source, method, path, body, most)
	} else {
		answer, err = f.node.callAbroad(ctx, to.Source, to.As, r5.Use{Avatar: to.About, Action: identity.ActionMove}, method, path, body, most)
	}
	return answer, forTheMoment(err)
}

// forTheMoment is an error of a move's call: who isn't let in isn't told why, and it may be
// for the moment, as after the other's start; and a peering that is suspended at this side,
// or has new terms just now, may go on. A move waits for either until its time is over.
func forTheMoment(err error) error {
	_, shut := errors.AsType[closed](err)
	_, out := errors.AsType[unheard](err)
	if shut || out && carnet.CodeOf(err) == carnet.Unauthenticated {
		return carnet.Errorf(carnet.Unavailable, "%v", err)
	}
	return err
}
