"""Fills ledgers by SQL with many committed effects, which have random keys and audit trails."""

from __future__ import annotations

from pathlib import Path

from benchmarks.load import INPUT, RESULT
from tests.helpers.postgres import PostgresServer
from verity._store.sqlite.connection import connect

_SHA256 = "'0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef'"
_AT = "1700000000000 + n"
_VALUES = {
    "id": f"({_AT}) << 21",
    "environment": "'test'",
    "namespace": "'payments'",
    "status": "'COMMITTED'",
    "fence": "1",
    "lease_token": "'0123456789abcdef0123456789abcdef'",
    "lease_expires_at": f"{_AT} + 30000",
    "lease_duration_ms": "30000",
    "prior_state": "'none'",
    "effect_name": "'charge'",
    "input_text": f"'{INPUT.decode()}'",
    "input_sha256": _SHA256,
    "result_text": f"'{RESULT.decode()}'",
    "result_sha256": _SHA256,
    "source": "'acted'",
    "event_count": "2",
    "created_at": _AT,
    "updated_at": f"{_AT} + 1",
}


def _insert_effects(numbers: str, **more: str) -> str:
    values = {**_VALUES, **more}
    return f"INSERT INTO effects ({', '.join(values)}) SELECT {', '.join(values.values())} FROM {numbers}"


def _insert_events(numbers: str, **more: str) -> str:
    values = {**more, "effect": _VALUES["id"], "sequence": "1 + e", "at": _AT, "fence": "1"}
    values["type"] = "CASE e WHEN 0 THEN 'LEASE_GRANTED' ELSE 'COMMITTED' END"
    values["detail"] = "'" + '{"priorState":"none","leaseDurationMs":30000,"leaseExpiresAt":1700000030000}' + "'"
    return f"INSERT INTO events ({', '.join(values)}) SELECT {', '.join(values.values())} FROM {numbers}"


_TABLES = "('effects'::regclass, 'events'::regclass)"
_PRIMARY_KEYS = f"""
SELECT conrelid::regclass AS owner, conname AS name, pg_get_constraintdef(oid) AS definition FROM pg_constraint
WHERE conrelid IN {_TABLES} AND contype = 'p'
"""
_INDEXES = f"""
SELECT indexrelid::regclass AS name, pg_get_indexdef(indexrelid) AS definition FROM pg_index
WHERE indrelid IN {_TABLES} AND NOT indisprimary
"""


def fill_postgres(server: PostgresServer, url: str, count: int) -> None:
    """Fill a ledger that has its schema.

    The indexes are built after most of the inserts; the index of the random keys gets the fill factor that random
    inserts would produce. The last effects are inserted after a checkpoint and touch most pages of that index.
    PostgreSQL logs a page as a whole at its first change after a checkpoint: the benchmark measures the ordinary state,
    after these writes.
    """
    database = url.rpartition("/")[2]
    keys, indexes = server.query(_PRIMARY_KEYS, database), server.query(_INDEXES, database)
    last = count - count * 4 // 100
    for index in indexes:
        server.execute(f"DROP INDEX {index['name']}", database)
    for key in keys:
        server.execute(f"ALTER TABLE {key['owner']} DROP CONSTRAINT {key['name']}", database)
    _insert_into_postgres(server, database, 1, last)
    for key in keys:
        fillfactor = 70 if key["owner"] == "effects" else 90
        definition = f"{key['definition']} WITH (fillfactor = {fillfactor})"
        server.execute(f"ALTER TABLE {key['owner']} ADD CONSTRAINT {key['name']} {definition}", database)
    for index in indexes:
        server.execute(index["definition"], database)
    server.execute("VACUUM ANALYZE", database)
    server.execute("CHECKPOINT", database)
    _insert_into_postgres(server, database, last + 1, count)


def _insert_into_postgres(server: PostgresServer, database: str, first: int, end: int) -> None:
    numbers = f"generate_series({first}::bigint, {end}) n"
    key = {"effect_key": "'order:' || md5(n::text)", "key_hash": "decode(md5(n::text), 'hex')"}
    owner = {"environment": "'test'", "namespace": "'payments'"}
    effects = _insert_effects(numbers, **key)
    events = _insert_events(f"{numbers}, generate_series(0, 1) e", **owner)
    # Role replica: the triggers that check the invariants do not run; they are too slow for millions of rows.
    server.execute(f"SET session_replication_role = replica; {effects}; {events}", database)


_STEP = 500_000


def fill_sqlite(path: Path, count: int) -> None:
    """Make a ledger's file and fill it. Within each step the random hashes are in order, which makes inserts fast."""
    connection = connect(str(path))
    connection.execute("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -4194304")
    width = 2**48 // _STEP
    for first in range(1, count + 1, _STEP):
        end = min(first + _STEP - 1, count)
        series = f"SELECT {first} UNION ALL SELECT n + 1 FROM series WHERE n < {end}"
        numbers = f"(WITH RECURSIVE series(n) AS ({series}) SELECT n FROM series)"
        in_order = f"unhex(printf('%012x', (n - {first}) * {width} + abs(random() % {width}))) || randomblob(10)"
        with connection:
            connection.execute(
                _insert_effects(
                    numbers, effect_key="'order:' || hex(randomblob(16))", key_hash=f"CAST({in_order} AS BLOB)"
                )
            )
            connection.execute(_insert_events(f"{numbers}, (SELECT 0 AS e UNION ALL SELECT 1)"))
    connection.close()
