package docs

import (
	"slices"
	"testing"
)

func TestSnippets(t *testing.T) {
	got := snippets("# Page\n\n## First\n\ntext `a`\n\n```sh\necho 1\n\necho 2\n```\n\n```go\npackage x\n```\n## Second\n```\nplain\n```\n\n    indented\n```unclosed\nx\n")
	want := []Snippet{{"First", "sh", "echo 1\n\necho 2\n"}, {"First", "go", "package x\n"}, {"Second", "", "plain\n"}}
	if !slices.Equal(got, want) {
		t.Errorf("found %q", got)
	}
}
