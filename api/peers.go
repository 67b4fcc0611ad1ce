package api

import (
	"context"
	"net/http"
	"strings"
	"time"

	"carnet"
	"carnet/identity"
	"carnet/peering"

	"github.com/danielgtaylor/huma/v2"
)

// Peers is what the handler needs of a party's peerings: a *peering.Registry.
type Peers interface {
	All() []peering.Peering
	Named(name carnet.PartyID) (peering.Peering, error)
	Trouble(name carnet.PartyID) string
	Invite(ctx context.Context, name carnet.PartyID, o peering.Offer) (peering.Peering, error)
	Accept(ctx context.Context, name carnet.PartyID, invitation string) (peering.Peering, error)
	TakeAcceptance(ctx context.Context, name carnet.PartyID, acceptance string) (peering.Peering, error)
	TakeConfirmation(ctx context.Context, name carnet.PartyID, confirmation string) (peering.Peering, error)
	Compare(ctx context.Context, name carnet.PartyID, words string) (peering.Peering, error)
	Suspend(ctx context.Context, name carnet.PartyID) (peering.Peering, error)
	Resume(ctx context.Context, name carnet.PartyID) (peering.Peering, error)
	Remove(ctx context.Context, name carnet.PartyID) (peering.Peering, error)
	Answer(ctx context.Context, id peering.InvitationID, secret, acceptance string) (confirmation string, err error)
	Confirmed(id peering.InvitationID, secret string) (confirmation string, err error)
	Invited(id peering.InvitationID, secret string) error
}

// Peer is one peering as the operator sees it.
type Peer struct {
	Name        carnet.PartyID `json:"name" doc:"What this party calls the peer."`
	State       peering.State  `json:"state" enum:"invited,answered,accepted,active,suspended,over,removed"`
	Since       time.Time      `json:"since"`
	Inviter     bool           `json:"inviter" doc:"This party invited."`
	Role        identity.Role  `json:"role,omitempty" doc:"The peer's role, once it is known."`
	Party       carnet.PartyID `json:"party,omitempty" doc:"What the peer calls itself to this party."`
	Scope       []string       `json:"scope" doc:"The reference points that the two use with each other."`
	Purposes    []string       `json:"purposes,omitempty"`
	Sensitivity string         `json:"sensitivity,omitempty"`
	Residency   []string       `json:"residency,omitempty"`
	NotAfter    time.Time      `json:"not_after" doc:"When the terms end."`
	Words       string         `json:"words,omitempty" doc:"To compare with the other side's, by another way."`
	Until       *time.Time     `json:"until,omitempty" doc:"Until when the invitation may be accepted."`
	// The messages of this side, to be carried by hand.
	Invitation   string `json:"invitation,omitempty"`
	Acceptance   string `json:"acceptance,omitempty"`
	Confirmation string `json:"confirmation,omitempty"`
	Next         string `json:"next,omitempty" doc:"What is to be done, for people."`
	Trouble      string `json:"trouble,omitempty" doc:"What stands in the way."`
}

// PeerList is a party's peerings.
type PeerList struct {
	Peers []Peer `json:"peers" nullable:"false"`
}

// NewPeer invites a peer.
type NewPeer struct {
	Name        carnet.PartyID  `json:"name" doc:"What this party is to call the peer."`
	Scope       []peering.Scope `json:"scope" doc:"r1, r2 or r5."`
	Purposes    []string        `json:"purposes,omitempty"`
	Sensitivity string          `json:"sensitivity,omitempty" doc:"public, or personal, health, location joined by +."`
	Residency   []string        `json:"residency,omitempty"`
	NotAfter    *time.Time      `json:"not_after,omitempty" doc:"When the terms end; at most two years away. Default: in a year."`
	Until       *time.Time      `json:"until,omitempty" doc:"Until when the invitation may be accepted; at most seven days. Default: a day."`
}

// The messages of an exchange, and the words that two operators compare.
type (
	Invitation struct {
		Invitation string `json:"invitation"`
	}
	Acceptance struct {
		Acceptance string `json:"acceptance"`
	}
	Confirmation struct {
		Confirmation string `json:"confirmation" doc:"Empty while the inviter's operator has not compared the words."`
	}
	Words struct {
		Words string `json:"words"`
	}
)

// OfPeer is the input of what concerns one peer. It is exported because huma
// passes over embedded structs that aren't.
type OfPeer struct {
	Name carnet.PartyID `path:"peer" doc:"What this party calls the peer." example:"arena" maxLength:"32"`
}

// OfInvitation is the input of who was invited, and isn't a peer yet.
type OfInvitation struct {
	ID     string `path:"invitation" doc:"The invitation's id." example:"00112233445566778899aabbccddeeff" maxLength:"32"`
	Secret string `header:"Authorization" doc:"Bearer and the invitation's secret."`
}

// read takes what isn't an id for one that nobody has: who calls isn't known yet,
// and hears the same of both.
func (in OfInvitation) read() (id peering.InvitationID, secret string) {
	scheme, secret, _ := strings.Cut(in.Secret, " ")
	if !strings.EqualFold(scheme, "Bearer") || len(secret) > maxToken {
		secret = ""
	}
	id, err := peering.ParseInvitationID(in.ID)
	if err != nil {
		return peering.InvitationID{}, ""
	}
	return id, secret
}

