package api

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"carnet"
	"carnet/avatar"
	"carnet/crossing/move"
	"carnet/identity"
	"carnet/policy"

	"github.com/danielgtaylor/huma/v2"
)

// moves is what the handler needs of a world's moves: a *move.Agent.
type moves interface {
	Enrol(ctx context.Context, id carnet.AvatarID, to carnet.PartyID) (move.Described, error)
	Ask(ctx context.Context, by string, w move.Wanted) (move.AtTarget, error)
	TakeOrder(ctx context.Context, x carnet.CrossingID, o identity.Ordered) (move.AtTarget, error)
	Cancel(ctx context.Context, x carnet.CrossingID, by string) error
	AtSource() []move.AtSource
	AtTarget() ([]move.AtTarget, map[carnet.CrossingID]move.Progress)
}

// OfCrossing is the input of what concerns one crossing. It is exported because huma
// passes over embedded structs that aren't.
type OfCrossing struct {
	ID carnet.CrossingID `path:"id" doc:"The crossing's id." example:"00112233445566778899aabbccddeeff"`
}

func (s *server) crossingRoutes(h huma.API) {
	tags := []string{atR3}
	serving(s, h, huma.Operation{
		OperationID: "enrol-avatar", Method: http.MethodPut, Path: "/v1/avatars/{id}/home", Tags: tags,
		Summary:     "Has the avatar's home registered, if it isn't, and describes the avatar for a world that it is to move to.",
		Description: "An owner's key must be pinned with it. The register learns a random id and the owner's key, and nothing of the avatar. With for, every batch that may be labelled above what that world may have is opened, so that what would be left behind can be counted.",
	}, func(ctx context.Context, in *struct {
		OfAvatar
		For carnet.PartyID `query:"for" doc:"The world that it is to move to, as this one calls it: with what would have to be left behind there." maxLength:"32"`
	}) (*body[Traveller], error) {
		d, err := s.moves.Enrol(ctx, in.ID, in.For)
		return answer(traveller(d), err)
	})
	serving(s, h, huma.Operation{
		OperationID: "list-crossings", Method: http.MethodGet, Path: "/v1/crossings", Tags: tags,
		Summary: "The moves of avatars from and to this world, oldest first, those that are over included.",
	}, func(ctx context.Context, _ *struct{}) (*body[CrossingList], error) {
		return answer(CrossingList{worlds(ctx, s.crossings)}, nil)
	})
	serving(s, h, huma.Operation{
		OperationID: "begin-crossing", Method: http.MethodPost, Path: "/v1/crossings", Tags: tags, DefaultStatus: http.StatusCreated,
		Summary:     "Makes room for an avatar of another world, and says what its owner is asked to order.",
		Description: "The answer's member request is the document that the owner approves with carnet owner approve. Nothing is fetched before.",
		RequestBody: example(exampleMove()),
	}, func(ctx context.Context, in *struct{ Body NewMove }) (*body[Crossing], error) {
		w, err := in.Body.wanted()
		if err != nil {
			return nil, err
		}
		t, err := s.moves.Ask(ctx, caller(ctx).Name, w)
		return answer(coming(t, move.Progress{}), err)
	})
	serving(s, h, huma.Operation{
		OperationID: "get-crossing", Method: http.MethodGet, Path: "/v1/crossings/{id}", Tags: tags,
		Summary: "One crossing: how far it is, what it waits for, how it was decided.",
	}, func(_ context.Context, in *OfCrossing) (*body[Crossing], error) {
		return answer(s.crossing(in.ID))
	})
	serving(s, h, huma.Operation{
		OperationID: "order-crossing", Method: http.MethodPut, Path: "/v1/crossings/{id}/order", Tags: tags,
		Summary:     "Hands in what the owner signed for a crossing: the order with its terms, and the mandate to fetch the avatar.",
		Description: "It proves itself: whoever brings it may hand it in. From then on the crossing goes on by itself.",
		RequestBody: example(identity.Ordered{Order: exampleToken, Terms: json.RawMessage(`{}`), Mandate: exampleToken}),
	}, func(ctx context.Context, in *struct {
		OfCrossing
		Body identity.Ordered
	}) (*body[Crossing], error) {
		if _, err := s.moves.TakeOrder(ctx, in.ID, in.Body); err != nil {
			return nil, err
		}
		return answer(s.crossing(in.ID))
	})
	serving(s, h, huma.Operation{
		OperationID: "cancel-crossing", Method: http.MethodDelete, Path: "/v1/crossings/{id}", Tags: tags, DefaultStatus: http.StatusOK,
		Summary:     "Calls a crossing off, while neither world has signed that it releases or accepts; from then on the registrar decides (conflict).",
		Description: "A target that has the order leaves it to the registrar to decide abort, since its word may be out.",
	}, func(ctx context.Context, in *OfCrossing) (*body[Crossing], error) {
		if err := s.moves.Cancel(ctx, in.ID, caller(ctx).Name); err != nil {
			return nil, err
		}
		return answer(s.crossing(in.ID))
	})
}

