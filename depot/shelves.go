package depot

import (
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"carnet"
	"carnet/shelf"
)

// Party is who calls for a shelf, or is named by one.
type Party struct {
	Name carnet.PartyID
	DID  string // of the key that it shows its peers
}

// Parties knows the depot's peers.
type Parties interface {
	// Caller names who sent a request, as mutual TLS proved it.
	Caller(*http.Request) (Party, error)
	// Named finds the peer that shows a key; carnet.NotFound if there is none now.
	Named(did string) (carnet.PartyID, error)
}

// kindShelf is the kind of a shelf's document: its id names giver and taker, by
// their keys.
const kindShelf = "shelf"

func shelfID(giver, taker string) string { return giver + " " + taker }

// shelfOf returns a shelf as it was put; carnet.NotFound without one.
func (a *Agent) shelfOf(ctx context.Context, giver, taker string) (s shelf.Signed, version uint64, err error) {
	doc, err := a.cfg.Store.Document(ctx, kindShelf, shelfID(giver, taker))
	if carnet.CodeOf(err) == carnet.NotFound {
		return s, 0, carnet.Errorf(carnet.NotFound, "there is no such shelf")
	}
	if err != nil {
		return s, 0, err
	}
	return s, doc.Version, json.Unmarshal(doc.Body, &s)
}

// PutShelf keeps a giver's shelf for a taker in the place of the one before. It is
// durable on return.
func (a *Agent) PutShelf(ctx context.Context, giver Party, taker string, s shelf.Signed) error {
	next, err := s.Open(giver.DID, taker)
	if err != nil {
		return err
	}
	if now := time.Now().Unix(); next.Until <= now {
		return carnet.Errorf(carnet.Malformed, "the shelf is over at %d, and it is %d", next.Until, now)
	}
	a.shelving.Lock()
	defer a.shelving.Unlock()
	had, version, err := a.shelfOf(ctx, giver.DID, taker)
	known := make(map[carnet.Fingerprint]bool)
	if err == nil {
		before, err := had.Open(giver.DID, taker)
		if err != nil {
			return err
		}
		if err := next.Follows(&before); err != nil || before == next {
			return err
		}
		for _, o := range had.Objects {
			known[o.Fingerprint] = true
		}
	} else if carnet.CodeOf(err) != carnet.NotFound {
		return err
	}
	for _, o := range s.Objects {
		if known[o.Fingerprint] {
			continue
		}
		if _, err := a.cfg.Store.Object(ctx, giver.Name, o.Fingerprint); carnet.CodeOf(err) == carnet.NotFound {
			return notFound(o.Fingerprint)
		} else if err != nil {
			return err
		}
	}
	body, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return a.cfg.Store.Put(ctx, []carnet.Document{{Kind: kindShelf, ID: shelfID(giver.DID, taker), Version: version + 1, Body: body}}, nil)
}

// DeleteShelf has nobody read a shelf any more; its objects are the giver's to
// delete. It is durable on return.
func (a *Agent) DeleteShelf(ctx context.Context, giver Party, taker string) error {
	a.shelving.Lock()
	defer a.shelving.Unlock()
	_, version, err := a.shelfOf(ctx, giver.DID, taker)
	if err != nil {
		return err
	}
	return a.cfg.Store.Put(ctx, []carnet.Document{{Kind: kindShelf, ID: shelfID(giver.DID, taker), Version: version + 1}}, nil)
}

// Shelf returns what a giver has for a taker; carnet.NotFound if nothing, or if its
// time has passed.
func (a *Agent) Shelf(ctx context.Context, giver, taker string) (shelf.Signed, error) {
	s, _, err := a.shelfOf(ctx, giver, taker)
	if err != nil {
		return s, err
	}
	index, err := s.Open(giver, taker)
	if err != nil {
		return s, err
	}
	if time.Now().Unix() >= index.Until {
		return shelf.Signed{}, carnet.Errorf(carnet.NotFound, "there is no such shelf")
	}
	return s, nil
}

