-- The DPM's (dpm.Store) documents and statements, as every party has them.

CREATE TABLE dpm_totals (
    one            INTEGER PRIMARY KEY CHECK (one = 1),
    statements     INTEGER NOT NULL,
    receipts       INTEGER NOT NULL,
    last_statement INTEGER NOT NULL
) STRICT;
INSERT INTO dpm_totals VALUES (1, 0, 0, 0);

CREATE TABLE dpm_document (
    kind    TEXT    NOT NULL,
    id      TEXT    NOT NULL,
    version INTEGER NOT NULL,
    body    BLOB    NOT NULL,
    PRIMARY KEY (kind, id)
) STRICT;

CREATE TABLE dpm_statement (
    id        INTEGER PRIMARY KEY,
    entry     BLOB NOT NULL,
    statement BLOB NOT NULL,
    salt      BLOB NOT NULL,
    receipt   BLOB               -- NULL: pending
) STRICT;
CREATE INDEX dpm_statement_pending ON dpm_statement (id) WHERE receipt IS NULL;