// Traveller describes an avatar for a world that it is to move to.
type Traveller struct {
	Avatar      carnet.AvatarID `json:"avatar" example:"00112233445566778899aabbccddeeff"`
	Home        carnet.HomeID   `json:"home" doc:"What the register calls it." example:"112233445566778899aabbccddeeff00"`
	Registrar   string          `json:"registrar" doc:"Who keeps the register, as a did:key." maxLength:"64"`
	Owner       string          `json:"owner" doc:"The owner's key that is registered, as a did:key." maxLength:"64"`
	Title       string          `json:"title,omitempty" maxLength:"200"`
	Sensitivity string          `json:"sensitivity" doc:"Of all that would move: what its new home must be cleared for." example:"health" maxLength:"64"`
	Purposes    []string        `json:"purposes,omitempty" doc:"To which its data is bound." maxItems:"64"`
	Residency   []string        `json:"residency,omitempty" doc:"To which places its data is bound." maxItems:"64"`
	Properties  []string        `json:"properties" doc:"What it has." maxItems:"4096"`
	Policy      string          `json:"policy,omitempty" doc:"The avatar's policy, which its owner signed for its world, as a JWS: it goes along." maxLength:"8192"`
	Backup      *move.Backup    `json:"backup,omitempty" doc:"The newest passport of it with keys for its owner that was given out."`
	Items       []CarriedItem   `json:"items,omitempty" doc:"The items that it has. Of an item that moves alone: that one." maxItems:"256"`
	ClearedFor  *ClearedFor     `json:"cleared_for,omitempty" doc:"What the world may have for which it is described."`
	Leaves      []LeftBehind    `json:"leaves,omitempty" doc:"What that world may not have, by label." maxItems:"4096"`
}

// ClearedFor is what a world may have.
type ClearedFor struct {
	Sensitivity string   `json:"sensitivity" example:"personal" maxLength:"64"`
	Purposes    []string `json:"purposes,omitempty" maxItems:"64"`
	Residency   []string `json:"residency,omitempty" maxItems:"64"`
}

// LeftBehind is what of a label a redacted move would leave behind for good.
type LeftBehind struct {
	Sensitivity  string     `json:"sensitivity" example:"health" maxLength:"64"`
	Purposes     []string   `json:"purposes,omitempty" maxItems:"64"`
	Residency    []string   `json:"residency,omitempty" maxItems:"64"`
	Properties   []string   `json:"properties,omitempty" maxItems:"4096"`
	Batches      uint64     `json:"batches"`
	Measurements uint64     `json:"measurements"`
	Closed       uint64     `json:"closed,omitempty" doc:"Batches that can't be opened any more: what they hold isn't counted."`
	From         *time.Time `json:"from,omitempty" doc:"The first was measured then."`
	To           *time.Time `json:"to,omitempty" doc:"And the last."`
}

