package policy

import (
	"crypto/sha256"
	_ "embed"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	"carnet"

	"github.com/cedar-policy/cedar-go"
)

//go:embed roles.cedar
var rolesPolicy string

// RolesPolicy is the Cedar text that an Authorizer has when nothing replaces it.
func RolesPolicy() string { return rolesPolicy }

// Role is what a token of the configuration makes of its bearer.
type Role string

// The roles.
const (
	User          Role = "user"
	Creator       Role = "creator"
	Administrator Role = "administrator"
	Auditor       Role = "auditor"
	Service       Role = "service"
)

// Roles lists the roles.
func Roles() []Role { return []Role{User, Creator, Administrator, Auditor, Service} }

// ParseRole reads a role's name.
func ParseRole(s string) (Role, error) {
	if slices.Contains(Roles(), Role(s)) {
		return Role(s), nil
	}
	e := carnet.Errorf(carnet.Malformed, "the role %q is unknown: want user, creator, administrator, auditor or service", s)
	for _, old := range [][2]string{{"operator", "administrator"}, {"owner", "user"}, {"reader", "service"}} {
		if s == old[0] {
			return "", e.WithFix("write %s, which is what %s is called now", old[1], old[0])
		}
	}
	return "", e
}

// PrincipalKind is what somebody is; in Cedar it is the type of the principal.
type PrincipalKind string

// The kinds of principals.
const (
	Person      PrincipalKind = "Person"
	Program     PrincipalKind = "Service"     // of the operator's own, with the role service
	Application PrincipalKind = "Application" // an outside program with grants
	AvatarSelf  PrincipalKind = "Avatar"      // who acts as an avatar of this world
	Device      PrincipalKind = "Thing"
	Foreign     PrincipalKind = "Foreign" // an avatar of another world, with its platform
	Neighbour   PrincipalKind = "Peer"    // a party, by its peering with this one
	Nobody      PrincipalKind = "Nobody"
)

var principalKinds = []PrincipalKind{Person, Program, Application, AvatarSelf, Device, Foreign, Neighbour, Nobody}

// Principal is who asks. The zero Principal is nobody.
type Principal struct {
	Kind PrincipalKind `json:"kind" doc:"What somebody is." enum:"Person,Service,Application,Avatar,Thing,Foreign,Peer,Nobody" example:"Person"`
	Name string        `json:"name" doc:"The name of its token; of what has none, its id." example:"alice" maxLength:"200"`
	Role Role          `json:"role,omitempty" doc:"The role, of a person or a service." enum:"user,creator,administrator,auditor,service" example:"user"`
}

// Bearer is the principal that a token of the configuration stands for.
func Bearer(name string, role Role) Principal {
	if role == Service {
		return Principal{Program, name, role}
	}
	return Principal{Person, name, role}
}

// Valid finds fault with a principal that nobody can be: a role is a person's or, that
// of a service, a service's.
func (p Principal) Valid() error {
	switch {
	case !slices.Contains(principalKinds, p.Kind):
		return carnet.Errorf(carnet.Malformed, "there is no kind %.40q of principals", p.Kind)
	case p.Kind == Person && p.Role == Service:
		return carnet.Errorf(carnet.Malformed, "no person has the role service").WithFix("ask about the kind Service")
	case p.Kind == Person:
		_, err := ParseRole(string(p.Role))
		return err
	case p.Kind == Program && p.Role != Service:
		return carnet.Errorf(carnet.Malformed, "a service has the role service, not %.40q", p.Role)
	case p.Kind != Program && p.Role != "":
		return carnet.Errorf(carnet.Malformed, "only people and services have a role").WithFix("leave it out")
	}
	return nil
}

func (p Principal) String() string {
	switch {
	case p.Kind == "" || p.Kind == Nobody:
		return "who has no token"
	case p.Role != "":
		return fmt.Sprintf("%s (%s)", p.Name, p.Role)
	}
	return strings.ToLower(string(p.Kind)) + " " + p.Name
}

// ResourceKind is what something is; in Cedar it is the type of the resource.
type ResourceKind string

// The kinds of resources.
const (
	PartyResource     ResourceKind = "Party"
	ThingResource     ResourceKind = "Thing"
	MappingResource   ResourceKind = "Mapping"
	OwnerResource     ResourceKind = "Owner"
	AvatarResource    ResourceKind = "Avatar"
	GrantResource     ResourceKind = "Grant"
	PrincipalResource ResourceKind = "Principal"
	TopicResource     ResourceKind = "Topic"
	PeerResource      ResourceKind = "Peer"
	MandateResource   ResourceKind = "Mandate"
	ShareResource     ResourceKind = "Share"
	CrossingResource  ResourceKind = "Crossing"
	ItemResource      ResourceKind = "Item"
	ErasureResource   ResourceKind = "Erasure"
	JobResource       ResourceKind = "Job"
	ModuleResource    ResourceKind = "Module"
	ObjectResource    ResourceKind = "Object"
	ShelfResource     ResourceKind = "Shelf"
	HomeResource      ResourceKind = "Home"
)

