-- See the fields of `Effect` in verity/_ledger/effect.py.
ALTER TABLE effects ADD COLUMN settles_at INTEGER;
ALTER TABLE effects ADD COLUMN doubt_since INTEGER;
ALTER TABLE effects ADD COLUMN retries INTEGER NOT NULL DEFAULT 0;
ALTER TABLE effects ADD COLUMN attempt INTEGER NOT NULL DEFAULT 1;

-- The fence counts the grants, and the resets of running effects. No better number of an effect's grants is known.
UPDATE effects SET attempt = fence WHERE fence > 1;

-- An older program does not know when a released effect has settled, so it must not grant one. It does not count grants.
CREATE TRIGGER effects_count_their_grants BEFORE UPDATE OF fence ON effects
WHEN NEW.status = 'RUNNING' AND NEW.fence > OLD.fence AND NEW.attempt <= OLD.attempt
BEGIN SELECT RAISE(ABORT, 'a grant was not counted: an older Verity must not use this ledger'); END;
