package evidence

import (
	"fmt"
	"strings"

	"carnet"
)

// Summary is the report for people: the first line says whose keys were used.
func (r *Report) Summary() string {
	var b strings.Builder
	if r.Pinned && r.Verdict == True {
		b.WriteString("Verified with the keys given with --trust.\n")
	} else if r.Pinned {
		b.WriteString("Checked with the keys given with --trust, and not all of it is proved: see the verdict.\n")
	} else {
		b.WriteString("Checked with the bundle's own keys: who made it is not proved. Give --trust FILE with keys from another source.\n")
	}
	c := r.Counts
	if r.Erased != nil {
		b.WriteString(r.Erased.summary(carnet.PartyID(printable(string(r.World)))))
	} else if r.World != "" {
		what := fmt.Sprintf("Avatar %s", r.Avatar)
		if r.Only != nil {
			what = fmt.Sprintf("Batch %d of stream %s alone, of avatar %s", r.Only.Number, r.Only.Stream, r.Avatar)
		}
		fmt.Fprintf(&b, "%s at world %s, written %s: %s, %s, %s.\n", what, r.World, r.Made.Format("2006-01-02 15:04:05 MST"),
			number(c.Frames, "frame", "frames"), number(c.Batches, "batch", "batches"), number(c.Measurements, "measurement", "measurements"))
	}
	for _, s := range r.Skipped {
		fmt.Fprintf(&b, "Stream %s comes by a share, and %s of its numbers aren't here: whether they were shared and left out can't be told.\n",
			s.Stream, number(s.Batches, "batch", "batches"))
	}
	for _, l := range r.LeftOut {
		b.WriteString(l.summary())
	}
	if p := r.Passport; p != nil {
		b.WriteString(p.summary())
	}
	for i, j := range r.Jobs {
		if i == maxJobsShown {
			fmt.Fprintf(&b, "and %s more\n", number(uint64(len(r.Jobs)-i), "job", "jobs"))
			break
		}
		b.WriteString(j.summary())
	}
	for _, f := range r.Findings {
		b.WriteString(f.String() + "\n")
	}
	if r.More > 0 {
		fmt.Fprintf(&b, "and %d findings more\n", r.More)
	}
	fmt.Fprintf(&b, "Verdict: %s.\n", r.Verdict)
	return b.String()
}

// summary says what a passport is, and what its verification leaves open.
func (p *PassportOf) summary() string {
	keys := "It has no keys: it proves, and opens nothing."
	if p.Bags > 0 {
		names := make([]string, len(p.Readers))
		for i, r := range p.Readers {
			names[i] = string(r)
		}
		keys = fmt.Sprintf("Keys are sealed to %s.", strings.Join(names, " and "))
	}
	text := fmt.Sprintf("A passport of the home %s, whose owner is %s. %s Its batches are sealed and weren't opened: what they hold is their senders' signed word.\n", p.Home, p.Owner, keys)
	for _, i := range p.Items {
		receipts := "and the registrar's words on a ledger that is known"
		if !i.Receipts {
			receipts = "by the registrar's signature alone"
		}
		text += fmt.Sprintf("The item %s, %q, a %s of %s: its chain is proved from its issuer on, %s. Whether it is the avatar's still, only the register knows.\n", i.Item, i.Title, i.Kind, i.Issuer, receipts)
	}
	if p.Policy > 0 {
		text += fmt.Sprintf("The avatar's policy, version %d, is in it, signed by the key that its world says is its owner's.\n", p.Policy)
	}
	if p.Grants > 0 {
		text += fmt.Sprintf("It lists %s that its world had in force: they don't come along.\n", number(uint64(p.Grants), "grant", "grants"))
	}
	return text
}

// summary says what was left out, and who says so.
func (l LeftOut) summary() string {
	closed := ""
	if l.Closed > 0 {
		closed = fmt.Sprintf(", and those of %s that couldn't be opened any more", number(l.Closed, "batch", "batches"))
	}
	return fmt.Sprintf("%s of stream %s, in %s, left out when the avatar left %s, by its owner's order of %s%s: so signed %s. The order has the SHA-256 %s.\n",
		number(l.Measurements, "measurement", "measurements"), l.Stream, number(l.Batches, "batch was", "batches were"), l.World,
		l.Ordered.UTC().Format("2006-01-02 15:04:05 MST"), closed, l.World, l.Order)
}

