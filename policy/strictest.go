package policy

import "carnet"

// Strictest returns the view that shows no more than each of views does, field
// by field: their meet. It is commutative, associative and idempotent. Without
// views it shows nothing.
func Strictest(views ...View) View {
	if len(views) == 0 {
		return View{}
	}
	strictest := views[0]
	for _, v := range views[1:] {
		strictest = meet(strictest, v)
	}
	return meet(strictest, strictest) // so that one view, too, is copied and canonical
}

func meet(a, b View) View {
	label := carnet.Label{Purposes: a.Purposes, Residency: a.Residency}.Join(carnet.Label{Purposes: b.Purposes, Residency: b.Residency})
	return View{
		Properties: meetProperties(a, b),
		Purposes:   label.Purposes,
		Residency:  label.Residency,
		Retention:  shorter(a.Retention, b.Retention),
		Store:      carnet.Label{Residency: a.Store}.Join(carnet.Label{Residency: b.Store}).Residency,
		Send:       a.Send.meet(b.Send),
	}
}

// meetProperties keeps what both show. An object's name stands for all its
// fields, so it meets a field of its own in that field.
func meetProperties(a, b View) map[string]PropertyView {
	both := map[string]PropertyView{}
	for name, pa := range a.Properties {
		if pb, _, ok := b.property(name); ok {
			addMeet(both, name, pa, pb)
		}
	}
	for name, pb := range b.Properties {
		if pa, _, ok := a.property(name); ok {
			addMeet(both, name, pa, pb)
		}
	}
	return both
}

// addMeet leaves the property out when no multiple is coarse enough for both
// roundings: coarser than every number there is.
func addMeet(both map[string]PropertyView, name string, a, b PropertyView) {
	round, ok := lcm(a.Round, b.Round)
	if !ok {
		return
	}
	both[name] = PropertyView{
		Round:      round,
		PrecisionM: max(a.PrecisionM, b.PrecisionM),
		Rate:       max(a.Rate, b.Rate),
		Deadband:   max(a.Deadband, b.Deadband),
		Windows:    a.Windows.meet(b.Windows),
	}
}

// shorter returns the shorter class; a zero says nothing.
func shorter(a, b carnet.Retention) carnet.Retention {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}
