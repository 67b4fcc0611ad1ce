-- The things agent (thing.Store). Numbers and ids are clear; idx, body and state
-- are sealed by the agent.

-- Counts, so that nothing need be counted, and the numbers given last, so that
-- none is given twice. Every change reads and writes this row.
CREATE TABLE thing_totals (
    one             INTEGER PRIMARY KEY CHECK (one = 1),
    log_rows        INTEGER NOT NULL,
    log_next        INTEGER NOT NULL, -- position of the next message
    sent_frames     INTEGER NOT NULL,
    sent_batches    INTEGER NOT NULL,
    refusals        INTEGER NOT NULL, -- rows kept
    statements      INTEGER NOT NULL,
    receipts        INTEGER NOT NULL,
    last_refusal    INTEGER NOT NULL,
    last_statement  INTEGER NOT NULL
) STRICT;
INSERT INTO thing_totals VALUES (1, 0, 0, 0, 0, 0, 0, 0, 0, 0);

CREATE TABLE thing_log (
    first    INTEGER PRIMARY KEY, -- position of its first message
    count    INTEGER NOT NULL,
    received INTEGER NOT NULL,    -- ns since 1970
    idx      BLOB NOT NULL,
    body     BLOB NOT NULL
) STRICT;
CREATE INDEX thing_log_received ON thing_log (received);

CREATE TABLE thing_sent (
    link      TEXT    NOT NULL,
    number    INTEGER NOT NULL,
    hash      BLOB    NOT NULL,
    time      INTEGER NOT NULL,
    policy    INTEGER NOT NULL,
    batches   INTEGER NOT NULL,
    statement INTEGER,            -- its row in thing_statement
    header    BLOB    NOT NULL,
    leaves    BLOB    NOT NULL,
    state     BLOB    NOT NULL,
    PRIMARY KEY (link, number)
) STRICT;

CREATE TABLE thing_link (
    link   TEXT    NOT NULL,
    number INTEGER NOT NULL,
    state  BLOB    NOT NULL,
    PRIMARY KEY (link, number)
) STRICT;

CREATE TABLE thing_refusal (
    id    INTEGER PRIMARY KEY,
    thing TEXT    NOT NULL,
    time  INTEGER NOT NULL,
    code  TEXT    NOT NULL,
    body  BLOB    NOT NULL
) STRICT;
CREATE INDEX thing_refusal_thing ON thing_refusal (thing, id);

CREATE TABLE thing_refusal_count (
    thing TEXT    NOT NULL,
    code  TEXT    NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (thing, code)
) STRICT, WITHOUT ROWID;

CREATE TABLE thing_document (
    kind    TEXT    NOT NULL,
    id      TEXT    NOT NULL,
    version INTEGER NOT NULL,
    body    BLOB    NOT NULL,
    PRIMARY KEY (kind, id)
) STRICT;

CREATE TABLE thing_statement (
    id        INTEGER PRIMARY KEY,
    entry     BLOB NOT NULL,
    statement BLOB NOT NULL,
    salt      BLOB NOT NULL,
    receipt   BLOB               -- NULL: pending
) STRICT;
CREATE INDEX thing_statement_pending ON thing_statement (id) WHERE receipt IS NULL;
