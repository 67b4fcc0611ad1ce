package thing

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"carnet"
)

// givesEvery is how often it is looked at whether a world is to be told what mappings
// give now.
const givesEvery = 250 * time.Millisecond

// gave is what a world was told on a connection. Owner: who tells it.
type gave struct {
	run     *run                          // of the connection
	version uint64                        // of the policy for that world
	streams map[carnet.StreamID]givesText // of each stream
}

// givesText is what a stream gives, to be compared.
type givesText string

// tellGives tells each world what mappings give now, at each connection and when it has
// changed, until ctx ends: a property that a view gives no more would stop without a word.
func (a *Agent) tellGives(ctx context.Context) {
	var work sync.WaitGroup
	defer work.Wait()
	tick := time.NewTicker(givesEvery)
	defer tick.Stop()
	for {
		for _, s := range a.allSenders() {
			if s.mayTell() {
				work.Go(func() { s.tellGives(ctx) })
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// mayTell claims the telling of a world, if there is anything to tell and nobody does it.
func (s *sender) mayTell() bool {
	s.agent.policyMu.RLock()
	version := s.agent.policyVersions[s.peer.Party]
	s.agent.policyMu.RUnlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.telling || s.run == nil || s.run.ctx.Err() != nil || s.gave.run == s.run && s.gave.version == version {
		return false
	}
	s.telling = true
	return true
}

// maxGives is how large a call that tells a world is, roughly, in bytes.
const maxGives = 128 << 10

// tellGives tells a world. One that refuses it isn't told again on this connection.
func (s *sender) tellGives(ctx context.Context) {
	told, err := s.tellAll(ctx)
	s.mu.Lock()
	s.telling, s.gave = false, told
	s.mu.Unlock()
	if err != nil && ctx.Err() == nil {
		s.agent.log.Debug("a world isn't told yet what it is given; it is tried again", "world", s.peer.Party, "err", err)
	}
}

// tellAll tells what differs from what was told, and returns what is told then.
func (s *sender) tellAll(ctx context.Context) (told gave, err error) {
	s.mu.Lock()
	told, r := s.gave, s.run
	s.mu.Unlock()
	if told.run != r {
		told = gave{run: r, streams: make(map[carnet.StreamID]givesText)}
	}
	told.version = 0
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	all, version := s.agent.givesTo(s.peer.Party)
	var call carnet.Gives
	var texts []givesText
	size := 0
	ask := func() error {
		if len(texts) == 0 {
			return nil
		}
		_, err := s.ask(ctx, carnet.CallGives, call)
		switch carnet.CodeOf(err) {
		case carnet.Unavailable, carnet.NoSpace:
			return err
		case "":
			if err != nil {
				return err
			}
		default: // for good: a world that an older program runs has no word for it
			s.agent.log.Debug("a world doesn't take what it is told of views", "world", s.peer.Party, "err", err)
		}
		for i, text := range texts {
			told.streams[call.Streams[i].Stream] = text
		}
		call, texts, size = carnet.Gives{}, nil, 0
		return nil
	}
	for _, g := range all {
		text, err := json.Marshal(g.Properties)
		if err != nil {
			return told, err
		}
		if had, ok := told.streams[g.Stream]; ok && had == givesText(text) {
			continue
		}
		call.Streams, texts = append(call.Streams, g), append(texts, givesText(text))
		if size += len(text) + 80; size < maxGives {
			continue
		}
		if err := ask(); err != nil {
			return told, err
		}
	}
	if err := ask(); err != nil {
		return told, err
	}
	told.version = version
	return told, nil
}

// givesTo lists what the mappings to a world give now, as of a version of the policy for
// it. Of those whose avatar has moved away the world knows that.
func (a *Agent) givesTo(world carnet.PartyID) (all []carnet.StreamGives, version uint64) {
	a.policyMu.RLock() // one that is made beyond it has another version
	defer a.policyMu.RUnlock()
	for _, m := range a.mappingsTo(world) {
		if m.moved == nil {
			all = append(all, carnet.StreamGives{Stream: m.Stream, Properties: m.gives()})
		}
	}
	return all, a.policyVersions[world]
}

// gives names the properties that a mapping gives now. The caller holds the policy lock.
func (m *Mapping) gives() []string {
	names := []string{}
	for i := range m.thing.description.Properties {
		if !m.stopped && m.table.Result(i).Admit {
			names = append(names, m.thing.description.Properties[i].Name)
		}
	}
	slices.Sort(names)
	return names
}
