-- Two rules that the database had left to the code.
DROP TRIGGER effects_keep_their_name ON effects;

CREATE TRIGGER effects_keep_their_name BEFORE UPDATE ON effects FOR EACH ROW
WHEN ((NEW.environment, NEW.namespace, NEW.key_hash, NEW.id, NEW.effect_key) IS DISTINCT FROM
      (OLD.environment, OLD.namespace, OLD.key_hash, OLD.id, OLD.effect_key))
EXECUTE FUNCTION verity_refuse('an effect never gets another name');

-- After the statement, which marks effects as purged and drops their events at once. The settings: as in 0002.
CREATE FUNCTION verity_events_stay() RETURNS trigger LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    IF EXISTS (
        SELECT FROM gone
        WHERE NOT EXISTS (SELECT FROM effects WHERE effects.id = gone.effect AND effects.purged_at IS NOT NULL))
    THEN
        RAISE EXCEPTION 'events go only with the payloads of their effect'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER events_stay AFTER DELETE ON events REFERENCING OLD TABLE AS gone
FOR EACH STATEMENT EXECUTE FUNCTION verity_events_stay();
