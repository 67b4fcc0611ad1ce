-- A depot's register (register.Store): its changes, and which of them says last
-- where a home is, or decided a crossing. Statements are in the depot's outbox,
-- whose row of totals every change locks first.

CREATE TABLE register_change (
    number    bigint PRIMARY KEY,
    statement bigint NOT NULL, -- depot_statement
    body      bytea  NOT NULL
);
ALTER TABLE register_change ALTER body SET STORAGE EXTERNAL;

CREATE TABLE register_home (
    home   bytea PRIMARY KEY,
    change bigint NOT NULL
);

CREATE TABLE register_crossing (
    crossing bytea PRIMARY KEY,
    change   bigint NOT NULL
);
