-- A store as version 1 of every domain's schema wrote it. Frozen: never change this
-- file; a new schema version must be able to open it.
CREATE TABLE schema_version (domain TEXT PRIMARY KEY, version INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO schema_version VALUES ('things', 1), ('worlds', 1), ('depot', 1), ('keys', 1);

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

-- The avatar agent (avatar.Store). Batches are ciphertext as they came; ids and
-- numbers are clear.

-- Counts, so that nothing need be counted, and the numbers given last, so that
-- none is given twice. Every change reads and writes this row.
CREATE TABLE world_totals (
    one            INTEGER PRIMARY KEY CHECK (one = 1),
    frames         INTEGER NOT NULL,
    bodies         INTEGER NOT NULL, -- frames that hold their bodies
    batches        INTEGER NOT NULL, -- received in frames, ever
    stretches      INTEGER NOT NULL,
    stretch_bytes  INTEGER NOT NULL,
    statements     INTEGER NOT NULL,
    receipts       INTEGER NOT NULL,
    last_frame     INTEGER NOT NULL,
    last_stretch   INTEGER NOT NULL,
    last_statement INTEGER NOT NULL
) STRICT;
INSERT INTO world_totals VALUES (1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);

CREATE TABLE world_link (
    sender      TEXT PRIMARY KEY,
    nonce       BLOB    NOT NULL,
    incarnation INTEGER NOT NULL,
    number      INTEGER NOT NULL,
    hash        BLOB    NOT NULL,
    covers      BLOB    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE world_frame (
    id          INTEGER PRIMARY KEY,
    sender      TEXT    NOT NULL,
    incarnation INTEGER NOT NULL,
    number      INTEGER NOT NULL,
    parent      BLOB    NOT NULL,
    hash        BLOB    NOT NULL,
    covers      BLOB    NOT NULL,
    received    INTEGER NOT NULL,
    batches     INTEGER NOT NULL,
    statement   INTEGER,            -- its row in world_statement
    header      BLOB    NOT NULL,
    leaves      BLOB    NOT NULL,
    UNIQUE (sender, number)
) STRICT;

-- Bodies stand apart: they go when their batches have moved into stretches.
CREATE TABLE world_frame_body (
    frame INTEGER PRIMARY KEY,
    body  BLOB NOT NULL
) STRICT;

CREATE TABLE world_stretch (
    id           INTEGER PRIMARY KEY,
    stream       BLOB    NOT NULL,
    class        INTEGER NOT NULL,
    first_batch  INTEGER NOT NULL,
    last_batch   INTEGER NOT NULL,
    batches      INTEGER NOT NULL,
    measurements INTEGER NOT NULL,
    from_minute  INTEGER NOT NULL,
    to_minute    INTEGER NOT NULL,
    received     INTEGER NOT NULL,
    size         INTEGER NOT NULL, -- bytes of the body
    stored       INTEGER NOT NULL, -- 1: the depot holds it
    fingerprint  BLOB    NOT NULL,
    origins      BLOB    NOT NULL
) STRICT;
CREATE INDEX world_stretch_stream ON world_stretch (stream, to_minute, from_minute);
CREATE INDEX world_stretch_age ON world_stretch (class, received);
CREATE INDEX world_stretch_unstored ON world_stretch (id) WHERE stored = 0;

CREATE TABLE world_stretch_body (
    stretch INTEGER PRIMARY KEY,
    body    BLOB NOT NULL
) STRICT;

CREATE TABLE world_document (
    kind    TEXT    NOT NULL,
    id      TEXT    NOT NULL,
    version INTEGER NOT NULL,
    body    BLOB    NOT NULL,
    PRIMARY KEY (kind, id)
) STRICT;

CREATE TABLE world_statement (
    id        INTEGER PRIMARY KEY,
    entry     BLOB NOT NULL,
    statement BLOB NOT NULL,
    salt      BLOB NOT NULL,
    receipt   BLOB               -- NULL: pending
) STRICT;
CREATE INDEX world_statement_pending ON world_statement (id) WHERE receipt IS NULL;

-- The depot (depot.Store): who has stored which sealed object, and which ledger
-- entry is which leaf. Bodies are files beside the store.

CREATE TABLE depot_object (
    owner       TEXT    NOT NULL,
    fingerprint BLOB    NOT NULL,
    size        INTEGER NOT NULL,
    time        INTEGER NOT NULL, -- µs since 1970
    retention   INTEGER NOT NULL,
    PRIMARY KEY (owner, fingerprint)
) STRICT, WITHOUT ROWID;
CREATE INDEX depot_object_fingerprint ON depot_object (fingerprint);

-- Counts for each owner, so that nothing need be counted.
CREATE TABLE depot_owner (
    owner   TEXT PRIMARY KEY,
    objects INTEGER NOT NULL,
    bytes   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE depot_leaf (
    entry BLOB PRIMARY KEY,
    leaf  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE depot_indexed (
    one  INTEGER PRIMARY KEY CHECK (one = 1),
    next INTEGER NOT NULL -- leaves recorded
) STRICT;
INSERT INTO depot_indexed VALUES (1, 0);

-- The key table (keys.Store). Ids are clear, keys are wrapped.

CREATE TABLE key_row (
    kind    TEXT NOT NULL,
    name    TEXT NOT NULL,
    wrapped BLOB NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;

-- Rows.
INSERT INTO thing_log VALUES (5, 2, 1700000000123456789, x'00', x'626f647900');
INSERT INTO thing_sent VALUES ('arena', 1, zeroblob(32), 1, 2, 3, 1, x'01', x'02', x'03');
INSERT INTO thing_statement VALUES (1, x'1111111111111111111111111111111111111111111111111111111111111111', CAST('statement' AS BLOB), x'00', CAST('receipt' AS BLOB));
UPDATE thing_totals SET log_rows = 1, log_next = 7, sent_frames = 1, sent_batches = 3, statements = 1, receipts = 1, last_statement = 1;
INSERT INTO world_link VALUES ('hub', zeroblob(16), 1, 1, zeroblob(32), zeroblob(16));
INSERT INTO world_frame VALUES (1, 'hub', 1, 1, zeroblob(32), zeroblob(32), zeroblob(16), 5, 1, NULL, x'01', x'');
INSERT INTO world_frame_body VALUES (1, CAST('batches' AS BLOB));
INSERT INTO world_stretch VALUES (1, zeroblob(16), 2, 1, 1, 1, 1, 0, 1, 5, 7, 0, zeroblob(32), x'');
INSERT INTO world_stretch_body VALUES (1, CAST('stretch' AS BLOB));
UPDATE world_totals SET frames = 1, bodies = 1, batches = 1, stretches = 1, stretch_bytes = 7, last_frame = 1, last_stretch = 1;
INSERT INTO depot_object VALUES ('arena', x'abababababababababababababababababababababababababababababababab', 1234, 1700000000123456, 4);
INSERT INTO depot_owner VALUES ('arena', 1, 1234);
INSERT INTO key_row VALUES ('epoch', 'a', CAST('wrapped' AS BLOB));
