// Package demotest is a terminal for tests of what a demo shows on one: it keeps what
// would stand on the screen. It owns the few control sequences that a demo writes, and
// must not know what they are for.
package demotest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
)

// Terminal is a screen of Columns by Rows, with what has scrolled off above it. A control
// sequence that it doesn't know is shown as text, so that a test sees it.
type Terminal struct {
	Columns, Rows int

	mu       sync.Mutex
	rows     [][]rune     // all that ever scrolled, and the screen: its last Rows
	wrapped  map[int]bool // rows that go on with the line of the one before
	row, col int
	top      int    // the row at the screen's top
	escape   []byte // of a sequence that has begun
	text     []byte // of a character that has begun
}

// Write takes what a program writes. It may be called concurrently.
func (t *Terminal) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range b {
		switch {
		case len(t.escape) > 0:
			t.sequence(c)
		case c == '\033':
			t.escape = append(t.escape, c)
		case c == '\r':
			t.col = 0
		case c == '\n':
			t.down()
			t.col = 0 // as a terminal does that adds the return
		default:
			t.text = append(t.text, c)
			if r := []rune(string(t.text)); r[0] != '\uFFFD' || len(t.text) == 4 {
				t.put(r[0])
				t.text = t.text[:0]
			}
		}
	}
	return len(b), nil
}

// sequence takes one more byte of a control sequence.
func (t *Terminal) sequence(c byte) {
	if t.escape = append(t.escape, c); c < 0x40 || len(t.escape) == 2 {
		return
	}
	n := 1
	fmt.Sscanf(string(t.escape[2:]), "%d", &n)
	switch s := string(t.escape); {
	case c == 'A':
		t.row = max(t.row-n, t.top)
	case c == 'B':
		t.row = min(t.row+n, t.top+t.Rows-1)
	case s == "\033[2K":
		t.at(t.row)
		t.rows[t.row] = nil
		delete(t.wrapped, t.row)
		delete(t.wrapped, t.row+1)
	case s == "\033[J":
		t.at(t.row)
		t.rows = t.rows[:t.row+1]
		t.rows[t.row] = t.rows[t.row][:min(t.col, len(t.rows[t.row]))]
		for row := range t.wrapped {
			if row > t.row {
				delete(t.wrapped, row)
			}
		}
	default:
		for _, r := range s[1:] {
			t.put(r)
		}
	}
	t.escape = t.escape[:0]
}

// at makes sure that there is such a row.
func (t *Terminal) at(row int) {
	for len(t.rows) <= row {
		t.rows = append(t.rows, nil)
	}
}

func (t *Terminal) down() {
	t.row++
	t.at(t.row)
	t.top = max(t.top, t.row+1-t.Rows)
}

func (t *Terminal) put(r rune) {
	if t.col == t.Columns {
		t.down()
		t.col = 0
		if t.wrapped == nil {
			t.wrapped = make(map[int]bool)
		}
		t.wrapped[t.row] = true
	}
	t.at(t.row)
	line := t.rows[t.row]
	for len(line) <= t.col {
		line = append(line, ' ')
	}
	line[t.col] = r
	t.rows[t.row] = line
	t.col++
}

// Resize makes it another size, and breaks the lines anew as most terminals do. The cursor
// is to be where a line begins.
func (t *Terminal) Resize(columns, rows int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var lines [][]rune
	at := 0 // the line with the cursor
	for i, row := range t.rows {
		if t.wrapped[i] {
			lines[len(lines)-1] = append(lines[len(lines)-1], row...)
		} else {
			lines = append(lines, slices.Clone(row))
		}
		if i == t.row {
			at = len(lines) - 1
		}
	}
	t.rows, t.wrapped, t.Columns, t.Rows = nil, make(map[int]bool), columns, rows
	for i, line := range lines {
		if i == at {
			t.row = len(t.rows)
		}
		first := true
		for first || len(line) > 0 {
			if !first {
				t.wrapped[len(t.rows)] = true
			}
			n := min(columns, len(line))
			t.rows, line, first = append(t.rows, line[:n:n]), line[n:], false
		}
	}
	t.top = max(0, t.row+1-rows)
}

// Screen is what stands on the screen, row by row, without empty ones at its end.
func (t *Terminal) Screen() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return shown(t.rows[min(t.top, len(t.rows)):])
}

// All is the screen and all that has scrolled off above it.
func (t *Terminal) All() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return shown(t.rows)
}

func shown(rows [][]rune) (lines []string) {
	for _, row := range rows {
		lines = append(lines, strings.TrimRight(string(row), " "))
	}
	for len(lines) > 0 && lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	return lines
}
