-- Large bodies are files beside the store (docs/design/store.md). Those that are in
-- rows by now stay there.

-- The id of this database, which the directory of its files has, too.
CREATE TABLE world_bodies (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    id  TEXT NOT NULL
) STRICT;

-- Bodies whose stretches are gone, and whose files are to be deleted. An id is never
-- given again: who deletes a file removes the row that told of it, and no other.
CREATE TABLE world_body_ended (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    fingerprint BLOB NOT NULL
) STRICT;

-- Which stretches name a file: those of at least 128 KiB.
CREATE INDEX world_stretch_file ON world_stretch (fingerprint) WHERE size >= 131072;
