package postgres

import (
	"context"
	"embed"
	"fmt"
	"io/fs"

	"carnet"
)

// Each domain's schema is a row of files, schema/DOMAIN_N.sql: number 1 makes
// the tables, each further one brings them from version N-1 to N. A file that
// was ever released never changes.
//
//go:embed schema/*.sql
var schemas embed.FS

// migrate brings a domain's tables to the newest version there is a file for,
// all steps in one transaction. Tables of a newer program are refused.
func (db *DB) migrate(ctx context.Context, files fs.FS, domain string) error {
	return db.change(ctx, "migrate "+domain, func(t *tx) error {
		t.exec(`LOCK TABLE schema_version IN ACCESS EXCLUSIVE MODE`)
		var have, newest int
		t.row(`SELECT version FROM schema_version WHERE domain = $1`, []any{domain}, &have)
		for ; ; newest++ {
			step, err := fs.ReadFile(files, fmt.Sprintf("schema/%s_%d.sql", domain, newest+1))
			if err != nil {
				break
			}
			if newest >= have && t.err == nil {
				_, t.err = t.tx.Conn().PgConn().Exec(t.ctx, string(step)).ReadAll()
			}
		}
		if newest < have {
			return carnet.Errorf(carnet.Conflict, "the store's %s have schema version %d and this program knows %d", domain, have, newest).
				WithFix("start the newer carnet that wrote it")
		}
		t.exec(`INSERT INTO schema_version (domain, version) VALUES ($1, $2) ON CONFLICT (domain) DO UPDATE SET version = $2`, domain, newest)
		return nil
	})
}
