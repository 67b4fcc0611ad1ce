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
