package file

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"carnet"
)

// ReadCSV reads comma-separated values (RFC 4180) in UTF-8 with one header line.
// A row may have one cell more than the header: a leading index, as R writes it.
// Empty cells are absent values. A row whose time, or a cell whose value, can't
// be read is skipped; a row with the wrong number of cells refuses the file. Of several
// columns those are taken whose headers are all there, the first such; without any the ones
// that DefaultColumns knows.
func ReadCSV(r io.Reader, name string, cols ...Columns) (*Recording, error) {
	src := &limited{r: r, name: name, rows: true}
	c := &csvReader{recorder: newRecorder(name, Line), src: src}
	text := bufio.NewReader(src)
	if bom, _ := text.Peek(3); string(bom) == "\xef\xbb\xbf" {
		text.Discard(3)
	}
	c.rows = csv.NewReader(text)
	c.rows.FieldsPerRecord = -1
	c.rows.ReuseRecord = true
	header, err := c.first()
	if err != nil {
		return nil, err
	}
	taken, err := c.choose(header, cols)
	if err != nil {
		return nil, err
	}
	if err := c.header(header, taken); err != nil {
		return nil, err
	}
	for {
		row, err := c.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, c.damaged(err)
		}
		if err := c.row(row); err != nil {
			return nil, err
		}
	}
	if len(c.rec.Measurements) == 0 && len(c.rec.Skipped) > 0 {
		return nil, carnet.Errorf(carnet.Malformed, "%s holds no measurement: line %d: %s", name, c.rec.Skipped[0].First, c.rec.Skipped[0].Why).
			WithFix("check the columns and the form of the time")
	}
	if len(c.rec.Measurements) == 0 {
		return nil, carnet.Errorf(carnet.Malformed, "%s has a header line and no rows with values", name).WithFix("want at least one")
	}
	return c.finish(), nil
}

// next reads a row.
func (c *csvReader) next() ([]string, error) {
	c.src.row = c.src.read // some of it has been read
	return c.rows.Read()
}

type csvReader struct {
	*recorder
	src   *limited
	rows  *csv.Reader
	width int // cells of the header
	time  int // index in the header of the time's column
	form  timeForm
	cells []cell
}

// cell is a column that is taken.
type cell struct {
	index  int
	header string
	Column
}

func (c *csvReader) damaged(err error) error {
	if c.src.stop != nil {
		return c.src.stop
	}
	if parse, ok := errors.AsType[*csv.ParseError](err); ok {
		return carnet.Errorf(carnet.Malformed, "%s is not CSV: line %d, column %d: %v", c.rec.Name, parse.Line, parse.Column, parse.Err).
			WithFix("quote cells as RFC 4180 says; nothing of the file was taken")
	}
	return fmt.Errorf("read %s: %w", c.rec.Name, err)
}

// first reads the first line.
func (c *csvReader) first() (header []string, err error) {
	header, err = c.next()
	if err == io.EOF {
		return nil, carnet.Errorf(carnet.Malformed, "%s is empty", c.rec.Name).WithFix("want a header line and rows")
	}
	if err != nil {
		return nil, c.damaged(err)
	}
	header = slices.Clone(header) // the reader writes over it
	for i := range header {
		header[i] = strings.TrimSpace(header[i])
	}
	return header, nil
}

// choose says which columns are the file's.
func (c *csvReader) choose(header []string, cols []Columns) (Columns, error) {
	switch len(cols) {
	case 0:
		known, ok := DefaultColumns(header)
		if !ok {
			return nil, carnet.Errorf(carnet.Malformed, "%s has the columns %s, which say nothing by themselves", c.rec.Name, quoteSome(header)).
				WithFix("say what they are, as in --columns 'when=time(s),pulse=heart_rate[beat/min]'")
		}
		return known, nil
	case 1:
		c.rec.Given = 1
		return cols[0], nil
	}
	i := slices.IndexFunc(cols, func(of Columns) bool {
		for h := range of {
			if !slices.Contains(header, h) {
				return false
			}
		}
		return true
	})
	if i < 0 {
		return nil, carnet.Errorf(carnet.Malformed, "%s has the columns %s, and so all of none of those that are given", c.rec.Name, quoteSome(header)).
			WithFix("say what they are with one more --columns")
	}
	c.rec.Given = i + 1
	return cols[i], nil
}

// header finds the columns in the first line.
func (c *csvReader) header(header []string, cols Columns) error {
	c.width, c.time = len(header), -1
	found := make(map[string]bool)
	for i, h := range header {
		col, ok := cols[h]
		switch {
		case !ok:
			c.skip(1, fmt.Sprintf("column %s is not among the columns to take", short(h)))
		case found[h]:
			return carnet.Errorf(carnet.Malformed, "%s has two columns called %s", c.rec.Name, short(h)).WithFix("rename one")
		case col.form != "":
			c.time, c.form = i, col.form
		default:
			c.cells = append(c.cells, cell{i, h, col})
		}
		found[h] = true
	}
	for h := range cols {
		if !found[h] {
			return carnet.Errorf(carnet.Malformed, "%s has no column %s", c.rec.Name, short(h)).WithFix("it has %s", quoteSome(header))
		}
	}
	if c.time < 0 {
		return carnet.Errorf(carnet.Malformed, "the columns name no time").WithFix(columnsFix)
	}
	return nil
}

func (c *csvReader) row(row []string) error {
	line, _ := c.rows.FieldPos(0)
	switch len(row) - c.width {
	case 0:
	case 1:
		row = row[1:]
	default:
		return carnet.Errorf(carnet.Malformed, "%s line %d has %d cells, want %d as in the header", c.rec.Name, line, len(row), c.width).
			WithFix("the file may be cut off; nothing of it was taken")
	}
	at, ok := c.form.parse(strings.TrimSpace(row[c.time]))
	if !ok {
		c.skip(line, fmt.Sprintf("time can't be read in the form %s", c.form))
		return nil
	}
	for i := range c.cells {
		col := &c.cells[i]
		text := strings.TrimSpace(row[col.index])
		if text == "" {
			continue
		}
		v, ok := col.value(text)
		if !ok {
			c.skip(line, fmt.Sprintf("column %s is not a %s", short(col.header), col.kind))
			continue
		}
		if err := c.add(carnet.Measurement{Name: col.Property, Unit: col.Unit, Time: at, Value: v}); err != nil {
			return err
		}
	}
	return nil
}

// value reads a cell.
func (c *cell) value(text string) (carnet.Value, bool) {
	switch c.kind {
	case carnet.Text:
		return carnet.String(strings.Clone(text)), len(text) <= maxText
	case carnet.Boolean:
		switch strings.ToLower(text) {
		case "1", "true", "yes", "on":
			return carnet.Bool(true), true
		case "0", "false", "no", "off":
			return carnet.Bool(false), true
		}
		return carnet.Value{}, false
	}
	v, err := strconv.ParseFloat(text, 64)
	return carnet.Float(v), err == nil && !math.IsNaN(v) && !math.IsInf(v, 0)
}

// maxText is the longest text cell, in bytes.
const maxText = 4096

func short(s string) string {
	if len(s) > 40 {
		s = s[:40] + "…"
	}
	return strconv.Quote(s)
}

func quoteSome(list []string) string {
	var parts []string
	for _, s := range list[:min(len(list), 20)] {
		parts = append(parts, short(s))
	}
	if len(list) > 20 {
		parts = append(parts, fmt.Sprintf("%d more", len(list)-20))
	}
	return strings.Join(parts, ", ")
}
