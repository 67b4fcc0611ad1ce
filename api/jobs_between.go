package api

import (
	"net/http"
	"reflect"
	"time"

	"carnet"
	"carnet/dpm"

	"github.com/danielgtaylor/huma/v2"
)

// exampleJobID is a job's id.
var exampleJobID = carnet.JobID{3, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff}

// describeR6 describes what dpm.Handler serves to worlds (docs/design/capsule.md).
func (b between) describeR6(at string) {
	b.scheme("world", huma.SecurityScheme{Type: "mutualTLS", Description: "The TLS key that the world shows this DPM, as their peering pins it. A job is found by it and the job's id together: another world's looks absent."})
	job := pathParam("job", "The job's id, which its world drew.", exampleJobID.String())
	carries := func(t reflect.Type, value any) map[string]*huma.MediaType {
		return map[string]*huma.MediaType{typeJSON: {Schema: b.schema(t, ""), Example: plain(value)}}
	}
	says := func(t reflect.Type) map[string]*huma.Response {
		return responses("200", "OK", map[string]*huma.MediaType{typeJSON: {Schema: b.schema(t, "")}})
	}
	add := func(id, method, path, summary string, body map[string]*huma.MediaType, answers map[string]*huma.Response, parameters ...*huma.Param) {
		op := huma.Operation{
			OperationID: id, Method: method, Path: path, Tags: []string{atR6}, Summary: summary, Parameters: parameters, Responses: answers, Security: []map[string][]string{{"world": {}}},
		}
		if body != nil {
			op.RequestBody = &huma.RequestBody{Required: true, Content: body}
		}
		b.add(at, "The DPM's listener for worlds, behind mutual TLS.", op)
	}
	add("get-offer", http.MethodGet, "/r6/offer", "What the DPM does: engines, the most that a job may have, workers, jobs of the caller's that wait, its clearance; signed. With it the reception key that bags are to be sealed to.",
		nil, says(reflect.TypeFor[dpm.Offer]()))
	add("submit-job", http.MethodPut, "/r6/jobs/{job}", "Brings a capsule: the order, the key bags that it names, and the world's reception key. When it is answered, order and keys are durable. The same order again is answered the same.",
		carries(reflect.TypeFor[dpm.Submission](), dpm.Submission{Order: exampleToken, Bags: [][]byte{[]byte("key bag")}, Reception: []byte("announcement")}), says(reflect.TypeFor[dpm.SubmissionAnswer]()), job)
	add("put-content", http.MethodPut, "/r6/jobs/{job}/content/{fingerprint}", "Gives the DPM content that the job lacks, at most 32 MiB. What it doesn't lack is thrown away.",
		map[string]*huma.MediaType{typeObject: {Schema: bytesOf("The bytes."), Example: exampleObject}}, responses("204", "It is there.", nil),
		job, pathParam("fingerprint", "SHA-256 of the bytes.", exampleFingerprint()))
	add("get-job-status", http.MethodGet, "/r6/jobs/{job}", "Where a job stands: its state, what it lacks, how far it is; at its end the result, signed.", nil, says(reflect.TypeFor[dpm.Status]()), job,
		&huma.Param{Name: "after", In: "query", Description: "Answer once that isn't its serial any more.", Schema: &huma.Schema{Type: "integer", Minimum: new(0.0)}, Example: 0},
		&huma.Param{Name: "wait", In: "query", Description: "Or after so many seconds, at most 30.", Schema: &huma.Schema{Type: "integer", Minimum: new(0.0)}, Example: 0})
	add("get-partial", http.MethodGet, "/r6/jobs/{job}/partial", "How much the attempt that runs has put out so far, signed, with the bag that gives its key. 404 while that is nothing.",
		nil, says(reflect.TypeFor[dpm.PartialAnswer]()), job)
	add("get-part", http.MethodGet, "/r6/jobs/{job}/parts/{attempt}/{n}", "A part of what an attempt has put out, sealed to the world: also while it runs.", nil,
		responses("200", "A sealed batch.", map[string]*huma.MediaType{typeObject: {Schema: bytesOf("A batch (docs/design/seal.md).")}}), job,
		pathParam("attempt", "The attempt, as the status has it.", "1"), pathParam("n", "The part, from 0 on.", "0"))
	add("withdraw-job", http.MethodPost, "/r6/jobs/{job}/withdrawal", "Ends a job by its world's word: when it is answered, no key of it is there. One that hasn't come yet doesn't come any more.",
		carries(reflect.TypeFor[dpm.Withdrawing](), dpm.Withdrawing{Withdrawal: exampleToken}), says(reflect.TypeFor[dpm.WithdrawingAnswer]()), job)
	add("get-record", http.MethodGet, "/r6/jobs/{job}/record", "What the DPM has stated of a job that has ended, with the receipts of its ledger, signed: for the world's evidence. 503 while a receipt lacks.",
		nil, says(reflect.TypeFor[dpm.RecordAnswer]()), job)
	add("tell-taken", http.MethodPost, "/r6/jobs/{job}/taken", "Says that the world has the result, durably: the parts are deleted.",
		carries(reflect.TypeFor[dpm.Taking](), dpm.Taking{Taken: exampleToken}), responses("204", "They are deleted.", nil), job)
	add("erase-jobs", http.MethodPost, "/r6/deletions", "Erases all that is here of jobs of the world's, since what they were over is erased by its owner's order: keys, content, outputs, orders and results. The answer is the DPM's deletion, signed. 503 while a worker is being stopped.",
		carries(reflect.TypeFor[dpm.Erasing](), dpm.Erasing{Order: exampleToken, Jobs: []dpm.ErasingJob{{ID: exampleJobID, Until: time.Unix(1790000000, 0).UTC()}}}), says(reflect.TypeFor[dpm.ErasingAnswer]()))
	add("tell-revocation", http.MethodPost, "/r6/revocations", "Says that a module is to run no more: by its publisher's word for nobody, by a world's for itself. When it is answered, that is durable, and no job that it counts for is under way.",
		carries(reflect.TypeFor[dpm.Revoking](), dpm.Revoking{Revocation: exampleToken}), responses("204", "They have ended.", nil))
	add("list-revoked", http.MethodPost, "/r6/revoked", "Which modules, of the records that are given, at most 64, run no more: by their publishers' words, whoever brought them, and by the caller's own.",
		carries(reflect.TypeFor[dpm.RevokedAsked](), dpm.RevokedAsked{Records: []string{exampleToken}}), says(reflect.TypeFor[dpm.RevokedAnswer]()))
}
