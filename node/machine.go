package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"carnet"
	"carnet/activity"
	"carnet/policy"
	"carnet/porter"
	"carnet/problem"
	"carnet/socket"

	"golang.org/x/sys/unix"
)

// Who is at a party's machine, as the user that the party runs as, asks its process for
// what nobody is to ask for from elsewhere, at a socket in its data directory:
//
//	POST /key/rotation   {new_key} → {kept}, once it is over
//
// Each call is decided by the party's policies, as of its operator, and recorded.

const operatorSocket = "operator.sock"

// rotationWanted is what is asked for: a key file to take, or none.
type rotationWanted struct {
	NewKey string `json:"new_key,omitempty"`
}

type rotationDone struct {
	Kept string `json:"kept,omitempty"`
}

// machine is the way in for who is at the machine.
type machine struct {
	node    *Node
	ctx     context.Context // of the process: what was begun goes on when who asked goes
	working sync.WaitGroup
}

// serveMachine serves the socket until ctx ends.
func (n *Node) serveMachine(ctx context.Context) error {
	l, err := socket.Listen(n.config.path(n.config.Data), operatorSocket)
	if err != nil {
		return fmt.Errorf("listen for the operator: %w", err)
	}
	defer os.Remove(filepath.Join(n.config.path(n.config.Data), operatorSocket)) // one that stays is replaced
	m := &machine{node: n, ctx: ctx}
	server := &http.Server{
		Handler: porter.TellPanics(m.handler(), n.log), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 10 * time.Second,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, machineKey{}, sameUser(c))
		},
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	err = server.Serve(l)
	m.working.Wait()
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the operator: %w", err)
	}
	return nil
}

type machineKey struct{}

// sameUser reports whether who connected is the user of this process, or root: the socket's
// mode says so, too, from a moment after it is made.
func sameUser(c net.Conn) bool {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return false
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return false
	}
	same := false
	err = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		same = err == nil && (cred.Uid == uint32(os.Geteuid()) || cred.Uid == 0)
	})
	return err == nil && same
}

// machineCalls are what can be asked for, and what each call is. A pattern that isn't
// here is refused to everybody.
var machineCalls = map[string]policy.Action{
	"POST /key/rotation": "rotate-key",
}

func (m *machine) handler() http.Handler {
	mux := http.NewServeMux()
	for pattern, serve := range map[string]func(http.ResponseWriter, *http.Request) error{
		"POST /key/rotation": m.rotate,
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			m.working.Add(1)
			defer m.working.Done()
			err := m.admit(r, machineCalls[pattern])
			if err == nil {
				err = serve(w, r)
			}
			m.refuse(w, r, err)
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		m.refuse(w, r, carnet.Errorf(carnet.NotFound, "%s has no %s %s for who is at its machine", m.node.config.Party, r.Method, r.URL.Path).WithFix("use the carnet that the party runs"))
	})
	return mux
}

// refuse answers an error. Who is at the machine may know all of it.
func (m *machine) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if err == nil {
		return
	}
	m.node.log.Error("the operator's call failed", "path", r.URL.Path, "err", err)
	if carnet.CodeOf(err) == "" {
		err = carnet.Errorf(carnet.Unavailable, "%v", err)
	}
	problem.Refuse(w, string(m.node.config.Party), err, func(error) {})
}

// admit decides a call and records it.
func (m *machine) admit(r *http.Request, action policy.Action) error {
	use, _ := policy.UseOf(action)
	call := activity.Call{
		Who: policy.Bearer("operator", policy.Administrator), Action: action, Via: activity.Machine,
		Resource: policy.Resource{Kind: use.Resource, ID: string(m.node.config.Party)}, Proven: "at the machine, as the party's own user",
	}
	if same, _ := r.Context().Value(machineKey{}).(bool); !same {
		call.Who, call.Proven = policy.Principal{Kind: policy.Nobody}, ""
		err := carnet.Errorf(carnet.Forbidden, "only the user that %s runs as may ask it for this", m.node.config.Party).WithFix("run the command as that user")
		m.node.guard.Refuse(r.Context(), call, err)
		return err
	}
	_, err := m.node.guard.Ask(r.Context(), call)
	return err
}

func (m *machine) rotate(w http.ResponseWriter, r *http.Request) error {
	var wanted rotationWanted
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10))
	d.DisallowUnknownFields()
	if err := d.Decode(&wanted); err != nil {
		return carnet.Errorf(carnet.Malformed, "the request can't be read: %v", err)
	}
	kept, err := m.node.rotate(m.ctx, wanted.NewKey)
	if err != nil {
		return err
	}
	m.node.log.Info("the key-encryption key was rotated", "kept", kept)
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(rotationDone{kept}) // a failed write means that the caller went away
	return nil
}

// machineWait is how long a process that has the party, and no socket, may take to start or
// to end.
const machineWait = 5 * time.Second

// askToRotate has the process that runs a party rotate its key.
func askToRotate(ctx context.Context, c Config, newKey string) (kept string, err error) {
	body, err := json.Marshal(rotationWanted{newKey})
	if err != nil {
		return "", err
	}
	dir := c.path(c.Data)
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return socket.Dial(ctx, dir, operatorSocket) },
	}}
	for begun := time.Now(); ; {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://party/key/rotation", bytes.NewReader(body))
		if err != nil {
			return "", err
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := client.Do(req)
		switch {
		case err == nil:
			return readRotation(resp, c)
		case ctx.Err() != nil:
			return "", ctx.Err()
		case errors.Is(err, fs.ErrPermission):
			return "", carnet.Errorf(carnet.Forbidden, "only the user that %s runs as may ask it to rotate its key", c.Party).WithFix("run the command as that user")
		case !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, fs.ErrNotExist):
			return "", carnet.Errorf(carnet.Unavailable, "%s ended before it said that the rotation is over: %v", c.Party, err).WithFix("start it, if it doesn't run; it ends the rotation by itself")
		case time.Since(begun) > machineWait:
			return "", carnet.Errorf(carnet.Conflict, "another process has %s, and takes no rotation", dir).WithFix("if it isn't about to end, stop it first")
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func readRotation(resp *http.Response, c Config) (kept string, err error) {
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", problem.Read(resp, string(c.Party))
	}
	var done rotationDone
	if err := json.NewDecoder(resp.Body).Decode(&done); err != nil {
		return "", carnet.Errorf(carnet.Unavailable, "%s's answer broke off: %v", c.Party, err).WithFix("see with 'carnet activity --action rotate-key' and its log")
	}
	return done.Kept, nil
}
