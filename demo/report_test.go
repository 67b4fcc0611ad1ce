package demo

import (
	"strings"
	"testing"

	"carnet/wire/file"
)

// What a recording loses is in the report, for people and for programs.
func TestWhatIsLeftOutIsSaid(t *testing.T) {
	columns, err := file.ParseColumns("t=time(s),hr=heart_rate[beat/min]")
	if err != nil {
		t.Fatal(err)
	}
	r, err := file.ReadCSV(strings.NewReader("t,hr\n1,60\n2,61\n3,62\nyesterday,63\n4,64\n"), "run.csv", columns)
	if err != nil {
		t.Fatal(err)
	}
	in := Input{Files: 1, Measurements: len(r.Measurements), LeftOut: leftOut([]*file.Recording{r})}
	if len(in.LeftOut) != 1 || in.LeftOut[0] != (LeftOut{"run.csv", 1, "time can't be read in the form s", 5, file.Line}) {
		t.Errorf("for programs: %+v", in.LeftOut)
	}
	var text strings.Builder
	(&Report{Input: in}).Write(&text)
	if !strings.Contains(text.String(), "left out: 1 × time can't be read in the form s, first at line 5\n") {
		t.Errorf("for people:\n%s", text.String())
	}
}
