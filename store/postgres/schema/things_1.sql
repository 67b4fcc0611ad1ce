-- The things agent (thing.Store). Numbers and ids are clear; idx, body and state
-- are sealed by the agent, so compressing them would be in vain.

-- Counts, so that nothing need be counted, and the numbers given last, so that
-- none is given twice. Every change locks this row first, so that changes come
-- one after the other and a reader that follows numbers meets them all.
CREATE TABLE thing_totals (
    one             integer PRIMARY KEY CHECK (one = 1),
    log_rows        bigint NOT NULL,
    log_next        bigint NOT NULL, -- position of the next message
    sent_frames     bigint NOT NULL,
    sent_batches    bigint NOT NULL,
    refusals        bigint NOT NULL, -- rows kept
    statements      bigint NOT NULL,
    receipts        bigint NOT NULL,
    last_refusal    bigint NOT NULL,
    last_statement  bigint NOT NULL
) WITH (fillfactor = 50);
INSERT INTO thing_totals VALUES (1, 0, 0, 0, 0, 0, 0, 0, 0, 0);

CREATE TABLE thing_log (
    first    bigint PRIMARY KEY, -- position of its first message
    count    bigint NOT NULL,
    received bigint NOT NULL,    -- ns since 1970
    idx      bytea NOT NULL,
    body     bytea NOT NULL
);
ALTER TABLE thing_log ALTER idx SET STORAGE EXTERNAL, ALTER body SET STORAGE EXTERNAL;
CREATE INDEX thing_log_received ON thing_log (received);

CREATE TABLE thing_sent (
    link      text COLLATE "C" NOT NULL,
    number    bigint NOT NULL,
    hash      bytea  NOT NULL,
    time      bigint NOT NULL,
    policy    bigint NOT NULL,
    batches   bigint NOT NULL,
    statement bigint,            -- its row in thing_statement
    header    bytea NOT NULL,
    leaves    bytea NOT NULL,
    state     bytea NOT NULL,
    PRIMARY KEY (link, number)
);
ALTER TABLE thing_sent ALTER header SET STORAGE EXTERNAL, ALTER leaves SET STORAGE EXTERNAL, ALTER state SET STORAGE EXTERNAL;

CREATE TABLE thing_link (
    link   text COLLATE "C" NOT NULL,
    number bigint NOT NULL,
    state  bytea NOT NULL,
    PRIMARY KEY (link, number)
);
ALTER TABLE thing_link ALTER state SET STORAGE EXTERNAL;

CREATE TABLE thing_refusal (
    id    bigint PRIMARY KEY,
    thing text COLLATE "C" NOT NULL,
    time  bigint NOT NULL,
    code  text COLLATE "C" NOT NULL,
    body  bytea NOT NULL
);
ALTER TABLE thing_refusal ALTER body SET STORAGE EXTERNAL;
CREATE INDEX thing_refusal_thing ON thing_refusal (thing, id);

CREATE TABLE thing_refusal_count (
    thing text COLLATE "C" NOT NULL,
    code  text COLLATE "C" NOT NULL,
    count bigint NOT NULL,
    PRIMARY KEY (thing, code)
);

CREATE TABLE thing_document (
    kind    text COLLATE "C" NOT NULL,
    id      text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    body    bytea NOT NULL,
    PRIMARY KEY (kind, id)
);
ALTER TABLE thing_document ALTER body SET STORAGE EXTERNAL;

CREATE TABLE thing_statement (
    id        bigint PRIMARY KEY,
    entry     bytea NOT NULL,
    statement bytea NOT NULL,
    salt      bytea NOT NULL,
    receipt   bytea -- NULL: pending
);
ALTER TABLE thing_statement ALTER statement SET STORAGE EXTERNAL, ALTER receipt SET STORAGE EXTERNAL;
CREATE INDEX thing_statement_pending ON thing_statement (id) WHERE receipt IS NULL;
