package api

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	"carnet"
	"carnet/crossing"
	"carnet/crossing/r5"
	"carnet/depot"
	"carnet/identity"
	"carnet/shelf"

	"github.com/danielgtaylor/huma/v2"
)

// What other parties call is on listeners of its own, behind mutual TLS. It is
// served elsewhere (depot, crossing/r5, dpm, node) and described here, so that one
// document has all that a party answers. Tests hold the descriptions against what
// is mounted there, and against what it answers.

// describeOthers adds what is served on the party's other listeners to the document.
// Nothing of it is a route of this interface.
func (s *server) describeOthers(document *huma.OpenAPI) {
	b := between{document}
	if s.r2 != "" {
		b.describeR2(s.r2)
		b.describeRegister(s.r2)
	}
	if s.r5 != "" {
		b.describeR5(s.r5)
	}
	if s.r6 != "" {
		b.describeR6(s.r6)
	}
}

// between describes operations that parties call.
type between struct{ document *huma.OpenAPI }

// add adds an operation at a listener.
func (b between) add(at, description string, op huma.Operation) {
	if op.Responses["default"] == nil {
		op.Responses["default"] = &huma.Response{Description: "A refusal.", Content: map[string]*huma.MediaType{typeProblem: {Schema: b.schema(reflect.TypeFor[Problem](), "Problem")}}}
	}
	b.document.AddOperation(&op)
	b.document.Paths[op.Path].Servers = []*huma.Server{{URL: at, Description: description}}
}

func (b between) schema(t reflect.Type, hint string) *huma.Schema {
	return b.document.Components.Schemas.Schema(t, true, hint)
}

// scheme adds a way to prove who calls.
func (b between) scheme(name string, s huma.SecurityScheme) {
	b.document.Components.SecuritySchemes[name] = &s
}

// responses is one good answer.
func responses(status, description string, content map[string]*huma.MediaType) map[string]*huma.Response {
	return map[string]*huma.Response{status: {Description: description, Content: content}}
}

func bytesOf(description string) *huma.Schema {
	return &huma.Schema{Type: "string", Format: "binary", Description: description}
}

func pathParam(name, description, example string) *huma.Param {
	return &huma.Param{Name: name, In: "path", Required: true, Description: description, Schema: &huma.Schema{Type: "string"}, Example: example}
}

// The media types of R2 that nothing else has.
const (
	typeCBOR   = "application/cbor"
	typeObject = "application/octet-stream"
	typeNote   = "text/plain; charset=utf-8"
)

// exampleFingerprint is that of exampleObject.
const exampleObject = "sealed bytes"

func exampleFingerprint() string { return carnet.FingerprintOf([]byte(exampleObject)).String() }