// CarriedItem is an item of an avatar that is to move.
type CarriedItem struct {
	ID         carnet.ItemID `json:"id"`
	Credential string        `json:"credential" doc:"What its issuer says of it, as a JWS." maxLength:"8192"`
	Owner      string        `json:"owner" doc:"The owner's key that is registered for it, as a did:key." maxLength:"64"`
}

func traveller(d move.Described) Traveller {
	t := Traveller{
		Avatar: d.Avatar, Home: d.Home, Registrar: d.Registrar, Owner: d.Owner, Title: d.Title, Sensitivity: d.Ceiling.Sensitivity.String(),
		Purposes: d.Ceiling.Purposes.Words(), Residency: d.Ceiling.Residency.Words(), Properties: d.Properties, Policy: d.Policy, Backup: d.Backup,
	}
	for _, i := range d.Items {
		t.Items = append(t.Items, CarriedItem{i.ID, i.Credential, i.Owner})
	}
	if c := d.Clearance; c != nil {
		t.ClearedFor = &ClearedFor{c.Sensitivity.String(), c.Purposes.Words(), c.Residency.Words()}
	}
	for _, l := range d.Leaves {
		t.Leaves = append(t.Leaves, LeftBehind{
			l.Label.Sensitivity.String(), l.Label.Purposes.Words(), l.Label.Residency.Words(), l.Properties, l.Batches, l.Measurements, l.Closed, when(l.From), when(l.To),
		})
	}
	return t
}

// redaction is what is to be left behind of a traveller, as its world has described it.
func (n NewMove) redaction() (*identity.Redaction, []avatar.LeftBehind, error) {
	c := n.Traveller.ClearedFor
	switch {
	case !n.Redact:
		return nil, nil, nil
	case n.Alone:
		return nil, nil, carnet.Errorf(carnet.Malformed, "an item that comes alone leaves nothing behind")
	case c == nil:
		return nil, nil, carnet.Errorf(carnet.Malformed, "it isn't said what this world may have of the avatar").WithFix("have it described for this world: PUT /v1/avatars/{id}/home?for=WORLD")
	}
	label, err := labelOf(c.Sensitivity, c.Purposes, c.Residency)
	if err != nil {
		return nil, nil, err
	}
	r := identity.Redaction(label)
	var leaves []avatar.LeftBehind
	for _, l := range n.Traveller.Leaves {
		one := avatar.LeftBehind{Properties: l.Properties, Batches: l.Batches, Measurements: l.Measurements, Closed: l.Closed}
		if one.Label, err = labelOf(l.Sensitivity, l.Purposes, l.Residency); err != nil {
			return nil, nil, err
		}
		if l.From != nil && l.To != nil {
			one.From, one.To = *l.From, *l.To
		}
		leaves = append(leaves, one)
	}
	return &r, leaves, nil
}

func labelOf(sensitivity string, purposes, residency []string) (l carnet.Label, err error) {
	l = carnet.Label{Purposes: carnet.NewSet(purposes...), Residency: carnet.NewSet(residency...)}
	l.Sensitivity, err = carnet.ParseSensitivity(sensitivity)
	return l, err
}

// NewMove asks for an avatar of another world to come here.
type NewMove struct {
	World     carnet.PartyID `json:"world" doc:"Where it lives, as this world calls that one." example:"arena"`
	Traveller Traveller      `json:"traveller" doc:"As the other world describes it: the answer to enrol-avatar there. It is compared with what that world gives."`
	View      *policy.View   `json:"view,omitempty" doc:"What its things send here from then on; left out, what they send now."`
	Redact    bool           `json:"redact,omitempty" doc:"What is labelled above cleared_for is left behind for good, if the owner consents; without it such a move is refused."`
	Text      string         `json:"text,omitempty" doc:"What for, to the owner, on one line." maxLength:"512"`

	Items  []carnet.ItemID  `json:"items,omitempty" doc:"Those of its items that come along: each must be accepted here." maxItems:"256"`
	Retire []carnet.ItemID  `json:"retire,omitempty" doc:"Those that end when it moves. Each of its items must be in one of the two lists." maxItems:"256"`
	Alone  bool             `json:"alone,omitempty" doc:"Its one item comes without it: home and owner of the traveller are the item's."`
	To     *carnet.AvatarID `json:"to,omitempty" doc:"Of an item that comes alone: the avatar here that is to have it, of the same owner."`
}

