package identity

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"carnet"
)

// Action is what a mandate permits a world to do in the owner's name.
type Action string

// The actions.
const (
	ActionRead      Action = "read"      // state and history
	ActionSubscribe Action = "subscribe" // what comes from now on
	ActionMove      Action = "move"      // take the avatar to another home
)

var actions = []Action{ActionMove, ActionRead, ActionSubscribe}

// MandateTerms is what a mandate says beside who signs it and when: an avatar
// of one world, the platform, may do something about an avatar of another, the
// audience.
type MandateTerms struct {
	Audience  carnet.PartyID    // the world that is to check the mandate, as it calls itself
	Subject   ed25519.PublicKey // the key of the avatar that may act
	Platform  ed25519.PublicKey // the key of the world that it lives in, in its peering with Audience
	Avatar    carnet.AvatarID   // the avatar at Audience that it is about
	Actions   []Action          // sorted, each once, at least one
	Purpose   string            // one word
	Clearance carnet.Clearance  // the most that may flow; the claim is named label
}

// MandateRequest is what the platform asks an owner to sign.
type MandateRequest struct {
	MandateTerms
	Text string // for people, in the platform's own words: at most MaxRequestText bytes on one line
}

// Mandate is an owner's signed permission. The times are of whole seconds.
type Mandate struct {
	MandateTerms
	ID        string // a "urn:uuid:…"; SignMandate draws one when it is empty
	Issued    time.Time
	NotBefore time.Time // not before Issued
	Expires   time.Time // at most MandateLife after Issued
}

// Withdrawal ends a mandate before its time.
type Withdrawal struct {
	Audience carnet.PartyID // as the mandate's
	Mandate  string         // the mandate's ID
	Issued   time.Time      // not before the mandate was
}

// MandateExpectation is what a mandate is checked against. Nothing in it may be
// left out but Skew.
type MandateExpectation struct {
	Owner    ed25519.PublicKey // as pinned with the avatar: nobody else's word is taken
	Audience carnet.PartyID    // who checks
	Subject  ed25519.PublicKey // the avatar that acts
	Platform ed25519.PublicKey // the peer that speaks for it
	Avatar   carnet.AvatarID   // what it acts on
	Actions  []Action          // what it is about to do: the mandate has to have all of them
	Now      time.Time
	Skew     time.Duration // how far clocks may differ, 0 to 5 minutes
}

// WithdrawalExpectation is what a withdrawal is checked against.
type WithdrawalExpectation struct {
	Owner    ed25519.PublicKey
	Audience carnet.PartyID
	Now      time.Time
	Skew     time.Duration // how far clocks may differ, 0 to 5 minutes
}

// Limits of mandates.
const (
	// MandateLife bounds how long a mandate holds after it was signed, and so
	// how long a withdrawal of it matters.
	MandateLife    = 24 * time.Hour
	MaxRequestText = 512

	maxMandate = 4 << 10 // bytes, of requests and withdrawals too
)

const (
	mandateType    = "carnet-mandate+jwt"
	withdrawalType = "carnet-withdrawal+jwt"
)

// PartyURN names a party as an audience or issuer in signed tokens.
func PartyURN(party carnet.PartyID) string { return partyURN + string(party) }

const partyURN = "urn:carnet:party:"

func parsePartyURN(s string) (carnet.PartyID, error) {
	name, ok := strings.CutPrefix(s, partyURN)
	if !ok {
		return "", carnet.Errorf(carnet.Malformed, "%.80q names no party: want %sNAME", s, partyURN)
	}
	return carnet.ParsePartyID(name)
}

// termsClaims is MandateTerms as JSON.
type termsClaims struct {
	Audience string          `json:"aud"`
	Subject  string          `json:"sub"`
	Platform string          `json:"platform"`
	Avatar   carnet.AvatarID `json:"avatar"`
	Actions  []Action        `json:"actions"`
	Purpose  string          `json:"purpose"`
	Label    labelClaims     `json:"label"`
}

type labelClaims struct {
	Sensitivity string   `json:"sensitivity"`
	Purposes    []string `json:"purposes"`
	Residency   []string `json:"residency"`
}

type mandateClaims struct {
	Issuer string `json:"iss"`
	termsClaims
	ID        string `json:"jti"`
	Issued    int64  `json:"iat"`
	NotBefore int64  `json:"nbf"`
	Expires   int64  `json:"exp"`
}

