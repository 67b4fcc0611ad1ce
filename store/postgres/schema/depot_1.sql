-- The depot (depot.Store): who has stored which sealed object, and which ledger
-- entry is which leaf. Bodies are files beside the store.

CREATE TABLE depot_object (
    owner       text COLLATE "C" NOT NULL,
    fingerprint bytea  NOT NULL,
    size        bigint NOT NULL,
    time        bigint NOT NULL, -- µs since 1970
    retention   smallint NOT NULL,
    PRIMARY KEY (owner, fingerprint)
);
CREATE INDEX depot_object_fingerprint ON depot_object (fingerprint);

-- Counts for each owner, so that nothing need be counted.
CREATE TABLE depot_owner (
    owner   text COLLATE "C" PRIMARY KEY,
    objects bigint NOT NULL,
    bytes   bigint NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE depot_leaf (
    entry bytea PRIMARY KEY,
    leaf  bigint NOT NULL
);

CREATE TABLE depot_indexed (
    one  integer PRIMARY KEY CHECK (one = 1),
    next bigint NOT NULL -- leaves recorded
) WITH (fillfactor = 50);
INSERT INTO depot_indexed VALUES (1, 0);
