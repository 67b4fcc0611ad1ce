-- The activity log (activity.Store): who asked for what. Numbers and times are
-- clear, bodies are sealed by the log.

-- The number given last, so that none is given twice.
CREATE TABLE activity_last (
    one  INTEGER PRIMARY KEY CHECK (one = 1),
    last INTEGER NOT NULL
) STRICT;
INSERT INTO activity_last VALUES (1, 0);

CREATE TABLE activity_row (
    id   INTEGER PRIMARY KEY,
    time INTEGER NOT NULL, -- ns since 1970
    body BLOB NOT NULL
) STRICT;
CREATE INDEX activity_row_time ON activity_row (time);
