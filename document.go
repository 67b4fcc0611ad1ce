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
