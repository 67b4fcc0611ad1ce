package job

import (
	"testing"

	"carnet"
	"carnet/avatar"
	"carnet/seal"
)

// A slot stands once among what a job needs, under the labels of all its batches.
func TestASlotHasTheLabelsOfAllItsBatches(t *testing.T) {
	labels := []carnet.Label{{Sensitivity: carnet.Personal}, {Sensitivity: carnet.Health}, {Sensitivity: carnet.Personal | carnet.Location}}
	var s slots
	places := make(map[seal.Path]int)
	for i, l := range labels {
		s.add(&avatar.Batch{Header: seal.Header{Slot: 7, Number: uint64(i)}, Label: l}, places)
	}
	s.add(&avatar.Batch{Header: seal.Header{Slot: 8, Number: 3}, Label: labels[0]}, places)
	if len(s) != 2 || s[0].label.Sensitivity != carnet.Personal|carnet.Health|carnet.Location || s[1].label != labels[0] {
		t.Errorf("the slots are %+v", s)
	}
}
