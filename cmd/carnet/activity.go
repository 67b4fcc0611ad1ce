package main

import (
	"context"
	"fmt"
	"slices"

	"carnet"
	"carnet/access"
	"carnet/activity"
	"carnet/api"
	"carnet/api/client"
	"carnet/policy"
)

type activityCommand struct {
	reaching
	Of       carnet.PartyID `arg:"" optional:"" placeholder:"PARTY" help:"The party; the same as --party. Default: all."`
	After    *uint64        `placeholder:"NUMBER" help:"Records of one party after this one, oldest first. Default: the newest."`
	Before   *uint64        `placeholder:"NUMBER" help:"Records of one party before this one."`
	Limit    int            `default:"50" help:"At most so many, up to 1000."`
	Who      string         `placeholder:"NAME" help:"Of one principal."`
	Action   policy.Action  `help:"Of one action, such as get-state."`
	Resource string         `placeholder:"ID" help:"About one resource."`
	Refused  bool           `help:"Refusals only."`
	JSON     bool           `help:"As JSON."`
}

// anybody are the roles of tokens by which a party may be asked about what one may, those
// that audit first.
var anybody = []string{auditor, administrator, ownUser, creator, service}

// recordOf is a record with the party that was asked.
type recordOf struct {
	Party carnet.PartyID `json:"party"`
	activity.Record
}

// recorded is what was found at the parties that were asked. Of one party it also says
// where to go on.
type recorded struct {
	Records []recordOf `json:"records"`
	Next    uint64     `json:"next,omitempty"`
	Stopped uint64     `json:"stopped,omitempty"`
}

func (c activityCommand) Run(ctx context.Context, s streams) error {
	r, err := c.reaching.or(c.Of)
	if err != nil {
		return err
	}
	if c.After != nil || c.Before != nil { // a number is one party's
		f, err := r.file()
		if err != nil {
			return err
		}
		p, err := r.meant(f)
		if err != nil {
			return err
		}
		r.Party = p.Name
	}
	found, parties := recorded{Records: []recordOf{}}, 0
	err = r.each(s, anywhere(auditor, administrator), func(p access.Party, cl *client.Client) error {
		list, err := cl.Activity(ctx, activity.Query{After: c.After, Before: c.Before, Limit: c.Limit, Who: c.Who, Action: c.Action, About: c.Resource, Refused: c.Refused})
		if err != nil {
			return err
		}
		for _, one := range list.Records {
			found.Records = append(found.Records, recordOf{p.Name, one})
		}
		parties++
		found.Next, found.Stopped = list.Next, list.Stopped
		c.tellStopped(s, p.Name, list)
		return nil
	})
	if parties > 1 {
		found = newest(found, c.Limit)
	}
	return answered(s, c.JSON, found, err, func() error { return activities(found.Records).list(s, "Nothing of that is recorded.") })
}

// newest are the newest records of several parties, oldest first.
func newest(found recorded, most int) recorded {
	all := found.Records
	slices.SortStableFunc(all, func(p, q recordOf) int { return p.Time.Compare(q.Time) })
	return recorded{Records: all[max(0, len(all)-most):]}
}

// tellStopped says where a search ended before it was through.
func (c activityCommand) tellStopped(s streams, party carnet.PartyID, list api.ActivityList) {
	if list.Stopped == 0 {
		return
	}
	on := "--before"
	if c.After != nil {
		on = "--after"
	}
	fmt.Fprintf(s.err, "The search looked as far as record %d of %s and stopped; go on with --party %[2]s %[3]s %[1]d.\n", list.Stopped, party, on)
}

// activities is records as a table.
func activities(records []recordOf) table {
	t := table{{"NUMBER", "PARTY", "TIME", "WHO", "VIA", "PERMITTED", "RULE", "WHY"}}
	for _, r := range records {
		t.add(fmt.Sprint(r.ID), string(r.Party), clock(r.Time), r.Who.String(), string(r.Via), fmt.Sprint(r.Permitted), r.Rule, r.Why)
	}
	return t
}