var resourceKinds = []ResourceKind{PartyResource, ThingResource, MappingResource, OwnerResource, AvatarResource, GrantResource,
	PrincipalResource, TopicResource, PeerResource, MandateResource, ShareResource, CrossingResource, ItemResource, ErasureResource, JobResource, ModuleResource,
	ObjectResource, ShelfResource, HomeResource}

// Any is the id of the resource of a list, and of what is only being made.
const Any = "*"

// Resource is what an action is about.
type Resource struct {
	Kind ResourceKind `json:"kind" doc:"What it is." enum:"Party,Thing,Mapping,Owner,Avatar,Grant,Principal,Topic,Peer,Mandate,Share,Crossing,Item,Erasure,Job,Module,Object,Shelf,Home" example:"Thing"`
	ID   string       `json:"id" doc:"Its id; * for a list." example:"watch-7" maxLength:"256"`
}

func (r Resource) String() string {
	if r.ID == Any {
		return "of any " + strings.ToLower(string(r.Kind))
	}
	return "of " + strings.ToLower(string(r.Kind)) + " " + r.ID
}

// Facts are what is known of principal and resource together.
type Facts struct {
	Own     bool   `json:"own" doc:"The resource is the principal's own."`
	Granted bool   `json:"granted" doc:"A grant that holds now gives it this action."`
	Onward  bool   `json:"onward" doc:"That grant lets it pass on what it reads."`
	Purpose string `json:"purpose,omitempty" doc:"What it uses data for." example:"coaching"`
}

// Question is what the authorizer is asked. Questions compare with ==.
type Question struct {
	Principal Principal
	Action    Action
	Resource  Resource
	Facts     Facts
}

// Authorizer answers questions by Cedar policies, and keeps the answers: a
// repeated question costs neither an allocation nor a lock. It is safe for
// concurrent use, and its policies don't change.
type Authorizer struct {
	policies *cedar.PolicySet
	version  string
	seed     maphash.Seed
	kept     []atomic.Pointer[kept]
}

// kept is an answered question.
type kept struct {
	question Question
	decision Decision
}

// keptAnswers bounds what is kept: a newer answer takes the place of one whose
// question has the same place.
const keptAnswers = 1 << 14

// NewAuthorizer reads Cedar text by file name; with replace nothing else counts,
// without it the files stand beside the built-in roles.cedar. A policy that
// names a role, a group or an action that isn't there refuses: it would never
// decide anything.
func NewAuthorizer(files map[string][]byte, replace bool) (*Authorizer, error) {
	all := maps.Clone(files)
	if all == nil {
		all = make(map[string][]byte)
	}
	switch _, taken := all["roles.cedar"]; {
	case replace && len(files) == 0:
		return nil, carnet.Errorf(carnet.Malformed, "the built-in roles are replaced, and no policies are named: nobody could do anything").
			WithFix("name files in policies, or leave out replace")
	case !replace && taken:
		return nil, carnet.Errorf(carnet.Malformed, "a policy file is called roles.cedar, as the built-in one is").WithFix("give it another name, or set replace")
	case !replace:
		all["roles.cedar"] = []byte(rolesPolicy)
	}
	policies, err := readPolicies(all)
	if err != nil {
		return nil, err
	}
	for id, p := range policies.All() {
		if err := checkNames(id, p); err != nil {
			return nil, err
		}
	}
	return &Authorizer{policies: policies, version: versionOf(all), seed: maphash.MakeSeed(), kept: make([]atomic.Pointer[kept], keptAnswers)}, nil
}

