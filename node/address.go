package node

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"time"

	"carnet"
	"carnet/keys"
)

// Reached is where others reach the party's listeners: host:port each, empty for
// those that it doesn't have.
func (c Config) Reached() Listen {
	l, a := c.Listen, c.Advertise
	return Listen{
		HTTP: c.reached(l.HTTP, a.HTTP), MQTT: c.reached(l.MQTT, a.MQTT), Link: c.reached(l.Link, a.Link),
		R2: c.reached(l.R2, a.R2), R5: c.reached(l.R5, a.R5), R6: c.reached(l.R6, a.R6),
	}
}

func (c Config) reached(listen, advertised string) string {
	if listen == "" || advertised != "" {
		return advertised
	}
	host, port, err := net.SplitHostPort(listen)
	switch {
	case err != nil:
		return listen
	case len(c.Advertise.Hosts) > 0:
		host = c.Advertise.Hosts[0]
	case everywhere(host):
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}

// everywhere reports whether a listener with this host takes connections to
// every address of its machine.
func everywhere(host string) bool {
	ip := net.ParseIP(host)
	return host == "" || ip != nil && ip.IsUnspecified()
}

// hosts are the names and addresses by which people and devices may find the
// party: all that are advertised, all that it listens on, and this machine.
func (c Config) hosts() []string {
	all := append(c.advertised(), "localhost", "127.0.0.1", "::1")
	all = appendHosts(all, c.Listen.HTTP, c.Listen.MQTT)
	slices.Sort(all)
	return slices.Compact(all)
}

// advertised are the hosts that the configuration promises to people and devices.
func (c Config) advertised() []string {
	return appendHosts(slices.Clone(c.Advertise.Hosts), c.Advertise.HTTP, c.Advertise.MQTT)
}

func appendHosts(hosts []string, addresses ...string) []string {
	for _, address := range addresses {
		if host, _, err := net.SplitHostPort(address); err == nil && !everywhere(host) {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// checkAddresses refuses what others couldn't connect to.
func (c Config) checkAddresses() error {
	for _, h := range c.Advertise.Hosts {
		if !isHost(h) || everywhere(h) {
			return carnet.Errorf(carnet.Malformed, "advertise.hosts has %q, which is no name or address of a machine", h).
				WithFix("write it without a port: hub.example.org or 192.0.2.7")
		}
	}
	a := c.Advertise
	for _, of := range []struct{ name, listen, address string }{
		{"http", c.Listen.HTTP, a.HTTP}, {"mqtt", c.Listen.MQTT, a.MQTT}, {"link", c.Listen.Link, a.Link},
		{"r2", c.Listen.R2, a.R2}, {"r5", c.Listen.R5, a.R5}, {"r6", c.Listen.R6, a.R6},
	} {
		if of.address == "" {
			continue
		}
		host, port, err := net.SplitHostPort(of.address)
		n, perr := strconv.ParseUint(port, 10, 16)
		if err != nil || perr != nil || n == 0 || !isHost(host) || everywhere(host) || of.listen == "" {
			return carnet.Errorf(carnet.Malformed, "advertise.%s is %q, and others connect to it", of.name, of.address).
				WithFix("name a host and a port, of a listener that the party has")
		}
	}
	return nil
}

// isHost reports whether a text is a name or an address as it stands in a URL.
func isHost(h string) bool {
	if net.ParseIP(h) != nil {
		return true
	}
	u, err := url.Parse("https://" + h)
	return err == nil && u.Host == h && u.Port() == "" && u.Hostname() == h
}

// certificateLife is how long the certificate for people and devices holds.
const certificateLife = 2 * 365 * 24 * time.Hour

// makeCertificate makes the certificate that people and devices trust.
func makeCertificate(ctx context.Context, c Config, table *keys.Table) error {
	now := time.Now()
	_, err := table.MakeCertificate(ctx, serverID, keys.Certificate{
		Key: keys.P256, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(certificateLife), Hosts: c.hosts(),
	})
	return err
}

// RenewCertificate replaces the certificate that people and devices trust by a
// new one, for the hosts that the configuration has now. Peers pin other keys
// and don't notice.
func RenewCertificate(ctx context.Context, c Config) error {
	return withTable(ctx, c, func(table *keys.Table) error {
		if err := table.Destroy(ctx, serverID); err != nil && carnet.CodeOf(err) != carnet.NotFound {
			return err
		}
		return makeCertificate(ctx, c, table)
	})
}

// WriteCA writes the certificate that clients of the party's HTTP and MQTT
// listeners are to trust.
func WriteCA(ctx context.Context, c Config, path string) error {
	return withTable(ctx, c, func(table *keys.Table) error {
		cert, err := table.Certificate(ctx, serverID)
		if err != nil {
			return err
		}
		block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Leaf.Raw})
		return os.WriteFile(path, block, 0o644)
	})
}

// withTable opens the key table of a party that needn't run.
func withTable(ctx context.Context, c Config, do func(*keys.Table) error) error {
	stores, err := openStores(ctx, c)
	if err != nil {
		return err
	}
	table, err := openTable(ctx, c, stores)
	if err == nil {
		err = do(table)
	}
	return errors.Join(err, stores.close())
}

// names refuses a certificate that an advertised host isn't in: clients would
// refuse it, each with words of its own.
func (c Config) names(cert *x509.Certificate) error {
	for _, h := range c.advertised() {
		if cert.VerifyHostname(h) != nil {
			return carnet.Errorf(carnet.Conflict, "the certificate of %s, which people and devices trust, is not for %s", c.Party, h).
				WithFix("run 'carnet party certificate --config %s', and give them the new ca.pem", c.file)
		}
	}
	return nil
}
