// Package move owns what two worlds do so that an avatar goes from one to the
// other: it has exactly one home before and after, whatever is lost, killed or
// restored meanwhile.
//
// At the target a move is asked, copying, then prepared, home or dropped; at the
// source offered, frozen, then gone or kept (state.go). From what either has signed
// on, only the registrar's decision goes on. docs/design/crossing.md has the
// messages and the recovery rule for a crash at each point; search_test.go visits
// all orders of events with the functions that run here.
//
// The package must not know how a caller is proven (crossing/r5), how the register
// is kept (register), nor where history and keys lie (avatar).
package move