// versionOf names what policies there are.
func versionOf(files map[string][]byte) string {
	h := sha256.New()
	var n [8]byte
	for _, name := range slices.Sorted(maps.Keys(files)) {
		for _, part := range [][]byte{[]byte(name), files[name]} {
			binary.BigEndian.PutUint64(n[:], uint64(len(part)))
			h.Write(n[:])
			h.Write(part)
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// Version names the policies: equal names are equal texts.
func (a *Authorizer) Version() string { return a.version }

// Decide answers a question: from what is kept, else by asking Cedar.
func (a *Authorizer) Decide(q Question) Decision {
	at := &a.kept[a.place(&q)%keptAnswers]
	if k := at.Load(); k != nil && k.question == q {
		return k.decision
	}
	k := &kept{q, a.ask(q)}
	at.Store(k)
	return k.decision
}

func (a *Authorizer) place(q *Question) uint64 {
	const prime = 0x9E3779B97F4A7C15
	h := maphash.String(a.seed, q.Principal.Name)
	h = h*prime ^ maphash.String(a.seed, string(q.Action))
	h = h*prime ^ maphash.String(a.seed, q.Resource.ID)
	if q.Facts.Own {
		h += 1 << 17
	}
	if q.Facts.Granted {
		h += 1 << 23
	}
	return h ^ h>>32
}

// ask asks Cedar. What the tables don't have is denied before.
func (a *Authorizer) ask(q Question) Decision {
	if q.Principal.Kind == "" {
		q.Principal = Principal{Kind: Nobody}
	}
	what := fmt.Sprintf("%s may not %s %s", q.Principal, q.Action, q.Resource)
	use, ok := actions[q.Action]
	switch {
	case !ok:
		return Decision{false, "", what + ": there is no such action"}
	case !slices.Contains(principalKinds, q.Principal.Kind):
		return Decision{false, "", what + ": there is no such kind of principal"}
	case q.Principal.Role != "" && !slices.Contains(Roles(), q.Principal.Role):
		return Decision{false, "", what + ": there is no such role"}
	case (q.Principal.Kind == Program) != (q.Principal.Role == Service), q.Principal.Role != "" && q.Principal.Kind != Person && q.Principal.Kind != Program:
		return Decision{false, "", what + ": the role isn't one of that kind of principal"}
	case q.Resource.Kind != use.Resource:
		return Decision{false, "", what + ": the action is about something else"}
	}
	return decisionOf(a.policies, actEntities(q, use), cedar.Request{
		Principal: uid(string(q.Principal.Kind), q.Principal.Name),
		Action:    uid("Action", string(q.Action)),
		Resource:  uid(string(q.Resource.Kind), q.Resource.ID),
		Context: cedar.NewRecord(cedar.RecordMap{
			"own": cedar.Boolean(q.Facts.Own), "granted": cedar.Boolean(q.Facts.Granted), "onward": cedar.Boolean(q.Facts.Onward),
			"purpose": cedar.String(q.Facts.Purpose),
		}),
	}, what, fmt.Sprintf("%s may %s %s", q.Principal, q.Action, q.Resource))
}

func uid(kind, id string) cedar.EntityUID {
	return cedar.NewEntityUID(cedar.EntityType(kind), cedar.String(id))
}

func actEntities(q Question, use Use) cedar.EntityMap {
	principal, action, resource := uid(string(q.Principal.Kind), q.Principal.Name), uid("Action", string(q.Action)), uid(string(q.Resource.Kind), q.Resource.ID)
	var roles []cedar.EntityUID
	if q.Principal.Role != "" {
		roles = append(roles, uid("Role", string(q.Principal.Role)))
	}
	all := cedar.EntityMap{
		action: {UID: action, Parents: cedar.NewEntityUIDSet(uid("Action", string(use.Group)))},
	}
	// An avatar's principal and its resource are one entity.
	all[resource] = cedar.Entity{UID: resource, Attributes: cedar.NewRecord(cedar.RecordMap{"id": cedar.String(q.Resource.ID)})}
	attributes := cedar.RecordMap{"name": cedar.String(q.Principal.Name)}
	if principal == resource {
		attributes["id"] = cedar.String(q.Resource.ID)
	}
	all[principal] = cedar.Entity{UID: principal, Parents: cedar.NewEntityUIDSet(roles...), Attributes: cedar.NewRecord(attributes)}
	return all
}

// checkNames refuses a policy about what can't be.
func checkNames(id cedar.PolicyID, p *cedar.Policy) error {
	text, err := p.MarshalJSON()
	if err != nil {
		return fmt.Errorf("read policy %s: %w", id, err)
	}
	var wrong error
	err = eachEntity(text, func(kind, name string) {
		known := true
		switch kind {
		case "Role":
			known = slices.Contains(Roles(), Role(name))
		case "Action":
			_, known = actions[Action(name)]
			known = known || slices.Contains(groups, Group(name))
		default:
			known = slices.Contains(principalKinds, PrincipalKind(kind)) || slices.Contains(resourceKinds, ResourceKind(kind))
		}
		if !known && wrong == nil {
			at := p.Position()
			wrong = carnet.Errorf(carnet.Malformed, "policy %s (%s:%d) names %s, which isn't there: it would never decide anything", id, at.Filename, at.Line, entityText(kind, name)).
				WithFix("docs/design/access.md lists roles, groups and kinds")
		}
	})
	return errors.Join(wrong, err)
}

func entityText(kind, name string) string {
	if name == "" {
		return kind
	}
	return fmt.Sprintf("%s::%q", kind, name)
}

// eachEntity calls do for every entity and type that a policy names, in Cedar's
// JSON form; of a type alone the name is empty.
func eachEntity(text []byte, do func(kind, name string)) error {
	var whole any
	if err := json.Unmarshal(text, &whole); err != nil {
		return err
	}
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			kind, isKind := v["type"].(string)
			name, isName := v["id"].(string)
			if isKind && isName {
				do(kind, name)
				return
			}
			if kind, ok := v["entity_type"].(string); ok {
				do(kind, "")
			}
			for key, e := range v {
				if key != "annotations" {
					walk(e)
				}
			}
		}
	}
	walk(whole)
	return nil
}
