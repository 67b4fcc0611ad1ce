package demo

import (
	"strings"
	"testing"

	"carnet/wire/file"
)

// Messages that hold no measurement are told of in one line, whatever kinds there are.
func TestWhatIsLeftOutIsSummedUp(t *testing.T) {
	in := Input{Files: 1, LeftOut: []LeftOut{{Count: 3, Why: "positions with only one of latitude and longitude", First: 7, Place: file.Message}}}
	for _, kind := range []string{"unpublished (22)", "Event", "unpublished (79)"} {
		in.LeftOut = append(in.LeftOut, LeftOut{Count: 2, Why: kind + file.NoMeasurement, First: 1, Place: file.Message})
	}
	var out strings.Builder
	in.writeLeftOut(&out)
	want := "             left out: 3 × positions with only one of latitude and longitude, first at message 7\n" +
		"             left out: 6 messages of 3 kinds that hold no measurement (--json lists them)\n"
	if out.String() != want {
		t.Errorf("it says\n%swant\n%s", out.String(), want)
	}
}
