-- The DPM's (dpm.Store) documents and statements, as every party has them. Every change
-- of them locks the row of dpm_totals first, so that changes come one after the
-- other and a reader that follows numbers meets them all.

CREATE TABLE dpm_totals (
    one            integer PRIMARY KEY CHECK (one = 1),
    statements     bigint NOT NULL,
    receipts       bigint NOT NULL,
    last_statement bigint NOT NULL
) WITH (fillfactor = 50);
INSERT INTO dpm_totals VALUES (1, 0, 0, 0);

CREATE TABLE dpm_document (
    kind    text COLLATE "C" NOT NULL,
    id      text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    body    bytea NOT NULL,
    PRIMARY KEY (kind, id)
);
ALTER TABLE dpm_document ALTER body SET STORAGE EXTERNAL;

CREATE TABLE dpm_statement (
    id        bigint PRIMARY KEY,
    entry     bytea NOT NULL,
    statement bytea NOT NULL,
    salt      bytea NOT NULL,
    receipt   bytea -- NULL: pending
);
ALTER TABLE dpm_statement ALTER statement SET STORAGE EXTERNAL, ALTER receipt SET STORAGE EXTERNAL;
CREATE INDEX dpm_statement_pending ON dpm_statement (id) WHERE receipt IS NULL;
