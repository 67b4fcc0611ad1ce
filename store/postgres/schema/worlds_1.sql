-- The avatar agent (avatar.Store). Batches are ciphertext as they came, so
-- compressing them would be in vain; ids and numbers are clear.

-- Counts, so that nothing need be counted, and the numbers given last, so that
-- none is given twice. Every change locks this row first, so that changes come
-- one after the other and a reader that follows ids meets them all.
CREATE TABLE world_totals (
    one            integer PRIMARY KEY CHECK (one = 1),
    frames         bigint NOT NULL,
    bodies         bigint NOT NULL, -- frames that hold their bodies
    batches        bigint NOT NULL, -- received in frames, ever
    stretches      bigint NOT NULL,
    stretch_bytes  bigint NOT NULL,
    statements     bigint NOT NULL,
    receipts       bigint NOT NULL,
    last_frame     bigint NOT NULL,
    last_stretch   bigint NOT NULL,
    last_statement bigint NOT NULL
) WITH (fillfactor = 50);
INSERT INTO world_totals VALUES (1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);

CREATE TABLE world_link (
    sender      text COLLATE "C" PRIMARY KEY,
    nonce       bytea  NOT NULL,
    incarnation bigint NOT NULL,
    number      bigint NOT NULL,
    hash        bytea  NOT NULL,
    covers      bytea  NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE world_frame (
    id          bigint PRIMARY KEY,
    sender      text COLLATE "C" NOT NULL,
    incarnation bigint NOT NULL,
    number      bigint NOT NULL,
    parent      bytea  NOT NULL,
    hash        bytea  NOT NULL,
    covers      bytea  NOT NULL,
    received    bigint NOT NULL,
    batches     bigint NOT NULL,
    statement   bigint,            -- its row in world_statement
    header      bytea NOT NULL,
    leaves      bytea NOT NULL,
    UNIQUE (sender, number)
);
ALTER TABLE world_frame ALTER header SET STORAGE EXTERNAL, ALTER leaves SET STORAGE EXTERNAL;

-- Bodies stand apart: they go when their batches have moved into stretches.
CREATE TABLE world_frame_body (
    frame bigint PRIMARY KEY,
    body  bytea NOT NULL
);
ALTER TABLE world_frame_body ALTER body SET STORAGE EXTERNAL;

CREATE TABLE world_stretch (
    id           bigint PRIMARY KEY,
    stream       bytea  NOT NULL,
    class        smallint NOT NULL,
    first_batch  bigint NOT NULL,
    last_batch   bigint NOT NULL,
    batches      bigint NOT NULL,
    measurements bigint NOT NULL,
    from_minute  bigint NOT NULL,
    to_minute    bigint NOT NULL,
    received     bigint NOT NULL,
    size         bigint NOT NULL, -- bytes of the body
    stored       boolean NOT NULL, -- the depot holds it
    fingerprint  bytea  NOT NULL,
    origins      bytea NOT NULL
);
ALTER TABLE world_stretch ALTER origins SET STORAGE EXTERNAL;
CREATE INDEX world_stretch_stream ON world_stretch (stream, to_minute, from_minute);
CREATE INDEX world_stretch_age ON world_stretch (class, received);
CREATE INDEX world_stretch_unstored ON world_stretch (id) WHERE NOT stored;

CREATE TABLE world_stretch_body (
    stretch bigint PRIMARY KEY,
    body    bytea NOT NULL
);
ALTER TABLE world_stretch_body ALTER body SET STORAGE EXTERNAL;

CREATE TABLE world_document (
    kind    text COLLATE "C" NOT NULL,
    id      text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    body    bytea NOT NULL,
    PRIMARY KEY (kind, id)
);
ALTER TABLE world_document ALTER body SET STORAGE EXTERNAL;

CREATE TABLE world_statement (
    id        bigint PRIMARY KEY,
    entry     bytea NOT NULL,
    statement bytea NOT NULL,
    salt      bytea NOT NULL,
    receipt   bytea -- NULL: pending
);
ALTER TABLE world_statement ALTER statement SET STORAGE EXTERNAL, ALTER receipt SET STORAGE EXTERNAL;
CREATE INDEX world_statement_pending ON world_statement (id) WHERE receipt IS NULL;