// Shelved opens an object that a shelf names for a taker; carnet.NotFound for every
// other.
func (a *Agent) Shelved(ctx context.Context, giver Party, taker string, f carnet.Fingerprint) (io.ReadCloser, Object, error) {
	s, err := a.Shelf(ctx, giver.DID, taker)
	if err != nil {
		return nil, Object{}, err
	}
	if !slices.ContainsFunc(s.Objects, func(o shelf.Object) bool { return o.Fingerprint == f }) {
		return nil, Object{}, notFound(f)
	}
	return a.Get(ctx, giver.Name, f)
}

// shelves is the part of R2 that shelves have.
type shelves struct {
	server
	parties Parties
}

// ShelfHandler serves the shelves of R2:
//
//	PUT    /r2/shelves/{taker}                        the caller's for a taker: JSON shelf.Signed → 204
//	GET    /r2/shelves/{taker}                        → JSON shelf.Signed
//	DELETE /r2/shelves/{taker}                        → 204
//	GET    /r2/shelves?of={giver}                     a giver's for the caller → JSON shelf.Signed
//	GET    /r2/shelves/objects/{fingerprint}?of=…     → body
//
// Takers and givers are named by the did:key that they show their peers.
func (a *Agent) ShelfHandler(parties Parties) http.Handler {
	s := &shelves{server{agent: a}, parties}
	mux := http.NewServeMux()
	for pattern, h := range s.routes() {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			who, err := parties.Caller(r)
			if err == nil {
				err = h(w, r, who)
			}
			if err != nil {
				s.refuse(w, r, who.Name, err)
			}
		})
	}
	return mux
}

func (s *shelves) routes() map[string]func(http.ResponseWriter, *http.Request, Party) error {
	return map[string]func(http.ResponseWriter, *http.Request, Party) error{
		"PUT /r2/shelves/{taker}":               s.put,
		"GET /r2/shelves/{taker}":               s.own,
		"DELETE /r2/shelves/{taker}":            s.remove,
		"GET /r2/shelves":                       s.read,
		"GET /r2/shelves/objects/{fingerprint}": s.object,
	}
}

// ShelfPatterns lists what ShelfHandler serves, by net/http's patterns.
func ShelfPatterns() []string { return slices.Sorted(maps.Keys((&shelves{}).routes())) }

func (s *shelves) put(w http.ResponseWriter, r *http.Request, who Party) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, shelf.MaxSigned))
	if err != nil {
		return readFailure(err)
	}
	var signed shelf.Signed
	if err := json.Unmarshal(body, &signed); err != nil {
		return carnet.Errorf(carnet.Malformed, "the shelf can't be read: %v", err)
	}
	if err := s.agent.PutShelf(r.Context(), who, r.PathValue("taker"), signed); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *shelves) own(w http.ResponseWriter, r *http.Request, who Party) error {
	signed, _, err := s.agent.shelfOf(r.Context(), who.DID, r.PathValue("taker"))
	if err != nil {
		return err
	}
	return answerJSON(w, signed)
}

func (s *shelves) remove(w http.ResponseWriter, r *http.Request, who Party) error {
	if err := s.agent.DeleteShelf(r.Context(), who, r.PathValue("taker")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// giver is whose shelf is asked for. One that isn't a peer any more has none.
func (s *shelves) giver(r *http.Request) (Party, error) {
	did := r.FormValue("of")
	name, err := s.parties.Named(did)
	if carnet.CodeOf(err) == carnet.NotFound {
		err = carnet.Errorf(carnet.NotFound, "there is no such shelf")
	}
	return Party{name, did}, err
}

func (s *shelves) read(w http.ResponseWriter, r *http.Request, who Party) error {
	giver, err := s.giver(r)
	if err != nil {
		return err
	}
	signed, err := s.agent.Shelf(r.Context(), giver.DID, who.DID)
	if err != nil {
		return err
	}
	return answerJSON(w, signed)
}

func (s *shelves) object(w http.ResponseWriter, r *http.Request, who Party) error {
	f, err := fingerprint(r)
	if err != nil {
		return err
	}
	giver, err := s.giver(r)
	if err != nil {
		return err
	}
	body, o, err := s.agent.Shelved(r.Context(), giver, who.DID, f)
	if err != nil {
		return err
	}
	defer body.Close()
	w.Header().Set("Content-Type", typeObject)
	w.Header().Set("Content-Length", strconv.FormatInt(o.Size, 10))
	// Too late for another answer: the caller sees a body that is too short.
	_, _ = io.Copy(w, body)
	return nil
}
