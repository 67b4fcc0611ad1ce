package node

import (
	"context"
	"fmt"
	"time"

	"carnet/activity"
	"carnet/policy"
)

// openActivity opens what decides who may do what, and what is remembered of it.
func (n *Node) openActivity(ctx context.Context) error {
	files, err := n.policyFiles(n.config.Roles.Policies)
	if err != nil {
		return err
	}
	authorizer, err := policy.NewAuthorizer(files, n.config.Roles.Replace)
	if err != nil {
		return fmt.Errorf("roles: %w", err)
	}
	store, err := n.stores.activity(ctx)
	if err != nil {
		return err
	}
	log, err := activity.NewLog(ctx, activity.Config{Store: store, Keys: n.table, Keep: time.Duration(n.config.Activity.Keep), Log: n.log})
	if err != nil {
		return err
	}
	n.work = append(n.work, log.Run)
	n.activity, n.guard = log, &activity.Guard{Authorizer: authorizer, Recorder: log, Log: n.log}
	return nil
}

// policyFiles reads Cedar files that the configuration names.
func (n *Node) policyFiles(names []string) (map[string][]byte, error) {
	files := make(map[string][]byte)
	for _, name := range names {
		data, err := readOwn(n.config.path(name))
		if err != nil {
			return nil, fmt.Errorf("read policies: %w", err)
		}
		files[name] = data
	}
	return files, nil
}
