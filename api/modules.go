package api

import (
	"context"
	"net/http"
	"time"

	"carnet"
	"carnet/capsule"
	"carnet/job"

	"github.com/danielgtaylor/huma/v2"
)

const modulesPath = "/v1/modules"

// exampleModule is a module that takes what it is given, and puts nothing out.
const exampleModule = "\x00asm\x01\x00\x00\x00" +
	"\x01\x10\x03`\x00\x01\x7f`\x01\x7f\x01\x7f`\x02\x7f\x7f\x01\x7f" + // types: () → i32, (i32) → i32, (i32, i32) → i32
	"\x03\x06\x05\x00\x01\x02\x02\x00" + // five functions
	"\x05\x03\x01\x00\x01" + // a page of memory
	"\x07W\x06\x10carnet_interface\x00\x00\x0ccarnet_alloc\x00\x01\x0bcarnet_open\x00\x02\x0bcarnet_take\x00\x03\x0ccarnet_close\x00\x04\x06memory\x02\x00" +
	"\n\x1b\x05\x04\x00A\x01\x0b\x05\x00A\x80\x08\x0b\x04\x00A\x00\x0b\x04\x00A\x00\x0b\x04\x00A\x00\x0b" // which answer 1, 1024, and thrice 0

// modules is what the handler needs of a world's modules: a *job.Agent.
type modules interface {
	Modules() []job.Module
	Module(id string) (job.Module, error)
	AddModule(context.Context, job.NewModule) (job.Module, error)
	RevokeModule(ctx context.Context, id, why, message string) (job.Module, error)
}

// OfModule is the input of what concerns one version of a module.
type OfModule struct {
	ID string `path:"id" doc:"The module, NAME@VERSION." maxLength:"140" example:"heartzones@1.0.0"`
}

func (s *server) moduleRoutes(h huma.API) {
	tags := []string{atR6}
	serving(s, h, huma.Operation{
		OperationID: "list-modules", Method: http.MethodGet, Path: modulesPath, Tags: tags,
		Summary: "The versions of modules that this party knows, also those that are revoked.",
	}, func(ctx context.Context, _ *struct{}) (*body[ModuleList], error) {
		if s.things != nil { // at a things agent they are for all of its owners
			return answer(ModuleList{showEach(s.jobs.Modules(), showModule)}, nil)
		}
		return answer(ModuleList{showEach(worlds(ctx, s.jobs.Modules), showModule)}, nil)
	})
	serving(s, h, huma.Operation{
		OperationID: "add-module", Method: http.MethodPost, Path: modulesPath, Tags: tags, DefaultStatus: http.StatusCreated,
		Summary: "Adds a version of a module: signed by this world, or by another publisher that its operator has named.",
		Description: "When this answers, the bytes are at the depot, and the signed record is stored here. A version is added once. " +
			"The body has at most 24 MiB.",
		RequestBody: example(NewModule{Name: "heartzones", Version: "1.0.0", Program: []byte(exampleModule), Reads: []string{"heart_rate"}}),
	}, func(ctx context.Context, in *struct{ Body NewModule }) (*body[Module], error) {
		n := in.Body
		if n.Record != "" && (n.Name != "" || n.Version != "" || n.Engine != "" || len(n.Reads) > 0) {
			return nil, carnet.Errorf(carnet.Malformed, "a record is given, and beside it what stands in it").WithFix("give the record and the program alone")
		}
		if n.Record == "" && n.Engine == "" {
			n.Engine = "wasm"
		}
		return shownModule(s.jobs.AddModule(ctx, job.NewModule(n)))
	})
	serving(s, h, huma.Operation{
		OperationID: "get-module", Method: http.MethodGet, Path: modulesPath + "/{id}", Tags: tags,
		Summary: "One version of a module, with its signed record and its revocations.",
	}, func(_ context.Context, in *OfModule) (*body[Module], error) {
		return shownModule(s.jobs.Module(in.ID))
	})
	serving(s, h, huma.Operation{
		OperationID: "revoke-module", Method: http.MethodPost, Path: modulesPath + "/{id}/revocations", Tags: tags, DefaultStatus: http.StatusOK,
		Summary: "Revokes a version of a module, for good: it runs nowhere any more for this world; by its publisher's word for nobody.",
		Description: "Jobs of it that are under way end as refused. Its DPMs are told until they know. This world signs the revocation, unless one by the " +
			"module's publisher is given.",
		RequestBody: example(NewRevocation{Why: "it counts seconds twice"}),
	}, func(ctx context.Context, in *struct {
		OfModule
		Body NewRevocation
	}) (*body[Module], error) {
		if (in.Body.Why == "") == (in.Body.Revocation == "") {
			return nil, carnet.Errorf(carnet.Malformed, "a revocation has why, or is one that the publisher signed").WithFix("give one of why and revocation")
		}
		return shownModule(s.jobs.RevokeModule(ctx, in.ID, in.Body.Why, in.Body.Revocation))
	})
}