type requestClaims struct {
	termsClaims
	Text string `json:"text"`
}

type withdrawalClaims struct {
	Issuer   string `json:"iss"`
	Audience string `json:"aud"`
	ID       string `json:"jti"`
	Issued   int64  `json:"iat"`
}

// SignMandate signs m with the owner's key for the world that is to check it.
func SignMandate(key ed25519.PrivateKey, m Mandate) (string, error) {
	if m.ID == "" {
		m.ID = urnUUID + newUUID()
	}
	terms, err := m.MandateTerms.claims()
	if err != nil {
		return "", err
	}
	issuer := DID(key.Public().(ed25519.PublicKey))
	p := mandateClaims{issuer, terms, m.ID, m.Issued.Unix(), m.NotBefore.Unix(), m.Expires.Unix()}
	if err := p.check(); err != nil {
		return "", err
	}
	return issue(key, "mandate", headerOf(mandateType, issuer), p)
}

// VerifyMandate takes a mandate only if the avatar's owner signed it for whoever
// asks, for exactly what is about to be done, and it holds now. It doesn't know
// of withdrawals.
func VerifyMandate(token string, want MandateExpectation) (m Mandate, err error) {
	if err := want.check(); err != nil {
		return m, err
	}
	p, err := readMandate(token, want.Owner)
	if err != nil {
		return m, err
	}
	if m, err = p.mandate(); err != nil {
		return m, err
	}
	refuse := func(format string, args ...any) (Mandate, error) {
		return Mandate{}, carnet.Errorf(carnet.Unauthenticated, "the mandate "+format, args...)
	}
	switch {
	case p.Issuer != DID(want.Owner):
		return refuse("is by %.80q, and the avatar's owner is %q", p.Issuer, DID(want.Owner))
	case m.Audience != want.Audience:
		return refuse("is for %q, not for %q", m.Audience, want.Audience)
	case !m.Subject.Equal(want.Subject):
		return refuse("lets %q act, not %q", p.Subject, DID(want.Subject))
	case !m.Platform.Equal(want.Platform):
		return refuse("is for the platform %q, not %q", p.Platform, DID(want.Platform))
	case m.Avatar != want.Avatar:
		return refuse("is about the avatar %s, not %s", m.Avatar, want.Avatar)
	case want.Now.Add(want.Skew).Before(m.Issued):
		return refuse("was signed in the future, at %v", m.Issued)
	case want.Now.Add(want.Skew).Before(m.NotBefore):
		return refuse("holds from %v on", m.NotBefore)
	case !want.Now.Add(-want.Skew).Before(m.Expires):
		return refuse("ended at %v", m.Expires)
	}
	for _, a := range want.Actions {
		if !slices.Contains(m.Actions, a) {
			return refuse("permits %s, not %s", joinActions(m.Actions), a)
		}
	}
	return m, nil
}

// ReadMandate reads a mandate that is signed by whom it names, and returns that
// key. Whether it is the owner's, and the mandate holds, only VerifyMandate says:
// this is for who keeps mandates.
func ReadMandate(token string) (m Mandate, by ed25519.PublicKey, err error) {
	if len(token) > maxMandate {
		return m, nil, carnet.Errorf(carnet.TooLarge, "the mandate has %d bytes, at most %d are read", len(token), maxMandate)
	}
	parts, err := split(token)
	if err != nil {
		return m, nil, err
	}
	p, err := readMandateClaims(parts.payload)
	if err != nil {
		return m, nil, err
	}
	if by, err = ParseDID(p.Issuer); err != nil {
		return m, nil, err
	}
	if _, err := readMandate(token, by); err != nil {
		return m, nil, err
	}
	m, err = p.mandate()
	return m, by, err
}

// check refuses an expectation that would expect too little.
func (want MandateExpectation) check() error {
	switch {
	case want.Skew < 0 || want.Skew > maxSkew:
		return fmt.Errorf("verify mandate: the expectation has a skew of %v", want.Skew)
	case len(want.Owner) != ed25519.PublicKeySize || len(want.Subject) != ed25519.PublicKeySize || len(want.Platform) != ed25519.PublicKeySize:
		return fmt.Errorf("verify mandate: the expectation has keys of %d, %d and %d bytes", len(want.Owner), len(want.Subject), len(want.Platform))
	case len(want.Actions) == 0 || want.Now.IsZero():
		return fmt.Errorf("verify mandate: the expectation has no action or no time")
	}
	return nil
}