func exampleMove() NewMove {
	const did = "did:key:z6MkpTHR8VNsBxYAAWHut2Geadd9jSwuBV8xRoAnwWsdvktH"
	return NewMove{World: "citadel", Text: "Your player comes to arena.", Traveller: Traveller{
		Avatar: carnet.AvatarID{1}, Home: carnet.HomeID{2}, Registrar: did, Owner: did, Title: "Runner", Sensitivity: "health", Properties: []string{"heart-rate"},
	}}
}

func (n NewMove) wanted() (w move.Wanted, err error) {
	t := n.Traveller
	w = move.Wanted{From: n.World, Home: move.Registered{Avatar: t.Avatar, Home: t.Home, Registrar: t.Registrar, Owner: t.Owner}, Title: t.Title, Properties: t.Properties, Text: n.Text}
	w.Along, w.End, w.Alone, w.Policy, w.Backup = n.Items, n.Retire, n.Alone, t.Policy, t.Backup
	for _, i := range t.Items {
		w.Has = append(w.Has, move.Possession{Credential: i.Credential, Owner: i.Owner})
	}
	if n.Alone != (n.To != nil) || n.Alone && n.View != nil {
		return w, carnet.Errorf(carnet.Malformed, "an item that comes alone comes to an avatar that is here, and without a view; nothing else does")
	}
	if n.To != nil {
		w.To = *n.To
	}
	if w.Ceiling, err = labelOf(t.Sensitivity, t.Purposes, t.Residency); err != nil {
		return w, err
	}
	if w.Redact, w.Leaves, err = n.redaction(); err != nil {
		return w, err
	}
	if n.View != nil {
		if err := n.View.Enforced(); err != nil {
			return w, err
		}
		w.View, err = n.View.MarshalJSON()
	}
	return w, err
}

// The directions of a crossing, seen from here.
const (
	arriving  = "arriving"
	departing = "departing"
)

// Crossing is a move of an avatar, as one of its worlds sees it.
type Crossing struct {
	ID        carnet.CrossingID `json:"id"`
	Direction string            `json:"direction" enum:"arriving,departing"`
	State     move.State        `json:"state" enum:"asked,copying,leaving,prepared,home,dropped,offered,frozen,gone,kept"`
	World     carnet.PartyID    `json:"world" doc:"The other world, as this one calls it."`
	Ours      carnet.AvatarID   `json:"ours"`
	Theirs    *carnet.AvatarID  `json:"theirs,omitempty" doc:"Where it comes from; absent of what departs."`
	Begun     time.Time         `json:"begun"`
	Until     *time.Time        `json:"until,omitempty" doc:"From then on the registrar decides abort."`
	Ended     *time.Time        `json:"ended,omitempty"`
	Why       string            `json:"why,omitempty" doc:"It was called off or aborted."`
	Request   RequestDocument   `json:"request,omitempty" doc:"What the owner is asked to approve."`
	Progress  *move.Progress    `json:"progress,omitempty" doc:"Of the copying, since this process began."`
	Steps     []move.Step       `json:"steps" doc:"Since when it is, or was, in each state." maxItems:"8"`
	Amount    *move.Amount      `json:"amount,omitempty" doc:"How much moves, as the manifest lists it."`
	Manifest  string            `json:"manifest,omitempty" doc:"SHA-256 of the list of all that moves."`
	Decision  string            `json:"decision,omitempty" doc:"The registrar's, as a JWS."`
	Departure string            `json:"departure,omitempty" doc:"The source's receipt for what it deleted, as a JWS."`
	Backup    *move.Backup      `json:"backup,omitempty" doc:"Of what departs: the newest passport of it with keys for its owner when it was asked for. By that it comes back if both worlds are lost before the registrar has decided."`
	Items     []MovingItem      `json:"items,omitempty" doc:"What goes along, and what ends."`
	Alone     bool              `json:"alone,omitempty" doc:"The item moves, and not the avatar."`
	Redacted  bool              `json:"redacted,omitempty" doc:"What its target may not have is left behind, by the owner's order."`
	Recovery  bool              `json:"recovery,omitempty" doc:"It comes by a passport, since its home is gone for good."`
	Surveyed  bool              `json:"surveyed,omitempty" doc:"Since it is home, every batch that came has been opened."`
	Unfit     int               `json:"unfit,omitempty" doc:"How many of them can't be used; the log names them."`
}