// NewModule is a version of a module that is to be added.
type NewModule struct {
	Program []byte   `json:"program" doc:"The module, in base64." maxLength:"23000000"`
	Record  string   `json:"record,omitempty" doc:"What its publisher signed of it, a compact JWS; left out: this world signs what follows." maxLength:"32768"`
	Name    string   `json:"name,omitempty" doc:"One word." maxLength:"64" example:"heartzones"`
	Version string   `json:"version,omitempty" maxLength:"64" example:"1.0.0"`
	Engine  string   `json:"engine,omitempty" doc:"What runs it; default wasm." maxLength:"32" example:"wasm"`
	Reads   []string `json:"reads,omitempty" doc:"The properties that a job of it is given which names none; left out: all." maxItems:"64"`
}

// NewRevocation is a word that a module is to run no more.
type NewRevocation struct {
	Why        string `json:"why,omitempty" doc:"One line." maxLength:"200"`
	Revocation string `json:"revocation,omitempty" doc:"What the publisher signed, a compact JWS." maxLength:"32768"`
}

// Module is a version of a module.
type Module struct {
	ID          string             `json:"id" doc:"NAME@VERSION." example:"heartzones@1.0.0"`
	Engine      string             `json:"engine" example:"wasm"`
	Interface   int                `json:"interface" doc:"Of modules and engine, for which it is written." example:"1"`
	Program     capsule.Content    `json:"program" doc:"Its bytes, which are at the depot under their fingerprint."`
	Reads       []string           `json:"reads,omitempty" doc:"The properties that a job of it is given which names none."`
	By          string             `json:"by" doc:"The did:key of its publisher, who signed the record."`
	Made        time.Time          `json:"made" doc:"When it was signed."`
	Added       time.Time          `json:"added" doc:"When this world had it."`
	Fingerprint carnet.Fingerprint `json:"fingerprint" doc:"Of the record: orders name it."`
	Record      string             `json:"record" doc:"What the publisher signed, a compact JWS."`
	Revoked     *Revoked           `json:"revoked,omitempty" doc:"Left out: it may run."`
}

// Revoked says that a module runs no more.
type Revoked struct {
	By          string    `json:"by" doc:"The did:key of who revoked it first."`
	Why         string    `json:"why"`
	Made        time.Time `json:"made"`
	Revocations []string  `json:"revocations" doc:"What was signed, each a compact JWS."`
}

// ModuleList is a world's modules.
type ModuleList struct {
	Modules []Module `json:"modules"`
}

func shownModule(m job.Module, err error) (*body[Module], error) { return answer(showModule(m), err) }

func showModule(m job.Module) Module {
	shown := Module{
		ID: m.ID(), Engine: m.Engine, Interface: m.Interface, Program: m.Program, Reads: m.Reads, By: m.By, Made: m.Made, Added: m.Added,
		Fingerprint: m.Fingerprint, Record: m.Record,
	}
	if r := m.Revoked; r != nil {
		shown.Revoked = &Revoked{r.By, r.Why, r.Made, m.Revocations}
	}
	return shown
}