// SignWithdrawal signs w with the owner's key that signed the mandate.
func SignWithdrawal(key ed25519.PrivateKey, w Withdrawal) (string, error) {
	issuer := DID(key.Public().(ed25519.PublicKey))
	p := withdrawalClaims{issuer, PartyURN(w.Audience), w.Mandate, w.Issued.Unix()}
	if _, err := p.withdrawal(); err != nil {
		return "", err
	}
	return issue(key, "withdrawal", headerOf(withdrawalType, issuer), p)
}

// VerifyWithdrawal takes a withdrawal only if the owner signed it for who asks.
// An old one holds as well as a new one.
func VerifyWithdrawal(token string, want WithdrawalExpectation) (w Withdrawal, err error) {
	if want.Skew < 0 || want.Skew > maxSkew || len(want.Owner) != ed25519.PublicKeySize || want.Now.IsZero() {
		return w, fmt.Errorf("verify withdrawal: the expectation has a skew of %v, an owner's key of %d bytes and the time %v", want.Skew, len(want.Owner), want.Now)
	}
	payload, err := openTyped("withdrawal", withdrawalType, want.Owner, token)
	if err != nil {
		return w, err
	}
	var p withdrawalClaims
	err = members("withdrawal", payload, map[string]any{"iss": &p.Issuer, "aud": &p.Audience, "jti": &p.ID, "iat": &p.Issued})
	if err != nil {
		return w, err
	}
	if err := inOneForm("withdrawal", payload, p); err != nil {
		return w, err
	}
	if w, err = p.withdrawal(); err != nil {
		return w, err
	}
	refuse := func(format string, args ...any) (Withdrawal, error) {
		return Withdrawal{}, carnet.Errorf(carnet.Unauthenticated, "the withdrawal "+format, args...)
	}
	switch {
	case p.Issuer != DID(want.Owner):
		return refuse("is by %.80q, and the avatar's owner is %q", p.Issuer, DID(want.Owner))
	case w.Audience != want.Audience:
		return refuse("is for %q, not for %q", w.Audience, want.Audience)
	case want.Now.Add(want.Skew).Before(w.Issued):
		return refuse("was signed in the future, at %v", w.Issued)
	}
	return w, nil
}

// Ends is when the mandate that w withdraws has ended by itself at the latest.
func (w Withdrawal) Ends() time.Time { return w.Issued.Add(MandateLife) }