// MovingItem is an item of a crossing.
type MovingItem struct {
	ID    carnet.ItemID `json:"id"`
	Kind  string        `json:"kind" doc:"Of its issuer's."`
	Title string        `json:"title"`
	As    string        `json:"as,omitempty" doc:"What it counts as where it goes; absent: it ends."`
}

func movingItems(t identity.MoveTerms) (all []MovingItem) {
	for _, m := range slices.Concat(t.Items, t.Retired) {
		all = append(all, MovingItem{m.Item, m.Kind, m.Title, m.As})
	}
	return all
}

// CrossingList is all crossings of a world.
type CrossingList struct {
	Crossings []Crossing `json:"crossings"`
}

func when(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func amount(a move.Amount) *move.Amount {
	if a == (move.Amount{}) {
		return nil
	}
	return &a
}

func hash(f carnet.Fingerprint) string {
	if f == (carnet.Fingerprint{}) {
		return ""
	}
	return f.String()
}

func coming(t move.AtTarget, p move.Progress) Crossing {
	c := Crossing{
		ID: t.ID, Direction: arriving, State: t.State, World: t.From, Ours: t.To, Theirs: &t.Avatar, Begun: t.Begun, Until: when(t.Until), Ended: when(t.Ended),
		Why: t.Why, Manifest: hash(t.Manifest), Decision: t.Decision, Departure: t.Departure,
		Surveyed: t.Surveyed, Unfit: t.Unfit, Steps: t.Steps, Amount: amount(t.Amount),
	}
	moving := t.Moving()
	c.Items, c.Alone, c.Redacted = movingItems(moving), moving.Alone, moving.Redact != nil
	c.Recovery = t.Passport != ""
	if t.State == move.Asked {
		c.Request = RequestDocument(t.Request)
	}
	if !t.State.Over() && t.State != move.Asked || p.Waits != "" {
		c.Progress = &p
	}
	return c
}

func (s *server) crossings() []Crossing {
	all := []Crossing{}
	for _, l := range s.moves.AtSource() {
		moving := l.Moving()
		all = append(all, Crossing{
			ID: l.ID, Direction: departing, State: l.State, World: l.To, Ours: l.Avatar, Begun: l.Begun, Until: when(l.Until), Ended: when(l.Ended),
			Why: l.Why, Manifest: hash(l.Manifest), Decision: l.Decision, Departure: l.Departure, Steps: l.Steps, Amount: amount(l.Amount), Backup: l.Backup,
			Items: movingItems(moving), Alone: moving.Alone, Redacted: moving.Redact != nil,
		})
	}
	targets, progress := s.moves.AtTarget()
	for _, t := range targets {
		all = append(all, coming(t, progress[t.ID]))
	}
	return all
}

func (s *server) crossing(id carnet.CrossingID) (Crossing, error) {
	for _, c := range s.crossings() {
		if c.ID == id {
			return c, nil
		}
	}
	return Crossing{}, carnet.Errorf(carnet.NotFound, "there is no crossing %s", id).WithFix("list the crossings: carnet avatar status")
}
