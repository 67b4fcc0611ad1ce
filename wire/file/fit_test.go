package file

import (
	"bytes"
	"reflect"
	"testing"
	"time"
)

func TestGeneratedRunSurvivesFIT(t *testing.T) {
	end := time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)
	want := Generate(7, 20*time.Minute, end)
	var buf bytes.Buffer
	if err := WriteFIT(&buf, want); err != nil {
		t.Fatal(err)
	}
	got, err := ReadFIT(&buf, want.Name)
	if err != nil {
		t.Fatal(err)
	}
	got.Skipped = nil // the file_id message
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("read %d measurements from %d to %d, wrote %d from %d to %d", len(got.Measurements), got.Start, got.End, len(want.Measurements), want.Start, want.End)
	}
	if got := time.Unix(0, want.End); !got.Equal(end) {
		t.Errorf("it ends at %v, want %v", got, end)
	}
}