// Marshal writes the request as the JSON document that ParseMandateRequest reads.
func (r MandateRequest) Marshal() ([]byte, error) {
	terms, err := r.MandateTerms.claims()
	if err != nil {
		return nil, err
	}
	if err := checkText(r.Text); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // people read it
	if err := e.Encode(requestClaims{terms, r.Text}); err != nil {
		return nil, fmt.Errorf("write mandate request: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// ParseMandateRequest reads a request strictly. Nobody signed it: what it says is
// what somebody wants.
func ParseMandateRequest(data []byte) (r MandateRequest, err error) {
	if len(data) > maxMandate {
		return r, carnet.Errorf(carnet.TooLarge, "the mandate request has %d bytes, at most %d are read", len(data), maxMandate)
	}
	var p requestClaims
	wanted := p.termsClaims.wanted()
	wanted.into["text"] = &p.Text
	if err := wanted.read("mandate request", data); err != nil {
		return r, err
	}
	if err := checkText(p.Text); err != nil {
		return r, err
	}
	r.Text = p.Text
	r.MandateTerms, err = p.termsClaims.terms()
	return r, err
}

// checkText keeps what would command a terminal, or hide or turn text, out of
// what the owner is shown before signing.
func checkText(s string) error {
	bad := func(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }
	if s == "" || len(s) > MaxRequestText || !utf8.ValidString(s) || strings.ContainsFunc(s, bad) {
		return carnet.Errorf(carnet.Malformed, "the mandate request's text is not one line of 1 to %d bytes that can all be shown", MaxRequestText)
	}
	return nil
}

func readMandate(token string, owner ed25519.PublicKey) (p mandateClaims, err error) {
	payload, err := openTyped("mandate", mandateType, owner, token)
	if err != nil {
		return p, err
	}
	return readMandateClaims(payload)
}

func readMandateClaims(payload []byte) (p mandateClaims, err error) {
	wanted := p.termsClaims.wanted()
	wanted.into["iss"], wanted.into["jti"] = &p.Issuer, &p.ID
	wanted.into["iat"], wanted.into["nbf"], wanted.into["exp"] = &p.Issued, &p.NotBefore, &p.Expires
	if err := wanted.read("mandate", payload); err != nil {
		return p, err
	}
	if err := p.check(); err != nil {
		return p, err
	}
	return p, inOneForm("mandate", payload, p)
}

// wantedTerms reads the members of termsClaims, and others beside them.
type wantedTerms struct {
	terms *termsClaims
	label json.RawMessage
	into  map[string]any
}

func (t *termsClaims) wanted() *wantedTerms {
	w := &wantedTerms{terms: t}
	w.into = map[string]any{
		"aud": &t.Audience, "sub": &t.Subject, "platform": &t.Platform, "avatar": &t.Avatar,
		"actions": &t.Actions, "purpose": &t.Purpose, "label": &w.label,
	}
	return w
}

func (w *wantedTerms) read(what string, data []byte) error {
	if err := members(what, data, w.into); err != nil {
		return err
	}
	l := &w.terms.Label
	return members(what+"'s label", w.label, map[string]any{"sensitivity": &l.Sensitivity, "purposes": &l.Purposes, "residency": &l.Residency})
}

// check refuses what no owner may say.
func (p mandateClaims) check() error {
	refuse := func(format string, args ...any) error {
		return carnet.Errorf(carnet.Malformed, "the mandate "+format, args...)
	}
	switch {
	case !isURN(p.ID):
		return refuse("has the id %.80q, want a urn:uuid", p.ID)
	case p.Issued < 0 || p.Expires > 1<<40 || p.NotBefore < p.Issued || p.Expires <= p.NotBefore || p.Expires-p.Issued > int64(MandateLife/time.Second):
		return refuse("was signed at %d and holds from %d to %d: want at most %v from the signature on", p.Issued, p.NotBefore, p.Expires, MandateLife)
	}
	return nil
}

func (p mandateClaims) mandate() (m Mandate, err error) {
	m.ID = p.ID
	m.Issued, m.NotBefore, m.Expires = time.Unix(p.Issued, 0).UTC(), time.Unix(p.NotBefore, 0).UTC(), time.Unix(p.Expires, 0).UTC()
	m.MandateTerms, err = p.termsClaims.terms()
	return m, err
}

func (p withdrawalClaims) withdrawal() (w Withdrawal, err error) {
	if w.Audience, err = parsePartyURN(p.Audience); err != nil {
		return w, err
	}
	if !isURN(p.ID) {
		return w, carnet.Errorf(carnet.Malformed, "the withdrawal has the id %.80q, want a urn:uuid", p.ID)
	}
	if p.Issued < 0 || p.Issued > 1<<40 {
		return w, carnet.Errorf(carnet.Malformed, "the withdrawal was signed at %d, which is no time", p.Issued)
	}
	w.Mandate, w.Issued = p.ID, time.Unix(p.Issued, 0).UTC()
	return w, nil
}

func (t MandateTerms) claims() (termsClaims, error) {
	if len(t.Subject) != ed25519.PublicKeySize || len(t.Platform) != ed25519.PublicKeySize {
		return termsClaims{}, carnet.Errorf(carnet.Malformed, "the mandate's avatar and platform have keys of %d and %d bytes, want %d", len(t.Subject), len(t.Platform), ed25519.PublicKeySize)
	}
	c := termsClaims{
		Audience: PartyURN(t.Audience), Subject: DID(t.Subject), Platform: DID(t.Platform),
		Avatar: t.Avatar, Actions: t.Actions, Purpose: t.Purpose,
		Label: labelClaims{t.Clearance.Sensitivity.String(), listed(t.Clearance.Purposes), listed(t.Clearance.Residency)},
	}
	_, err := c.terms()
	return c, err
}

// listed is never null in JSON.
func listed(s carnet.Set) []string { return append([]string{}, s.Words()...) }

// terms checks what is said and takes it only in the form that claims writes.
func (c termsClaims) terms() (t MandateTerms, err error) {
	refuse := func(format string, args ...any) (MandateTerms, error) {
		return MandateTerms{}, carnet.Errorf(carnet.Malformed, "the mandate "+format, args...)
	}
	if t.Audience, err = parsePartyURN(c.Audience); err != nil {
		return t, err
	}
	if t.Subject, err = ParseDID(c.Subject); err != nil {
		return t, err
	}
	if t.Platform, err = ParseDID(c.Platform); err != nil {
		return t, err
	}
	if t.Clearance, err = c.Label.clearance(); err != nil {
		return t, err
	}
	t.Avatar, t.Actions, t.Purpose = c.Avatar, c.Actions, c.Purpose
	switch {
	case c.Avatar == carnet.AvatarID{}:
		return refuse("names no avatar")
	case len(c.Actions) == 0 || !slices.IsSorted(c.Actions) || len(slices.Compact(slices.Clone(c.Actions))) != len(c.Actions):
		return refuse("permits %.80q: want actions in order, each once, at least one", c.Actions)
	case !Words([]string{c.Purpose}):
		return refuse("has the purpose %.80q: want one word of a-z, 0-9 and '-'", c.Purpose)
	}
	for _, a := range c.Actions {
		if !slices.Contains(actions, a) {
			return refuse("permits %.80q: want %s", a, joinActions(actions))
		}
	}
	return t, nil
}

func (l labelClaims) clearance() (c carnet.Clearance, err error) {
	refuse := func(format string, args ...any) (carnet.Clearance, error) {
		return carnet.Clearance{}, carnet.Errorf(carnet.Malformed, "the mandate's label "+format, args...)
	}
	if c.Sensitivity, err = carnet.ParseSensitivity(l.Sensitivity); err != nil {
		return c, err
	}
	c.Purposes, c.Residency = carnet.NewSet(l.Purposes...), carnet.NewSet(l.Residency...)
	switch {
	case c.Sensitivity.String() != l.Sensitivity:
		return refuse("has the sensitivity %.80q, which is written %q", l.Sensitivity, c.Sensitivity)
	case !Words(l.Purposes) || !Words(l.Residency):
		return refuse("has purposes or a residency that are not words of a-z, 0-9 and '-'")
	case !slices.Equal(c.Purposes.Words(), l.Purposes) || !slices.Equal(c.Residency.Words(), l.Residency):
		return refuse("has purposes or a residency that are not in order, each once")
	}
	return c, nil
}

// Equal reports whether two say the same.
func (t MandateTerms) Equal(o MandateTerms) bool {
	return t.Audience == o.Audience && t.Subject.Equal(o.Subject) && t.Platform.Equal(o.Platform) && t.Avatar == o.Avatar &&
		slices.Equal(t.Actions, o.Actions) && t.Purpose == o.Purpose && t.Clearance == o.Clearance
}

func joinActions(actions []Action) string {
	var names []string
	for _, a := range actions {
		names = append(names, string(a))
	}
	return strings.Join(names, ", ")
}

// Explain says for people what signing would permit.
func (t MandateTerms) Explain() []string {
	may := map[Action]string{
		ActionRead: "read its state and its history", ActionSubscribe: "follow it live", ActionMove: "take it to another world",
	}
	var does []string
	for _, a := range t.Actions {
		does = append(does, may[a])
	}
	c := t.Clearance
	most := "No data that is personal, about health or about places may flow"
	if c.Sensitivity != carnet.Public {
		most = "Of what is sensitive, this may flow and nothing else: " + strings.ReplaceAll(c.Sensitivity.String(), "+", ", ")
	}
	bound := func(what string, s carnet.Set) string {
		if s == "" {
			return "Data that is bound to " + what + "s may not flow"
		}
		return "Data that is bound to " + what + "s may flow if it may be used for all of these: " + strings.Join(s.Words(), ", ")
	}
	places := bound("place", c.Residency)
	if c.Residency != "" {
		places = "Data that is bound to places may flow if it may be kept in all of these: " + strings.Join(c.Residency.Words(), ", ")
	}
	return []string{
		fmt.Sprintf("About your avatar %s in %s: an avatar of another world may %s.", t.Avatar, t.Audience, strings.Join(does, ", and ")),
		fmt.Sprintf("That avatar is %s; it acts through the world whose key is %s.", DID(t.Subject), DID(t.Platform)),
		fmt.Sprintf("The purpose is %s.", t.Purpose),
		most + ".", bound("purpose", c.Purposes) + ".", places + ".",
	}
}