// describeR2 describes what depot.Handler serves.
func (b between) describeR2(at string) {
	b.scheme("peer", huma.SecurityScheme{Type: "mutualTLS", Description: "The TLS key that this party shows the other, as their peering pins it."})
	fingerprint := pathParam("fingerprint", "SHA-256 of the object's bytes.", exampleFingerprint())
	retention := &huma.Param{
		Name: "Carnet-Retention", In: "header", Required: true, Description: "How long the object is kept.",
		Schema: &huma.Schema{Type: "string", Enum: []any{"hour", "day", "month", "year", "keep"}}, Example: "month",
	}
	add := func(id, method, path, summary string, parameters []*huma.Param, body *huma.RequestBody, answers map[string]*huma.Response) {
		b.add(at, "The depot's listener for its peers, behind mutual TLS.", huma.Operation{
			OperationID: id, Method: method, Path: path, Tags: []string{atR2}, Summary: summary,
			Parameters: parameters, RequestBody: body, Responses: answers, Security: []map[string][]string{{"peer": {}}},
		})
	}
	add("state-entries", http.MethodPost, "/r2/statements", "Puts entries into the ledger, and waits for their receipts: at most 20 s.", nil,
		&huma.RequestBody{Required: true, Description: "A CBOR array of entries, each 32 bytes: the hashes of statements with their salts (docs/design/ledger.md).", Content: map[string]*huma.MediaType{typeCBOR: {Schema: bytesOf("An array of byte strings.")}}},
		responses("200", "A CBOR array of receipts, in the order of the entries.", map[string]*huma.MediaType{typeCBOR: {Schema: bytesOf("An array of receipts (docs/design/ledger.md).")}}))
	add("put-object", http.MethodPut, "/r2/objects/{fingerprint}", "Stores sealed bytes under their fingerprint. They are durable when it is answered.", []*huma.Param{fingerprint, retention},
		&huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{typeObject: {Schema: bytesOf("The bytes."), Example: exampleObject}}},
		responses("204", "The object is stored.", nil))
	add("get-object", http.MethodGet, "/r2/objects/{fingerprint}", "An object that the caller has put.", []*huma.Param{fingerprint}, nil,
		responses("200", "Its bytes.", map[string]*huma.MediaType{typeObject: {Schema: bytesOf("The bytes."), Example: exampleObject}}))
	add("delete-object", http.MethodDelete, "/r2/objects/{fingerprint}", "Erases an object that the caller has put.", []*huma.Param{fingerprint}, nil,
		responses("204", "It is erased.", nil))
	add("erase-objects", http.MethodPost, "/r2/deletions", "Erases objects of the caller by an erasure, and signs that they are gone (docs/design/erasure.md).", nil,
		&huma.RequestBody{Required: true, Description: "The erasure, the hash of its order, and up to 16,384 fingerprints.", Content: map[string]*huma.MediaType{typeJSON: {
			Schema: b.schema(reflect.TypeFor[depot.Erasing](), "Erasing"), Example: depot.Erasing{Erasure: carnet.ErasureID{1}, Objects: []carnet.Fingerprint{}},
		}}},
		responses("200", "OK", map[string]*huma.MediaType{typeJSON: {Schema: b.schema(reflect.TypeFor[depot.ErasingAnswer](), "ErasingAnswer")}}))
	add("list-objects", http.MethodGet, "/r2/objects", "The caller's objects, by fingerprint.", []*huma.Param{
		{Name: "after", In: "query", Description: "Those after this fingerprint.", Schema: &huma.Schema{Type: "string"}, Example: strings.Repeat("0", 64)},
		{Name: "limit", In: "query", Description: "At most this many.", Schema: &huma.Schema{Type: "integer", Minimum: new(1.0)}, Example: 100},
	}, nil, responses("200", "OK", map[string]*huma.MediaType{typeJSON: {Schema: b.schema(reflect.TypeFor[[]depot.ObjectAnswer](), "Objects")}}))
	taker := pathParam("taker", "The did:key of the key that the taker shows its peers.", exampleTaker())
	of := &huma.Param{Name: "of", In: "query", Required: true, Description: "The did:key of the key that the giver shows its peers.", Schema: &huma.Schema{Type: "string"}, Example: exampleGiver()}
	shelved := map[string]*huma.MediaType{typeJSON: {Schema: b.schema(reflect.TypeFor[shelf.Signed](), "Shelf"), Example: plain(exampleShelf())}}
	add("put-shelf", http.MethodPut, "/r2/shelves/{taker}", "Lets a taker read objects of the caller's while the caller can't be reached: the next index, with its list. It is durable when it is answered.", []*huma.Param{taker},
		&huma.RequestBody{Required: true, Content: shelved}, responses("204", "It is kept in the place of the one before.", nil))
	add("get-own-shelf", http.MethodGet, "/r2/shelves/{taker}", "What the caller has put for a taker.", []*huma.Param{taker}, nil, responses("200", "OK", shelved))
	add("delete-shelf", http.MethodDelete, "/r2/shelves/{taker}", "Has the taker read nothing any more. The objects are the caller's to erase.", []*huma.Param{taker}, nil,
		responses("204", "It is gone.", nil))
	add("read-shelf", http.MethodGet, "/r2/shelves", "What a giver has for the caller, until the end that it names.", []*huma.Param{of}, nil, responses("200", "OK", shelved))
	add("read-shelved", http.MethodGet, "/r2/shelves/objects/{fingerprint}", "An object of a giver's that its shelf names for the caller.", []*huma.Param{fingerprint, of}, nil,
		responses("200", "Its bytes.", map[string]*huma.MediaType{typeObject: {Schema: bytesOf("The bytes."), Example: exampleObject}}))
	add("get-totals", http.MethodGet, "/r2/totals", "How much the caller has here, and how large the ledger is.", nil, nil,
		responses("200", "OK", map[string]*huma.MediaType{typeJSON: {Schema: b.schema(reflect.TypeFor[depot.TotalsAnswer](), "Totals")}}))
	add("get-checkpoint", http.MethodGet, "/r2/checkpoint", "The ledger's signed checkpoint (C2SP tlog-checkpoint).", nil, nil,
		responses("200", "OK", map[string]*huma.MediaType{typeNote: {Schema: &huma.Schema{Type: "string"}}}))
	add("get-tile", http.MethodGet, "/r2/ledger/{tile}", "The ledger as C2SP tlog-tiles: checkpoint, tile/LEVEL/INDEX, tile/entries/INDEX. The path has slashes.",
		[]*huma.Param{pathParam("tile", "A resource of C2SP tlog-tiles; it may have slashes.", "checkpoint")}, nil,
		responses("200", "OK", map[string]*huma.MediaType{typeNote: {Schema: &huma.Schema{Type: "string"}}, typeObject: {Schema: bytesOf("Hashes, or entries.")}}))
}

