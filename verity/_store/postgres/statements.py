"""The SQL statements. Each carries out a whole batch in one round trip and one transaction.

Times come from the database's clock, which is read while the statement runs. So all nodes have the same time. A row's
version is its `event_count`: every change adds an event. A compare-and-set is an UPDATE that demands the version that
was read.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import NamedTuple

from verity._ledger.commands import REPORTS_AMONG
from verity._ledger.effect import ROW, Effect, Labels, to_row
from verity._store.events import EVENT_COLUMNS
from verity._store.names import COLUMNS
from verity._store.purging import DUE, PURGED, Purge
from verity._store.view import Dialect

CLOCK = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
"""The database's clock, in ms since 1970."""
DIALECT = Dialect(
    contains="strpos({0}, ?) > 0",
    namespace="environment || '/' || namespace",
    namespace_value="{environment}/{namespace}",
    event_owner={"environment": "environment", "namespace": "namespace", "effect": "id"},
)

_TYPES = {
    "id": "bigint",
    "fence": "bigint",
    "lease_expires_at": "bigint",
    "lease_duration_ms": "integer",
    "event_count": "integer",
    "updated_at": "bigint",
    "settles_at": "bigint",
    "doubt_since": "bigint",
    "retries": "integer",
    "attempt": "integer",
    "key_hash": "bytea",
    "sequence": "integer",
    "at": "bigint",
    "n": "integer",
    "known_count": "integer",
}


def _unnest(names: tuple[str, ...], first: int = 1) -> str:
    """A FROM item: rows made of one array for each column."""
    arrays = ", ".join(f"${number}::{_TYPES.get(name, 'text')}[]" for number, name in enumerate(names, first))
    return f"unnest({arrays}) AS wanted({', '.join(names)})"


_NAME = ("environment", "namespace", "key_hash")
_IS_NAMED = " AND ".join(f"effects.{name} = wanted.{name}" for name in _NAME)

GRANT_COLUMNS = (
    *(*_NAME, "id", "effect_key", "lease_token", "lease_duration_ms", "idempotency_key"),
    *(*Labels._fields, "input_text", "input_sha256"),
)
_GRANTED = ", ".join(GRANT_COLUMNS)

_GRANT = f"""
WITH clock AS MATERIALIZED (SELECT :clock AS now),
granted AS (
    INSERT INTO effects ({_GRANTED}, status, fence, prior_state, event_count, lease_expires_at, created_at, updated_at)
    SELECT {_GRANTED}, 'RUNNING', 1, 'none', 1, clock.now + lease_duration_ms, clock.now, clock.now
    FROM {_unnest(GRANT_COLUMNS)}, clock
    ON CONFLICT DO NOTHING
    RETURNING environment, namespace, id, created_at, lease_duration_ms, lease_expires_at, agent_id, run_id
), recorded AS (
    INSERT INTO events (environment, namespace, effect, {", ".join(EVENT_COLUMNS)})
    SELECT environment, namespace, id, 1, 'LEASE_GRANTED', created_at, 1, agent_id, run_id,
        '{{"priorState":"none","leaseDurationMs":' || lease_duration_ms
        || ',"leaseExpiresAt":' || lease_expires_at || '}}'
    FROM granted
)
SELECT id, created_at FROM granted
"""

COMMIT_COLUMNS = ("n", *_NAME, "fence", "lease_token", "result_text", "result_sha256", "source", "run_id", "detail")

