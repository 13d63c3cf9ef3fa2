-- Two rules that the database had left to the code.
CREATE TRIGGER effects_keep_their_name BEFORE UPDATE OF id, environment, key_hash, namespace, effect_key ON effects
WHEN (NEW.id, NEW.environment, NEW.key_hash, NEW.namespace, NEW.effect_key)
    IS NOT (OLD.id, OLD.environment, OLD.key_hash, OLD.namespace, OLD.effect_key)
BEGIN SELECT RAISE(ABORT, 'an effect never gets another name'); END;

CREATE TRIGGER events_stay BEFORE DELETE ON events
WHEN (SELECT purged_at FROM effects WHERE id = OLD.effect) IS NULL
BEGIN SELECT RAISE(ABORT, 'events go only with the payloads of their effect'); END;
