-- Effects are in order of creation (the id is time-ordered), so that new rows land at one end of the table whatever
-- their keys are; the only random writes are those of the 16-byte key hash.
CREATE TABLE effects (
    id INTEGER PRIMARY KEY,
    environment TEXT NOT NULL CHECK (environment IN ('live', 'test')),
    key_hash BLOB NOT NULL UNIQUE,
    namespace TEXT NOT NULL,
    effect_key TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('IDLE', 'RUNNING', 'COMMITTED', 'FAILED')),
    fence INTEGER NOT NULL CHECK (fence >= 1),
    lease_token TEXT,
    lease_expires_at INTEGER NOT NULL,
    lease_duration_ms INTEGER NOT NULL,
    idempotency_key TEXT,
    prior_state TEXT NOT NULL,
    effect_name TEXT,
    agent_id TEXT,
    workflow_name TEXT,
    case_id TEXT,
    run_id TEXT,
    input_text TEXT,
    input_sha256 TEXT,
    result_text TEXT,
    result_sha256 TEXT,
    error_text TEXT,
    error_sha256 TEXT,
    source TEXT,
    event_count INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    CHECK ((status = 'COMMITTED') = (result_text IS NOT NULL)),
    CHECK (status <> 'RUNNING' OR lease_token IS NOT NULL)
) STRICT;

CREATE INDEX effects_by_namespace ON effects (environment, namespace, id);
CREATE INDEX effects_unfinished ON effects (environment, status, lease_expires_at) WHERE status <> 'COMMITTED';
CREATE INDEX effects_by_run ON effects (environment, workflow_name, case_id, run_id) WHERE workflow_name IS NOT NULL;

-- The table of transitions keeps these rules; the database repeats them for whoever reaches around it.
CREATE TRIGGER effects_committed_is_final BEFORE UPDATE ON effects
WHEN OLD.status = 'COMMITTED' AND (NEW.status <> 'COMMITTED' OR NEW.result_text IS NOT OLD.result_text
                                   OR NEW.fence <> OLD.fence OR NEW.source IS NOT OLD.source)
BEGIN SELECT RAISE(ABORT, 'a committed effect never changes'); END;

CREATE TRIGGER effects_fence_rises BEFORE UPDATE OF fence ON effects WHEN NEW.fence < OLD.fence
BEGIN SELECT RAISE(ABORT, 'a fence never goes down'); END;

CREATE TABLE events (
    effect INTEGER NOT NULL REFERENCES effects (id),
    sequence INTEGER NOT NULL,
    type TEXT NOT NULL,
    at INTEGER NOT NULL,
    fence INTEGER NOT NULL,
    agent_id TEXT,
    run_id TEXT,
    detail TEXT NOT NULL,
    PRIMARY KEY (effect, sequence)
) STRICT, WITHOUT ROWID;

CREATE TABLE api_keys (
    id TEXT PRIMARY KEY,
    sha256 BLOB NOT NULL UNIQUE,
    environment TEXT NOT NULL CHECK (environment IN ('live', 'test')),
    role TEXT NOT NULL CHECK (role IN ('agent', 'org_admin')),
    namespaces TEXT,
    name TEXT,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER
) STRICT;
