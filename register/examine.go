package register

import "carnet"

// Examine looks whether the register answers.
func (r *Registrar) Examine(e *carnet.Examination) {
	e.Saw("registers", 1)
	if err := r.answering(); err != nil {
		f := carnet.Finding{Kind: "register", About: r.did, Wrong: r.isNot(), Reason: "it answers nothing: " + err.Error()}
		e.Found(f)
	}
}
