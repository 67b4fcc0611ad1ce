// Package register is who is home where: for each avatar and item one home, for
// each crossing one decision, at a registrar that both worlds and the owner chose
// (docs/design/crossing.md, "The register").
//
// Decide and Enrol are its rules, pure, and everything else carries them out. A
// crossing is *open* until it is decided, as commit or abort, and the first
// decision stands for ever.
//
// The package must not know what a home is the home of: it sees random numbers,
// keys and hashes.
package register
