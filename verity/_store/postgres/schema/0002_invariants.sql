-- The table of transitions keeps these rules; the database repeats them for whoever reaches around it. The conditions
-- stand in WHEN, so that a function runs only where a rule is broken.
CREATE FUNCTION verity_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '%', TG_ARGV[0] USING ERRCODE = 'integrity_constraint_violation';
END $$;

CREATE TRIGGER effects_committed_is_final BEFORE UPDATE ON effects FOR EACH ROW
WHEN (OLD.status = 'COMMITTED'
    AND (NEW.status <> 'COMMITTED' OR NEW.fence <> OLD.fence OR NEW.source IS DISTINCT FROM OLD.source
         OR NEW.result_sha256 IS DISTINCT FROM OLD.result_sha256
         OR (NEW.result_text IS DISTINCT FROM OLD.result_text AND NEW.purged_at IS NULL)))
EXECUTE FUNCTION verity_refuse('a committed effect never changes');

CREATE TRIGGER effects_fence_rises BEFORE UPDATE ON effects FOR EACH ROW
WHEN (NEW.fence < OLD.fence OR NEW.event_count < OLD.event_count)
EXECUTE FUNCTION verity_refuse('a fence never goes down, and no event is taken back');

CREATE TRIGGER effects_keep_their_name BEFORE UPDATE ON effects FOR EACH ROW
WHEN ((NEW.environment, NEW.namespace, NEW.key_hash, NEW.id) IS DISTINCT FROM
      (OLD.environment, OLD.namespace, OLD.key_hash, OLD.id))
EXECUTE FUNCTION verity_refuse('an effect never gets another name');

CREATE TRIGGER effects_purged_is_final BEFORE UPDATE ON effects FOR EACH ROW
WHEN (OLD.purged_at IS NOT NULL AND (NEW.purged_at IS NULL OR NEW.status <> OLD.status))
EXECUTE FUNCTION verity_refuse('a purged effect never changes');

CREATE TRIGGER effects_stay BEFORE DELETE ON effects FOR EACH ROW
EXECUTE FUNCTION verity_refuse('an effect is never deleted: its key would be acted on again');

CREATE TRIGGER events_never_change BEFORE UPDATE ON events FOR EACH ROW
EXECUTE FUNCTION verity_refuse('an event never changes');

-- One look for each statement, not for each row. The settings keep its plan, which is made once, from reading the whole
-- table, whatever the table's size was on the day when it was made.
CREATE FUNCTION verity_events_have_no_gaps() RETURNS trigger LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    IF EXISTS (
        SELECT FROM fresh
        WHERE fresh.sequence > 1 AND NOT EXISTS (
            SELECT FROM events AS before
            WHERE before.environment = fresh.environment AND before.namespace = fresh.namespace
              AND before.effect = fresh.effect AND before.sequence = fresh.sequence - 1))
    THEN
        RAISE EXCEPTION 'an event before this one is missing' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER events_have_no_gaps AFTER INSERT ON events REFERENCING NEW TABLE AS fresh
FOR EACH STATEMENT EXECUTE FUNCTION verity_events_have_no_gaps();
