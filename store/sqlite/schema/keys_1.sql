-- The key table (keys.Store). Ids are clear, keys are wrapped.

CREATE TABLE key_row (
    kind    TEXT NOT NULL,
    name    TEXT NOT NULL,
    wrapped BLOB NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;