// invitationPaths is below what an invitation's secret stands for a token.
const invitationPaths = "/v1/peerings/"

// invited checks the secret of an invitation before anything else is done with a
// call that goes by it.
func (s *server) invited(r *http.Request) error {
	in := OfInvitation{ID: strings.TrimPrefix(r.URL.Path, invitationPaths), Secret: r.Header.Get("Authorization")}
	return s.peers.Invited(in.read())
}

// take serves what a peering takes from the other side, by its operator's hand.
func take[B any](s *server, h huma.API, id, path, summary string, given B, do func(context.Context, carnet.PartyID, B) (peering.Peering, error)) {
	serving(s, h, huma.Operation{
		OperationID: id, Method: http.MethodPut, Path: "/v1/peers/{peer}" + path, Tags: []string{ofPeers}, DefaultStatus: http.StatusOK,
		Summary: summary, RequestBody: example(given),
	}, func(ctx context.Context, in *struct {
		OfPeer
		Body B
	}) (*body[Peer], error) {
		return s.peer(do(ctx, in.Name, in.Body))
	})
}

func (s *server) peerRoutes(h huma.API) {
	tags := []string{ofPeers}
	one := func(id, method, path, summary string, do func(context.Context, carnet.PartyID) (peering.Peering, error)) {
		serving(s, h, huma.Operation{OperationID: id, Method: method, Path: "/v1/peers/{peer}" + path, Tags: tags, Summary: summary, DefaultStatus: http.StatusOK},
			func(ctx context.Context, in *OfPeer) (*body[Peer], error) { return s.peer(do(ctx, in.Name)) })
	}
	serving(s, h, huma.Operation{
		OperationID: "list-peers", Method: http.MethodGet, Path: "/v1/peers", Tags: tags,
		Summary:     "The parties that this one trusts for something, or did, in order of their names.",
		Description: "Who may see only what is its own sees who is a peer now, and for what: not how it came to that.",
	}, func(ctx context.Context, _ *struct{}) (*body[PeerList], error) {
		list, all := PeerList{Peers: []Peer{}}, admittedIn(ctx).All
		for _, p := range s.peers.All() {
			info := s.peerInfo(p)
			info.Invitation, info.Acceptance, info.Confirmation = "", "", ""
			if !all {
				if p.State != peering.Active {
					continue
				}
				info = Peer{
					Name: info.Name, State: info.State, Since: info.Since, Role: info.Role, Scope: info.Scope,
					Purposes: info.Purposes, Sensitivity: info.Sensitivity, Residency: info.Residency, NotAfter: info.NotAfter,
				}
			}
			list.Peers = append(list.Peers, info)
		}
		return answer(list, nil)
	})
	serving(s, h, huma.Operation{
		OperationID: "invite-peer", Method: http.MethodPost, Path: "/v1/peers", Tags: tags, DefaultStatus: http.StatusCreated,
		Summary:     "Invites a peer. The answer has the invitation, to be handed over.",
		RequestBody: example(NewPeer{Name: "arena", Scope: []peering.Scope{peering.R1}, Purposes: []string{"fitness"}, Sensitivity: "personal+health"}),
	}, s.invite)
	one("get-peer", http.MethodGet, "", "One peering, with this side's messages and the words to compare.",
		func(_ context.Context, name carnet.PartyID) (peering.Peering, error) { return s.peers.Named(name) })
	take(s, h, "accept-invitation", "/invitation", "Accepts an invitation. The acceptance is posted to the inviter, or carried by hand.", Invitation{"eyJ…"},
		func(ctx context.Context, name carnet.PartyID, b Invitation) (peering.Peering, error) {
			return s.peers.Accept(ctx, name, strings.TrimSpace(b.Invitation))
		})
	take(s, h, "take-acceptance", "/acceptance", "Takes the acceptance of this party's invitation that was carried by hand.", Acceptance{"eyJ…"},
		func(ctx context.Context, name carnet.PartyID, b Acceptance) (peering.Peering, error) {
			return s.peers.TakeAcceptance(ctx, name, strings.TrimSpace(b.Acceptance))
		})
	take(s, h, "take-confirmation", "/confirmation", "Takes the confirmation of this party's acceptance that was carried by hand.", Confirmation{"eyJ…"},
		func(ctx context.Context, name carnet.PartyID, b Confirmation) (peering.Peering, error) {
			return s.peers.TakeConfirmation(ctx, name, strings.TrimSpace(b.Confirmation))
		})
	take(s, h, "compare-words", "/words", "Takes the words that the other side's operator read out. Without the right ones nobody becomes a peer.", Words{"ABCD EFGH IJKL MNOP QRST UVWX"},
		func(ctx context.Context, name carnet.PartyID, b Words) (peering.Peering, error) {
			return s.peers.Compare(ctx, name, b.Words)
		})
	one("suspend-peer", http.MethodPost, "/suspend", "Lets nothing be done by the peering until it is resumed: its connections are closed.", s.peers.Suspend)
	one("resume-peer", http.MethodPost, "/resume", "Takes a suspension back.", s.peers.Resume)
	one("remove-peer", http.MethodDelete, "", "Ends the peering for good, or gives an exchange up. The keys that only this peer was shown are destroyed.", s.peers.Remove)
	s.invitationRoutes(h)
}