// The parties of the example of a shelf.
func exampleKey(of byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{of}, ed25519.SeedSize))
}
func exampleGiver() string { return shelf.Name(exampleKey(1).Public().(ed25519.PublicKey)) }
func exampleTaker() string { return shelf.Name(exampleKey(2).Public().(ed25519.PublicKey)) }

func exampleShelf() shelf.Signed {
	begun := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	signed, err := shelf.Sign(exampleKey(1), shelf.Index{
		Taker: exampleTaker(), Incarnation: 4, Serial: 1, First: 18, Time: begun.Unix(), Until: begun.AddDate(100, 0, 0).Unix(),
	}, []shelf.Object{{Fingerprint: carnet.FingerprintOf([]byte(exampleObject)), Last: 21}})
	if err != nil {
		panic(err) // it is the same each time
	}
	return signed
}

// exampleQuestion asks for the share whose id is in the path.
func exampleQuestion() crossing.Question {
	return crossing.Question{ID: exampleShare, Avatar: exampleAvatar, For: exampleOther, Purpose: "fitness"}
}

// The ids of the examples.
var (
	exampleAvatar = carnet.AvatarID{0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff}
	exampleOther  = carnet.AvatarID{0xff, 0xee, 0xdd, 0xcc, 0xbb, 0xaa, 0x99, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0}
	exampleShare  = carnet.ShareID{1, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff}
)

// describeR5 describes what a world serves to other worlds: crossing/r5 the
// exchange, node the rest.
func (b between) describeR5(at string) {
	b.scheme("platform", huma.SecurityScheme{Type: "mutualTLS", Description: "The calling world's TLS key, as the peering pins it."})
	b.scheme("dpop", huma.SecurityScheme{Type: "http", Scheme: "DPoP", Description: "An access token of this world's exchange, with a fresh proof of its key in the header DPoP (RFC 9449)."})
	proof := &huma.Param{Name: "DPoP", In: "header", Required: true, Description: "A proof for this method and URL (docs/design/r5.md).", Schema: &huma.Schema{Type: "string"}, Example: exampleToken}
	avatar := pathParam("id", "This world's avatar, which the access token is for.", exampleAvatar.String())
	share := pathParam("share", "The share's id, which the taker drew.", exampleShare.String())
	refused := &huma.Response{
		Description: "Whatever isn't proved is answered with the same bytes; the reason is in this world's activity only.",
		Headers:     map[string]*huma.Header{"WWW-Authenticate": {Description: "DPoP error=\"invalid_token\"", Schema: &huma.Schema{Type: "string"}}},
		Content:     map[string]*huma.MediaType{typeProblem: {Schema: b.schema(reflect.TypeFor[CallRefusal](), ""), Example: plain(json.RawMessage(r5.Outside))}},
	}
	add := func(op huma.Operation, scope identity.Action) {
		if op.Tags = []string{atR5}; op.OperationID != "tell-recovered" {
			op.Parameters = append(op.Parameters, proof)
		}
		op.Responses["401"] = refused
		if op.Security = []map[string][]string{{"platform": {}}}; scope != "" {
			op.Description = strings.TrimSpace("The token's scope is " + string(scope) + ". " + op.Description)
			op.Security = []map[string][]string{{"platform": {}, "dpop": {}}}
		}
		b.add(at, "The world's listener for other worlds, behind mutual TLS.", op)
	}
	add(huma.Operation{
		OperationID: "exchange-token", Method: http.MethodPost, Path: r5.TokenPath,
		Summary:     "Gives an access token for calls about one avatar (RFC 8693), for at most 5 minutes.",
		Description: "Exactly these parameters, each once. The subject token is the calling avatar's assertion, which carries its world's credential and the owner's mandate.",
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{r5.FormType: {Schema: formSchema(), Example: exampleForm()}}},
		Responses:   responses("200", "OK", map[string]*huma.MediaType{typeJSON: {Schema: b.schema(reflect.TypeFor[r5.TokenAnswer](), "Token"), Example: plain(r5.TokenAnswer{Token: exampleToken, Issued: r5.AccessType, Type: "DPoP", ExpiresIn: 300, Scope: identity.ActionRead})}}),
	}, "")
	add(huma.Operation{
		OperationID: "call-state", Method: http.MethodGet, Path: "/r5/avatars/{id}", Parameters: []*huma.Param{avatar},
		Summary: "The avatar's newest measurement of each property, as the grant shows it.", Responses: packResponses(),
	}, identity.ActionRead)
	add(huma.Operation{
		OperationID: "call-history", Method: http.MethodGet, Path: "/r5/avatars/{id}/history", Parameters: append([]*huma.Param{avatar}, queryOf(b.document, "get-history")...),
		Summary: "The avatar's history, as GET /v1/avatars/{id}/history has it.", Responses: limitedTo(packResponses()),
	}, identity.ActionRead)
	add(huma.Operation{
		OperationID: "call-live", Method: http.MethodGet, Path: "/r5/avatars/{id}/live", Parameters: append([]*huma.Param{avatar}, queryOf(b.document, "watch-avatar")...),
		Summary: "What comes, as GET /v1/avatars/{id}/live has it. It ends with the token.", Responses: limitedTo(liveResponses()),
	}, identity.ActionSubscribe)
	told := func(status, description string) map[string]*huma.Response {
		all := responses(status, description, nil)
		all["422"] = &huma.Response{Description: "Why it isn't given.", Content: map[string]*huma.MediaType{typeProblem: {Schema: b.schema(reflect.TypeFor[ForeignRefusal](), "ForeignRefusal"),
			Example: plain(ForeignRefusal{Code: carnet.Malformed, Detail: "the question isn't the one that its path and token name"})}}}
		return all
	}
	give := told("200", "What is given, and until when.")
	give["200"].Content = map[string]*huma.MediaType{typeJSON: {
		Schema:  b.schema(reflect.TypeFor[crossing.Answer](), "ShareAnswer"),
		Example: plain(crossing.Answer{View: exampleView(), Until: time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)}),
	}}
	add(huma.Operation{
		OperationID: "give-share", Method: http.MethodPut, Path: "/r5/avatars/{id}/shares/{share}", Parameters: []*huma.Param{avatar, share},
		Summary:     "Asks for what the avatar is to share, by the grant and the mandate that the token is for. The same question may come again.",
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{typeJSON: {Schema: b.schema(reflect.TypeFor[crossing.Question](), "ShareQuestion"), Example: plain(exampleQuestion())}}},
		Responses:   give,
	}, identity.ActionSubscribe)
	add(huma.Operation{
		OperationID: "end-share", Method: http.MethodDelete, Path: "/r5/avatars/{id}/shares/{share}", Parameters: []*huma.Param{avatar, share},
		Summary: "Says that the taker wants a share no more.", Responses: told("204", "It has ended."),
	}, identity.ActionSubscribe)
	b.describeMoves(add, told)
}

