-- One row, which the nodes update twice a second: when one of them was last alive, and the latest outages. See
-- verity/_store/postgres/heartbeat.py. A node that does not know the table goes on as before.
CREATE TABLE heartbeat (
    id integer PRIMARY KEY CHECK (id = 1),
    alive_at bigint,
    outages text COLLATE "C" NOT NULL DEFAULT ''
);

INSERT INTO heartbeat (id) VALUES (1);