// invitationRoutes are for who was invited, and shows the invitation's secret.
func (s *server) invitationRoutes(h huma.API) {
	secret := []map[string][]string{{"invitation": {}}}
	serving(s, h, huma.Operation{
		OperationID: "answer-invitation", Method: http.MethodPost, Path: invitationPaths + "{invitation}", Tags: []string{ofPeers}, Security: secret,
		DefaultStatus: http.StatusOK, RequestBody: example(Acceptance{"eyJ…"}),
		Summary: "Brings the acceptance of an invitation, with its secret as bearer token. The same one may come again; the answer has the confirmation once there is one.",
	}, func(ctx context.Context, in *struct {
		OfInvitation
		Body Acceptance
	}) (*body[Confirmation], error) {
		id, secret := in.read()
		message, err := s.peers.Answer(ctx, id, secret, in.Body.Acceptance)
		return answer(Confirmation{message}, err)
	})
	serving(s, h, huma.Operation{
		OperationID: "get-confirmation", Method: http.MethodGet, Path: invitationPaths + "{invitation}", Tags: []string{ofPeers}, Security: secret,
		Summary: "The confirmation of an acceptance, with the invitation's secret as bearer token.",
	}, func(_ context.Context, in *OfInvitation) (*body[Confirmation], error) {
		id, secret := in.read()
		message, err := s.peers.Confirmed(id, secret)
		return answer(Confirmation{message}, err)
	})
}

type newPeerInput struct{ Body NewPeer }

func (s *server) invite(ctx context.Context, in *newPeerInput) (*body[Peer], error) {
	b := in.Body
	o := peering.Offer{Scope: b.Scope, Purposes: b.Purposes, Residency: b.Residency}
	if b.Sensitivity != "" {
		sensitivity, err := carnet.ParseSensitivity(b.Sensitivity)
		if err != nil {
			return nil, err
		}
		o.Sensitivity = &sensitivity
	}
	if b.NotAfter != nil {
		o.NotAfter = *b.NotAfter
	}
	if b.Until != nil {
		o.Until = *b.Until
	}
	return s.peer(s.peers.Invite(ctx, b.Name, o))
}

func (s *server) peer(p peering.Peering, err error) (*body[Peer], error) {
	return answer(s.peerInfo(p), err)
}

func (s *server) peerInfo(p peering.Peering) Peer {
	info := Peer{
		Name: p.Name, State: p.State, Since: p.Since, Inviter: p.Inviter, Purposes: p.Terms.Purposes, Residency: p.Terms.Residency,
		NotAfter: p.Terms.NotAfter, Scope: []string{}, Trouble: s.peers.Trouble(p.Name),
	}
	for _, scope := range p.Terms.Scope {
		info.Scope = append(info.Scope, string(scope))
	}
	if p.Terms.Sensitivity != nil {
		info.Sensitivity = p.Terms.Sensitivity.String()
	}
	if peer, ok := p.Peer(); ok {
		info.Role, info.Party = peer.Role, peer.Party
	}
	if p.Terms.Accepter != nil {
		info.Words = p.Terms.Words()
	}
	if p.State == peering.Invited {
		info.Until = &p.Until
	}
	if p.Inviter {
		info.Invitation, info.Confirmation = p.Invitation, p.Confirmation
	} else {
		info.Acceptance = p.Acceptance
	}
	if p.Second != "" {
		info.Trouble = "somebody else accepted the invitation, too, and was refused; the words of that are " + p.Second
	}
	info.Next = next(p)
	return info
}

// next says what is to be done.
func next(p peering.Peering) string {
	switch p.State {
	case peering.Invited:
		if p.ReplyTo == nil {
			return "hand the invitation over; whoever gets it can accept it, and as this party isn't answered over the network, bring the acceptance back by hand: carnet peer accept " + string(p.Name) + " --acceptance FILE"
		}
		return "hand the invitation over; whoever gets it can accept it"
	case peering.Answered:
		return "compare the words with the other side's operator, then: carnet peer accept " + string(p.Name) + " --words WORDS"
	case peering.Accepted:
		if p.ReplyTo == nil && p.Confirmation == "" {
			return "carry the acceptance to the other side (carnet peer show " + string(p.Name) + " --message --out FILE), which takes it with 'carnet peer accept NAME --acceptance FILE', " +
				"compare the words with its operator, and bring its confirmation back: carnet peer accept " + string(p.Name) + " --confirmation FILE"
		}
		if !p.Compared {
			return "compare the words with the other side's operator, then: carnet peer accept " + string(p.Name) + " --words WORDS"
		}
		return "wait until the other side has compared the words"
	}
	return ""
}