// CallPatterns lists what is described of R5, by net/http's patterns.
func CallPatterns() (all []string) {
	b := between{(&server{}).document().OpenAPI}
	b.describeR5("https://example")
	for path, item := range b.document.Paths {
		for method := range operationsOf(item) {
			all = append(all, method+" "+path)
		}
	}
	slices.Sort(all)
	return all
}

// queryOf are an operation's parameters in the query.
func queryOf(document *huma.OpenAPI, id string) (found []*huma.Param) {
	for _, item := range document.Paths {
		for _, op := range operationsOf(item) {
			for _, p := range op.Parameters {
				if op.OperationID == id && p.In == "query" {
					found = append(found, p)
				}
			}
		}
	}
	return found
}

// CallRefusal is what a world says to another whatever isn't proved.
type CallRefusal struct {
	Title  string      `json:"title"`
	Status int         `json:"status"`
	Detail string      `json:"detail"`
	Code   carnet.Code `json:"code"`
	Error  string      `json:"error,omitempty" doc:"As RFC 9449 has it."`
}

// ForeignRefusal is what a proven caller hears of why it isn't served.
type ForeignRefusal struct {
	Code   carnet.Code `json:"code"`
	Detail string      `json:"detail"`
	Fix    string      `json:"fix,omitempty"`
}

// formSchema is the form of a question for a token (docs/design/r5.md).
func formSchema() *huma.Schema {
	fixed := func(v string) *huma.Schema { return &huma.Schema{Type: "string", Enum: []any{v}} }
	text := func(description string) *huma.Schema { return &huma.Schema{Type: "string", Description: description} }
	s := &huma.Schema{Type: "object", AdditionalProperties: false, Properties: map[string]*huma.Schema{
		"grant_type": fixed(r5.ExchangeGrant), "subject_token_type": fixed(r5.JWTType), "requested_token_type": fixed(r5.AccessType),
		"client_id":     text("The calling world, as it calls itself to this one."),
		"subject_token": text("The calling avatar's assertion: a compact JWS with the type carnet-assertion+jwt."),
		"resource":      text("This world's avatar."),
		"scope":         {Type: "string", Enum: []any{identity.ActionRead, identity.ActionSubscribe, identity.ActionMove}},
	}}
	for name := range s.Properties {
		s.Required = append(s.Required, name)
	}
	return s
}

func exampleForm() map[string]any {
	return map[string]any{
		"grant_type": r5.ExchangeGrant, "subject_token_type": r5.JWTType, "requested_token_type": r5.AccessType,
		"client_id": identity.PartyURN("citadel"), "subject_token": exampleToken, "resource": identity.AvatarURN(exampleAvatar), "scope": identity.ActionRead,
	}
}
