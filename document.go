package carnet

// Document is a small record that an agent keeps by kind and id (a thing, a
// mapping, a view, an avatar): ids are clear, the body is sealed by the agent
// before a store sees it. Version starts at 1 and grows by one at each change.
type Document struct {
	Kind    string
	ID      string
	Version uint64
	Body    []byte
}

// Kept is a document of a part of a party beside its agent. It rests sealed in the
// agent's store, as the agent's own do.
type Kept struct {
	Kind, ID string
	Version  uint64 // one more than that of the one it replaces
	Body     any    // as JSON; nil: the document is deleted
}