_COMMIT = f"""
WITH committed AS (
    UPDATE effects SET status = 'COMMITTED', result_text = wanted.result_text, result_sha256 = wanted.result_sha256,
        source = wanted.source, event_count = effects.event_count + 1, updated_at = :clock
    FROM {_unnest(COMMIT_COLUMNS)}
    WHERE {_IS_NAMED} AND effects.fence = wanted.fence AND effects.lease_token = wanted.lease_token
        AND effects.status || '' = 'RUNNING' -- not `status =`: see the indexes of the lists in 0001_effects.sql
    RETURNING wanted.n, effects.environment, effects.namespace, effects.id, effects.event_count, effects.updated_at,
        effects.fence, effects.agent_id, coalesce(wanted.run_id, effects.run_id) AS run_id, wanted.detail
), recorded AS (
    INSERT INTO events (environment, namespace, effect, {", ".join(EVENT_COLUMNS)})
    SELECT environment, namespace, id, event_count, 'COMMITTED', updated_at, fence, agent_id, run_id, detail
    FROM committed
)
SELECT n, id FROM committed
"""
_READ = f"""
SELECT wanted.n::integer, :clock, coalesce(current_setting('synchronous_standby_names', true), '') <> '',
    CASE WHEN wanted.counts_reports THEN (
        SELECT count(*) FROM events
        WHERE events.environment = effects.environment AND events.namespace = effects.namespace
            AND events.effect = effects.id AND events.sequence > effects.event_count - {REPORTS_AMONG}
            AND events.fence = effects.fence AND events.type IN ('OBSERVE_HIT', 'OBSERVE_MISS')
    ) ELSE 0 END::integer,
    CASE WHEN wanted.asks_for_outages THEN (SELECT alive_at FROM heartbeat) END,
    CASE WHEN wanted.asks_for_outages THEN (SELECT outages FROM heartbeat) END,
    {", ".join(f"effects.{name}" for name in COLUMNS.split(", "))}
FROM unnest($1::text[], $2::text[], $3::bytea[], $4::boolean[], $5::boolean[])
    WITH ORDINALITY AS wanted(environment, namespace, key_hash, counts_reports, asks_for_outages, n)
LEFT JOIN effects ON {_IS_NAMED}
"""
_STATES = f"""
SELECT effects.status, effects.lease_expires_at, effects.settles_at, effects.updated_at, :clock, heartbeat.alive_at,
    heartbeat.outages
FROM unnest($1::text[], $2::text[], $3::bytea[]) WITH ORDINALITY AS wanted(environment, namespace, key_hash, n)
CROSS JOIN heartbeat LEFT JOIN effects ON {_IS_NAMED} ORDER BY wanted.n
"""
_STAYS = frozenset({"id", "namespace", "key", "created_at", "purged_at"})
_CHANGING = tuple(name for name in ROW if name not in _STAYS)
_changing = itemgetter(*(ROW.index(name) for name in _CHANGING))
CHANGE_COLUMNS = ("n", *_NAME, "known_count", *_CHANGING)
_EVENT_COLUMNS = ("n", *EVENT_COLUMNS)

_CHANGE = f"""
WITH free AS MATERIALIZED (
    SELECT wanted.n FROM {_unnest(("n", *_NAME))} JOIN effects ON {_IS_NAMED}
    FOR NO KEY UPDATE OF effects SKIP LOCKED
), changed AS (
    UPDATE effects SET {", ".join(f"{name} = wanted.{name}" for name in _CHANGING)}
    FROM {_unnest(CHANGE_COLUMNS)}
    WHERE {_IS_NAMED} AND wanted.n = ANY (ARRAY(SELECT n FROM free))
        AND effects.event_count = wanted.known_count AND effects.purged_at IS NULL
    RETURNING wanted.n, effects.environment, effects.namespace, effects.id
), recorded AS (
    INSERT INTO events (environment, namespace, effect, {", ".join(EVENT_COLUMNS)})
    SELECT changed.environment, changed.namespace, changed.id, {", ".join(f"wanted.{name}" for name in EVENT_COLUMNS)}
    FROM {_unnest(_EVENT_COLUMNS, len(CHANGE_COLUMNS) + 1)} JOIN changed ON changed.n = wanted.n
)
SELECT free.n, changed.n IS NOT NULL FROM free LEFT JOIN changed ON changed.n = free.n
"""

