-- The depot's own documents and statements, as every party has them.

CREATE TABLE depot_totals (
    one            INTEGER PRIMARY KEY CHECK (one = 1),
    statements     INTEGER NOT NULL,
    receipts       INTEGER NOT NULL,
    last_statement INTEGER NOT NULL
) STRICT;
INSERT INTO depot_totals VALUES (1, 0, 0, 0);

CREATE TABLE depot_document (
    kind    TEXT    NOT NULL,
    id      TEXT    NOT NULL,
    version INTEGER NOT NULL,
    body    BLOB    NOT NULL,
    PRIMARY KEY (kind, id)
) STRICT;

CREATE TABLE depot_statement (
    id        INTEGER PRIMARY KEY,
    entry     BLOB NOT NULL,
    statement BLOB NOT NULL,
    salt      BLOB NOT NULL,
    receipt   BLOB               -- NULL: pending
) STRICT;
CREATE INDEX depot_statement_pending ON depot_statement (id) WHERE receipt IS NULL;
