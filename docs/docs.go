// Package docs holds the documents that the program shows, word for word as they
// stand beside it. It owns where in a document something is found.
//
// The package must not know who shows what.
package docs

import (
	_ "embed"
	"strings"

	"carnet"
)

//go:embed read-an-avatar.md
var readAnAvatar string

// Snippet is a piece of code of a document.
type Snippet struct {
	Title    string // the heading that it stands under
	Language string
	Code     string
}

// ReadAnAvatar returns what docs/read-an-avatar.md has to run, in its order.
func ReadAnAvatar() ([]Snippet, error) {
	all := snippets(readAnAvatar)
	if len(all) == 0 {
		return nil, carnet.Errorf(carnet.Malformed, "read-an-avatar.md has nothing to run")
	}
	return all, nil
}

// snippets finds the blocks of code in a document.
func snippets(text string) (all []Snippet) {
	title, inside := "", false
	var s Snippet
	for line := range strings.Lines(text) {
		language, fence := strings.CutPrefix(line, "```")
		switch {
		case fence && !inside:
			s, inside = Snippet{Title: title, Language: strings.TrimSpace(language)}, true
		case fence:
			all, inside = append(all, s), false
		case inside:
			s.Code += line
		default:
			if heading, ok := strings.CutPrefix(line, "## "); ok {
				title = strings.TrimSpace(heading)
			}
		}
	}
	return all
}