_FIND_CANDIDATES = f"""
SELECT effects.namespace, effects.id, effects.key_hash, effects.event_count, effects.created_at, {DUE}
FROM (
    SELECT effect FROM events
    WHERE environment = ? AND (namespace, effect) > (?, ?) AND sequence = 1 :only
    ORDER BY namespace, effect LIMIT ?
) AS candidates
JOIN effects ON effects.id = candidates.effect
ORDER BY effects.namespace, effects.id
"""
_PURGE_COLUMNS = (*_NAME, "known_count")
_PURGE = f"""
WITH purged AS (
    UPDATE effects SET {PURGED.replace("?", ":clock")} FROM {_unnest(_PURGE_COLUMNS)}
    WHERE {_IS_NAMED} AND effects.event_count = wanted.known_count AND effects.purged_at IS NULL
    RETURNING effects.environment, effects.namespace, effects.id
), forgotten AS (
    DELETE FROM events USING purged
    WHERE events.environment = purged.environment AND events.namespace = purged.namespace AND events.effect = purged.id
)
SELECT count(*) FROM purged
"""
# Of the oldest 10,000 that are running: there may be more than a scrape should read.
_OLDEST_EXPIRED = """
SELECT environment, max(:clock - lease_expires_at)::bigint
FROM (SELECT environment, lease_expires_at FROM effects WHERE status = 'RUNNING' ORDER BY id LIMIT 10000) AS oldest
WHERE lease_expires_at <= :clock GROUP BY environment
"""


class Statements(NamedTuple):
    """The statements, written for one clock."""

    clock: str
    grant: str
    """Fast path: inserts effects with their first lease. Returns (id, created_at) of each that did not exist."""
    commit: str
    """Fast path: commits running effects whose fence and token match. Returns (n, id) of each."""
    read: str
    """Slow path: for each name (number from 1, time, whether standbys are configured, how many reports of the current
    grant the trail has, the heartbeat and the outages or nulls, the columns of an Effect or nulls)."""
    change: str
    """Slow path: writes with compare-and-set. Returns (number, whether it was written). It skips rows that are locked
    and does not return their numbers."""
    purge: str
    """Drops payloads and audit trails of effects, with compare-and-set. Returns how many."""
    oldest_expired: str
    """By environment, how many ms ago the oldest lease expired that was not taken over."""
    states: str
    """Status, expiry, settle time and time of the last change or nulls, the time, the heartbeat and the outages, in the
    order of the names."""


def write_statements(clock: str = CLOCK) -> Statements:
    """The statements; `clock` is an SQL expression for the time in ms since 1970."""
    texts = (_GRANT, _COMMIT, _READ, _CHANGE, _PURGE, _OLDEST_EXPIRED, _STATES)
    return Statements(clock, *(text.replace(":clock", clock) for text in texts))


def find_candidates(purge: Purge) -> tuple[str, tuple[object, ...]]:
    """A statement that reads the next candidates of a purge (the columns of `Candidate`), and its values."""
    only = () if purge.namespace is None else (purge.namespace,)
    sql = to_numbered(_FIND_CANDIDATES.replace(":only", "AND namespace = ?" * len(only)))
    return sql, (purge.before, purge.environment, *purge.reached, *only, purge.batch)


def change_row(
    number: int, environment: str, namespace: str, key_hash: bytes, known_count: int, after: Effect
) -> tuple[object, ...]:
    """The new values of one effect, in the order of CHANGE_COLUMNS."""
    return (number, environment, namespace, key_hash, known_count, *_changing(to_row(after)))


def to_arrays(rows: Sequence[tuple[object, ...]]) -> list[tuple[object, ...]]:
    """Rows, turned into one array for each column."""
    return list(zip(*rows, strict=True))


def to_numbered(sql: str) -> str:
    """The statement with `$1`, `$2`, … for its `?`s. It must have no `?` in a literal."""
    first, *rest = sql.split("?")
    return first + "".join(f"${number}{part}" for number, part in enumerate(rest, 1))
