-- A depot's register (register.Store): its changes, and which of them says last
-- where a home is, or decided a crossing. Statements are in the depot's outbox.

CREATE TABLE register_change (
    number    INTEGER PRIMARY KEY,
    statement INTEGER NOT NULL, -- depot_statement
    body      BLOB    NOT NULL
) STRICT;

CREATE TABLE register_home (
    home   BLOB PRIMARY KEY,
    change INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE register_crossing (
    crossing BLOB PRIMARY KEY,
    change   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
