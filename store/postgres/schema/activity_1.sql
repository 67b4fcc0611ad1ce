-- The activity log (activity.Store): who asked for what. Numbers and times are
-- clear, bodies are sealed by the log.

-- The number given last, so that none is given twice. Every change locks this row.
CREATE TABLE activity_last (
    one  integer PRIMARY KEY CHECK (one = 1),
    last bigint NOT NULL
);
INSERT INTO activity_last VALUES (1, 0);

CREATE TABLE activity_row (
    id   bigint PRIMARY KEY,
    time bigint NOT NULL, -- ns since 1970
    body bytea NOT NULL
);
CREATE INDEX activity_row_time ON activity_row (time);
