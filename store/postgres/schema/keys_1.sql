-- The key table (keys.Store). Ids are clear, keys are wrapped.

CREATE TABLE key_row (
    kind    text COLLATE "C" NOT NULL,
    name    text COLLATE "C" NOT NULL,
    wrapped bytea NOT NULL,
    PRIMARY KEY (kind, name)
);
