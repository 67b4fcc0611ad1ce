// Package link carries frames, calls and notices between two parties over one
// mutual TLS connection that the sender of frames dials: point R1, things agent
// to world, and R3 and R5 where a world shares with another.
//
// It owns the pinned TLS identities, the messages, incarnations, numbering and
// resume, and the back-pressure of a link. A link is in one of these states on
// the sender's side:
//
//	idle → dialling → greeted → registered → resumed → exchanging
//	  ▲        │          │          │           │          │
//	  └────────┴── back-off ◀────────┴───────────┴──────────┘   any failure
//	                      └──▶ stopped: fenced or forked, for good
//
// and on the receiver's side an incarnation is current from its registration
// until the next one. State's methods are the whole of the protocol's decisions,
// pure functions that the server, the sender and the state-space search in the
// tests share; docs/design/link.md states them with the durable states and the
// recovery rule for a crash at each point.
//
// It must not know what a frame contains beyond its signed header, nor things,
// avatars, measurements, policies or stores: a Source hands out frames, a Sink
// makes them durable, and Call and Notify carry bodies that link doesn't read.
package link
