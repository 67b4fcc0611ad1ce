package move

import "fmt"

// visit looks at all scenes that may come of one, by the steps that are next of each, until
// one is wrong; it says why, and how many it saw.
func visit[S comparable](start S, next func(of *S, into []S) []S, wrong func(*S) string) (visited int, why string) {
	seen := map[S]struct{}{start: {}}
	var follow []S
	for queue := []S{start}; len(queue) > 0; {
		s := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		follow = next(&s, follow[:0])
		for i := range follow {
			n := follow[i]
			if _, ok := seen[n]; ok {
				continue
			}
			seen[n] = struct{}{}
			if why = wrong(&n); why != "" {
				return len(seen), fmt.Sprintf("%s: from %+v to %+v", why, s, n)
			}
			queue = append(queue, n)
		}
	}
	return len(seen), ""
}
