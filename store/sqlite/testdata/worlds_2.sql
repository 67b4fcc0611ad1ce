-- The tables of worlds as version 2 of their schema had them, with large bodies in rows.
-- Frozen: never change this file; a new schema version must be able to open it.
CREATE TABLE schema_version (domain TEXT PRIMARY KEY, version INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO schema_version VALUES ('worlds', 2);

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

-- A stream's stretches in the order of their batches, page by page.
CREATE INDEX world_stretch_order ON world_stretch (stream, first_batch, id);

INSERT INTO world_stretch VALUES (1, zeroblob(16), 2, 1, 1, 1, 1, 0, 1, 5, 400000, 0, x'fc9d40e82716e77f8021a7b03a3b78af1704e8cea8841f8d4e76c55f4334eb15', x'');
INSERT INTO world_stretch_body VALUES (1, CAST(replace(hex(zeroblob(50000)), '00', 'stretch ') AS BLOB));
INSERT INTO world_stretch VALUES (2, zeroblob(16), 2, 2, 2, 1, 1, 0, 1, 6, 400000, 1, x'cb39ed8e8df6e3d89e095e07982003296289200e382b39d7d02cfd65a26a9d46', x'');
INSERT INTO world_stretch_body VALUES (2, CAST(replace(hex(zeroblob(50000)), '00', 'another ') AS BLOB));
UPDATE world_totals SET stretches = 2, stretch_bytes = 800000, last_stretch = 2;
