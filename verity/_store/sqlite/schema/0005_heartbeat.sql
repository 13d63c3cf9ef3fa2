-- One row: when a node was last alive, how far the clock was from one that is never set, and the latest outages. See
-- verity/_store/sqlite/heartbeat.py. A program that does not know the table goes on as before.
CREATE TABLE heartbeat (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    alive_at INTEGER,
    boot TEXT,
    clock_offset INTEGER NOT NULL DEFAULT 0,
    offset_at INTEGER NOT NULL DEFAULT 0,
    outages TEXT NOT NULL DEFAULT ''
) STRICT;

INSERT INTO heartbeat (id) VALUES (1);