func number(n uint64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// claim is what the world says by signing the manifest.
func (r *Report) claim() string {
	if r.Only != nil {
		return fmt.Sprintf("that it had batch %d of stream %s, and nothing about the rest", r.Only.Number, r.Only.Stream)
	}
	return "that this is all of the avatar that it had"
}

// Explain says who is trusted for what, and what is not proved.
func (r *Report) Explain() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("Who is trusted for what")
	from := "taken from the bundle itself, so it proves nothing about who that is"
	if r.Pinned {
		from = "the one in the trust file given"
	}
	for _, s := range r.Trust.Senders {
		if s.Shares {
			line("- The world %s signed the frames of what it shares: that these batches, in this order, are what it sent to %s. Which batches of a stream it left out, and why, is not in the bundle. Key %x, %s.", s.Party, s.Audience, []byte(s.Key), from)
			continue
		}
		line("- The things agent %s sealed and signed the frames: that these batches, in this order, are what it sent to %s. Key %x, %s.", s.Party, s.Audience, []byte(s.Key), from)
	}
	for i, w := range r.Trust.Worlds {
		if i > 0 {
			line("- The world %s, where the avatar was before, stated the frames of its streams as received, and signed from whom they came and where they stood. Key %x, %s.", w.Party, []byte(w.Key), from)
			continue
		}
		line("- The world %s stated each frame as received, and signed the manifest: %s. Key %x, %s.", w.Party, r.claim(), []byte(w.Key), from)
	}
	for _, d := range r.Trust.DPMs {
		line("- The DPM %s ran jobs over what the avatar said, and signed what came out. Key %x, %s.", d.Party, []byte(d.Key), from)
	}
	for _, l := range r.Trust.Ledgers {
		line("- The depot %s logged the statements, and signed the checkpoints: that they were on its ledger then. Key %s, %s.", l.Party, l.Key, from)
	}
	if r.Ledger.Checkpoint > 0 {
		line("  The receipts go as far as its checkpoint of %d entries with root %s.", r.Ledger.Checkpoint, r.Ledger.Root)
	}
	line("- Witnesses: none yet. A depot that shows different ledgers to different people is not found out by this bundle.")
	line("What is not proved")
	line("- That a device measured what it says, or when: the agent says so.")
	line("- That the agent sent everything: what it kept back has no number, and the view that the owner chose keeps back much.")
	line("- That it sent no more than that view lets through: the bundle has no view, so what a wider one let through is proved like the rest. Who has the agent's log and views can work it out again.")
	if r.Only != nil {
		line("- Anything about other batches: which there are, before or after this one, and what they hold.")
	} else {
		line("- That the avatar has no other streams: the world can leave out a whole stream, or everything.")
		line("- That nothing came after the last batch: the world says so alone. In between, a missing batch shows by its number.")
	}
	if len(r.LeftOut) > 0 {
		line("- That what was left out of a move by its owner's order was what the next home may not have, or that there is such an order: the world that left it out says so, and names the order by its hash.")
	}
	if len(r.Jobs) > 0 {
		line("- That a job's output is what its program puts out: a DPM, or the world, says so. Who has the inputs can repeat it. That there were no other jobs: the world can leave out any.")
	}
	line("- When something was received: the world says so; the order on the ledger bounds it.")
	line("- That the avatar is the one the streams speak to: the world says so by the manifest's signature.")
	if !r.Pinned {
		line("- Whose keys these are. Somebody who makes up all parties can make up a bundle that holds together.")
	}
	return b.String()
}

// maxJobsShown is how many jobs a summary lists.
const maxJobsShown = 20

// summary says what a job was, and how it ended.
func (j JobOf) summary() string {
	at, over, out := "the world", fmt.Sprintf("%d of its %d inputs made of these batches", j.Own, j.Inputs), ""
	if j.At != "" {
		at = "the DPM " + string(j.At)
	}
	if j.Output != "" {
		out = ", output with the SHA-256 " + j.Output
	}
	return printable(fmt.Sprintf("Job %s of %s at %s, program (%s) with the SHA-256 %s, %s: %s%s.", j.Job, j.Made.Format("2006-01-02 15:04:05 MST"), at, j.Engine, j.Program, over, j.Outcome, out)) + "\n"
}
