// Package console serves the pages for people, and what stands behind them: it signs
// people in, and forwards what the page asks to the parties' public HTTP interface
// with the tokens of who is signed in. The page never sees a token.
//
// It owns the way from a browser to a party: which requests are a page of its own
// (host, origin, session), which paths and headers go on, and what comes back. It
// keeps no state but connections; sessions are the accounts'. docs/design/console.md
// has the whole.
//
// The package must not know any rule about data, nor what a role may do: a party
// decides that, and its answer goes through. It must not import the parties' code.
package console

import (
	"bytes"
	"context"
	"crypto/tls"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"carnet"
	"carnet/access"
	"carnet/account"
	"carnet/porter"

	"golang.org/x/sync/errgroup"
)

// dist is the built page: make console writes it.
//
//go:embed dist
var dist embed.FS

// Config says what a console serves, and where.
type Config struct {
	// Access says how to reach the parties, with which tokens.
	Access *access.File
	// Accounts are whose the console is.
	Accounts *account.Accounts
	// Listen is host:port. Without a certificate it must be a loopback address.
	Listen string
	// Hosts are further names by which people reach the console, as host or host:port.
	Hosts []string
	// Certificate makes the console speak TLS.
	Certificate *tls.Certificate

	Log *slog.Logger // default slog.Default()

	limits limits // default usual: tests have less time
}

// Console is a console that listens.
type Console struct {
	listener net.Listener
	server   *http.Server
	accounts *account.Accounts
	url      string
	secure   bool
}

// connections bounds who may be connected at once; for one more, one is closed that has
// no call of somebody's under way who is signed in.
const connections = 1024

// places are those at the door of a console. One address may take a quarter of them; on
// loopback, or behind a proxy there, everybody has the same.
func places(host string) *porter.Porter {
	if loopback(host) {
		return porter.New(connections, connections)
	}
	return porter.New(connections, connections/4)
}

// New checks the configuration and listens.
func New(c Config) (*Console, error) {
	if c.Access == nil || c.Accounts == nil {
		return nil, carnet.Errorf(carnet.Malformed, "a console needs an access file and accounts")
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.limits == (limits{}) {
		c.limits = usual
	}
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return nil, carnet.Errorf(carnet.Malformed, "a console listens on %q: want HOST:PORT", c.Listen)
	}
	if c.Certificate == nil && !loopback(host) {
		return nil, carnet.Errorf(carnet.Forbidden, "without a certificate a console listens on a loopback address only, not on %q: passwords would cross the network in the clear", host).
			WithFix("give it a certificate and its key, or listen on localhost")
	}
	reached, err := reach(c.Access, c.limits.party)
	if err != nil {
		return nil, err
	}
	page, err := fs.Sub(dist, "dist")
	if err != nil {
		return nil, err
	}
	files, err := readFiles(page)
	if err != nil {
		return nil, err
	}
	listener, err := porter.Open(c.Listen, "name another address with --listen; a demo takes others with --port-base")
	if err != nil {
		return nil, fmt.Errorf("listen for the console: %w", err)
	}
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	secure, scheme := c.Certificate != nil, "http"
	if secure {
		scheme = "https"
	}
	h := &handler{
		accounts: c.Accounts, parties: reached, files: files, hosts: hosts(host, port, c.Hosts), secure: secure, log: c.Log,
		cookie: cookieName(secure, port), limits: c.limits,
	}
	server := &http.Server{
		Handler: porter.TellPanics(h.routes(), c.Log), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 32 << 10,
		ErrorLog:    slog.NewLogLogger(c.Log.Handler(), slog.LevelDebug),
		ConnContext: porter.WithConn,
	}
	if secure {
		server.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{*c.Certificate}}
		server.TLSConfig.NextProtos = []string{"http/1.1"} // WebSockets pass through
	}
	shown := host
	if len(c.Hosts) > 0 {
		shown, _, _ = strings.Cut(c.Hosts[0], ":")
	} else if shown == "" {
		shown = "localhost"
	}
	return &Console{
		listener: places(host).Listen(listener), server: server, accounts: c.Accounts, secure: secure,
		url: scheme + "://" + net.JoinHostPort(shown, port),
	}, nil
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// hosts are the values of Host that mean this console.
func hosts(host, port string, more []string) map[string]bool {
	own := map[string]bool{net.JoinHostPort(host, port): host != ""}
	if loopback(host) || host == "" || net.ParseIP(host) != nil && net.ParseIP(host).IsUnspecified() {
		for _, h := range []string{"localhost", "127.0.0.1", "::1"} {
			own[net.JoinHostPort(h, port)] = true
		}
	}
	for _, h := range more {
		if _, _, err := net.SplitHostPort(h); err != nil {
			own[strings.ToLower(h)] = true // a proxy's, or the usual port
			h = net.JoinHostPort(h, port)
		}
		own[strings.ToLower(h)] = true
	}
	return own
}

// URL is where people find the console.
func (c *Console) URL() string { return c.url }

// Run serves until ctx ends.
func (c *Console) Run(ctx context.Context) error {
	work, ctx := errgroup.WithContext(ctx)
	work.Go(func() error { return c.accounts.Run(ctx) })
	work.Go(func() error {
		c.server.BaseContext = func(net.Listener) context.Context { return ctx }
		stop := context.AfterFunc(ctx, func() {
			ending, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			defer cancel()
			if c.server.Shutdown(ending) != nil {
				c.server.Close()
			}
		})
		defer stop()
		serve := c.server.Serve
		if c.secure {
			serve = func(l net.Listener) error { return c.server.ServeTLS(l, "", "") }
		}
		if err := serve(c.listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve the console: %w", err)
		}
		return ctx.Err()
	})
	return work.Wait()
}

// file is a file of the page.
type file struct {
	kind  string
	body  []byte
	fixed bool // its name has the hash of its content
}

// kinds are the content types of the page's files, by what their names end in.
var kinds = map[string]string{
	".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8",
	".svg": "image/svg+xml", ".woff2": "font/woff2", ".txt": "text/plain; charset=utf-8",
}

// readFiles reads the page's files by their paths: what isn't among them is not
// there, whatever a path says.
func readFiles(page fs.FS) (map[string]file, error) {
	files := make(map[string]file)
	err := fs.WalkDir(page, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		i := strings.LastIndexByte(name, '.')
		kind, ok := kinds[name[max(i, 0):]]
		if !ok {
			return fmt.Errorf("the page has a file of no known kind: %s", name)
		}
		body, err := fs.ReadFile(page, name)
		files["/"+name] = file{kind, bytes.Clone(body), strings.HasPrefix(name, "assets/")}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the page: %w", err)
	}
	files["/"] = files["/index.html"]
	if files["/"].body == nil {
		return nil, errors.New("the page has no index.html")
	}
	delete(files, "/index.html")
	return files, nil
}
