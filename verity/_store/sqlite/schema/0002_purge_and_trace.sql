-- A purged effect is COMMITTED without its result, which the old table's check forbids, so the table is made anew.
CREATE TABLE effects_0002 (
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
    trace_parent TEXT,
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
    purged_at INTEGER,
    CHECK ((status = 'COMMITTED') = (result_sha256 IS NOT NULL)),
    CHECK ((status = 'COMMITTED' AND purged_at IS NULL) = (result_text IS NOT NULL)),
    CHECK (status <> 'RUNNING' OR lease_token IS NOT NULL),
    CHECK (purged_at IS NULL OR status IN ('COMMITTED', 'FAILED'))
) STRICT;

-- Until now a reset effect's next grant was always told `reset`; from now on it is told what the row says.
INSERT INTO effects_0002
SELECT id, environment, key_hash, namespace, effect_key, status, fence, lease_token, lease_expires_at,
       lease_duration_ms, idempotency_key, CASE status WHEN 'IDLE' THEN 'reset' ELSE prior_state END, effect_name,
       agent_id, workflow_name, case_id, run_id, NULL, input_text, input_sha256, result_text, result_sha256, error_text,
       error_sha256, source, event_count, created_at, updated_at, NULL
FROM effects;

-- In this order, so that the reference of `events` goes on meaning the table that is called effects.
DROP TABLE effects;
ALTER TABLE effects_0002 RENAME TO effects;

CREATE INDEX effects_by_namespace ON effects (environment, namespace, id);
CREATE INDEX effects_unfinished ON effects (environment, status, lease_expires_at) WHERE status <> 'COMMITTED';
CREATE INDEX effects_by_run ON effects (environment, workflow_name, case_id, run_id) WHERE workflow_name IS NOT NULL;

CREATE TRIGGER effects_committed_is_final BEFORE UPDATE ON effects
WHEN OLD.status = 'COMMITTED'
    AND (NEW.status <> 'COMMITTED' OR NEW.fence <> OLD.fence OR NEW.source IS NOT OLD.source
         OR NEW.result_sha256 IS NOT OLD.result_sha256
         OR (NEW.result_text IS NOT OLD.result_text AND NEW.purged_at IS NULL))
BEGIN SELECT RAISE(ABORT, 'a committed effect never changes'); END;

CREATE TRIGGER effects_fence_rises BEFORE UPDATE OF fence ON effects WHEN NEW.fence < OLD.fence
BEGIN SELECT RAISE(ABORT, 'a fence never goes down'); END;

CREATE TRIGGER effects_purged_is_final BEFORE UPDATE ON effects
WHEN OLD.purged_at IS NOT NULL AND (NEW.purged_at IS NULL OR NEW.status <> OLD.status)
BEGIN SELECT RAISE(ABORT, 'a purged effect never changes'); END;

CREATE TRIGGER effects_stay BEFORE DELETE ON effects
BEGIN SELECT RAISE(ABORT, 'an effect is never deleted: its key would be acted on again'); END;

CREATE TRIGGER events_have_no_gaps BEFORE INSERT ON events
WHEN NEW.sequence > 1
    AND NOT EXISTS (SELECT 1 FROM events WHERE effect = NEW.effect AND sequence = NEW.sequence - 1)
BEGIN SELECT RAISE(ABORT, 'an event before this one is missing'); END;

CREATE TRIGGER events_never_change BEFORE UPDATE ON events
BEGIN SELECT RAISE(ABORT, 'an event never changes'); END;
