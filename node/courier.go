package node

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"time"

	"carnet"
	"carnet/api"
	"carnet/keys"
	"carnet/peering"
)

// courier carries acceptances over HTTPS to the inviter, whose TLS key the
// invitation pins.
type courier struct{ limit time.Duration } // default courierLimit

// Limits of what a courier waits for and reads, of somebody who isn't a peer yet.
const (
	courierLimit = 15 * time.Second
	courierMost  = 64 << 10
)

// Carry implements peering.Courier.
func (c courier) Carry(ctx context.Context, to peering.ReplyTo, id peering.InvitationID, secret, acceptance string) (string, error) {
	limit := cmp.Or(c.limit, courierLimit)
	transport := &http.Transport{
		DisableKeepAlives: true, ResponseHeaderTimeout: limit, TLSHandshakeTimeout: limit, MaxResponseHeaderBytes: courierMost,
		TLSClientConfig: &tls.Config{
			MinVersion: tls.VersionTLS12, InsecureSkipVerify: true, // the pin is compared instead
			VerifyConnection: func(s tls.ConnectionState) error {
				if len(s.PeerCertificates) > 0 && keys.Pin(s.PeerCertificates[0]) == to.Pin {
					return nil
				}
				return carnet.Errorf(carnet.Unauthenticated, "who answers at %s is not who the invitation says", to.URL).
					WithFix("ask the other side for a new invitation, if it has renewed its certificate")
			},
		},
	}
	client := &http.Client{
		Transport: transport, Timeout: limit,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	body, err := json.Marshal(api.Acceptance{Acceptance: acceptance})
	if err != nil {
		return "", err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, to.URL+"/v1/peerings/"+id.String(), bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	r.Header.Set("Authorization", "Bearer "+secret)
	r.Header.Set("Content-Type", "application/json")
	answer, err := client.Do(r)
	if err != nil {
		return "", carnet.Errorf(carnet.Unavailable, "the acceptance can't be posted: %v", err).WithFix("it is tried again")
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(io.LimitReader(answer.Body, courierMost+1))
	if err != nil || len(data) > courierMost {
		return "", carnet.Errorf(carnet.Unavailable, "the inviter's answer is cut off, or has more than %d bytes", courierMost).WithFix("it is tried again")
	}
	if answer.StatusCode != http.StatusOK {
		var p api.Problem
		if json.Unmarshal(data, &p) != nil || p.Detail == "" {
			return "", carnet.Errorf(carnet.Unavailable, "the inviter answers with status %d", answer.StatusCode).WithFix("it is tried again")
		}
		return "", &carnet.Error{Code: p.Code, Reason: "the inviter refuses: " + p.Detail, Fix: p.Fix}
	}
	var got api.Confirmation
	if err := json.Unmarshal(data, &got); err != nil {
		return "", carnet.Errorf(carnet.Unavailable, "the inviter's answer can't be read").WithFix("it is tried again")
	}
	return got.Confirmation, nil
}
