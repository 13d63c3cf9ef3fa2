"""Measures what each index of the table of effects costs a lease and a commit on PostgreSQL, side by side in one run.

    python -m benchmarks.indexes [--seconds 1] [--rounds 5] [--held 0 1000000] [--quick]

Each layout is a table on one private server. Four connections send batches of 64. The results are throughput, the
server's CPU and the write-ahead log (WAL) for each effect, and the share of commits that changed no index (HOT).
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
from collections.abc import Iterator
from contextlib import AsyncExitStack

import asyncpg
import uvloop

from benchmarks.drivers import TABLES, Side, asyncpg_unnest, median_and_ratio
from benchmarks.load import INPUT, RESULT
from benchmarks.sampling import read_cpu_s
from tests.helpers.postgres import PostgresServer

CONNECTIONS = 4
BATCH = 64
INDEXES = {
    "listing": "CREATE INDEX ON {effects} (environment, namespace, id)",
    "expression": "CREATE INDEX ON {effects} ((environment || '/' || namespace), id)",
    "id": "CREATE INDEX ON {effects} (environment, id)",
    "unfinished": "CREATE INDEX ON {effects} (environment, status, lease_expires_at) WHERE status <> 'COMMITTED'",
}
LAYOUTS: dict[str, tuple[int, list[str]]] = {
    "primary key": (100, []),
    "primary key, fillfactor 70": (70, []),
    "primary key, fillfactor 50": (50, []),
    "+ (env, ns, id)": (100, ["listing"]),
    "+ (env, ns, id), fillfactor 50": (50, ["listing"]),
    "+ (env/ns, id)": (100, ["expression"]),
    "+ (env, ns, id), (env, id)": (100, ["listing", "id"]),
    "+ unfinished": (100, ["unfinished"]),
    "+ (env, ns, id), unfinished": (100, ["listing", "unfinished"]),
    "+ all of them": (100, ["listing", "id", "unfinished"]),
    "+ all of them, fillfactor 50": (50, ["listing", "id", "unfinished"]),
}
_FILL = """
INSERT INTO {effects} SELECT 'test', 'n' || n % {namespaces}, decode(md5(n::text), 'hex'), n, 'order:' || md5(n::text),
    'COMMITTED', 1, '0123456789abcdef0123456789abcdef', 0, '{input}', '{result}', 2 FROM generate_series(1, {count}) n
"""


def _create(server: PostgresServer, database: str, held: int) -> Iterator[tuple[str, str]]:
    """Make and fill the tables; yields each layout's name and table."""
    for number, (name, (fillfactor, indexes)) in enumerate(LAYOUTS.items()):
        table = f"effects_{number}"
        server.execute(TABLES.format(effects=table, fillfactor=fillfactor), database)
        for index in indexes:
            server.execute(INDEXES[index].format(effects=table), database)
        # Without statistics the planner may prefer another index with the same first columns to the primary key.
        fill = {"effects": table, "input": INPUT.decode(), "result": RESULT.decode(), "namespaces": 10}
        made_up = _FILL.format(count=1000, **fill)
        server.execute(f"BEGIN; {made_up}; ANALYZE {table}; DELETE FROM {table}; COMMIT", database)
        if held:
            server.execute(_FILL.format(count=held, **fill), database)
        yield name, table
    server.execute("VACUUM", database)
    server.execute("CHECKPOINT", database)


async def compare(server: PostgresServer, held: int, seconds: float, rounds: int) -> None:
    url = server.create_database()
    tables = list(_create(server, url.rpartition("/")[2], held))
    print(
        f"\n{f'{held:,} effects held':30}{'effects/s':>11}{'ratio':>8}{'CPU us':>9}{'ratio':>8}{'WAL B':>8}{'HOT':>6}"
    )
    async with AsyncExitStack() as stack:
        fetches = [await stack.enter_async_context(asyncpg_unnest(url)) for _ in range(CONNECTIONS)]
        admin = await asyncpg.connect(url, ssl=False)
        stack.push_async_callback(admin.close)
        sides = [Side(name, table, fetches) for name, table in tables]
        cpu_us: list[list[float]] = [[] for _ in sides]
        wal_bytes: list[list[float]] = [[] for _ in sides]
        for side in sides:
            await side.warm(BATCH)
        for _ in range(rounds):
            for number, side in enumerate(sides):
                cpu_s = read_cpu_s(server.processes())
                wal = await admin.fetchval("SELECT pg_current_wal_lsn() - '0/0'")
                count = await side.run(BATCH, seconds)
                wal_bytes[number].append(
                    float(await admin.fetchval("SELECT pg_current_wal_lsn() - '0/0'") - wal) / count
                )
                cpu_us[number].append((read_cpu_s(server.processes()) - cpu_s) / count * 1e6)
        await asyncio.sleep(1.5)  # backends update their statistics once a second
        for side, cpu, wal in zip(sides, cpu_us, wal_bytes, strict=True):
            per_s, faster = median_and_ratio(side.per_s, sides[0].per_s)
            cpu_median, dearer = median_and_ratio(cpu, cpu_us[0])
            hot = await admin.fetchval(
                f"SELECT n_tup_hot_upd::float / n_tup_upd FROM pg_stat_user_tables WHERE relname = '{side.table}'"
            )
            print(
                f"{side.name:30}{per_s:11,.0f}{faster:7.2f}x{cpu_median:9.0f}{dearer:7.2f}x{statistics.median(wal):8,.0f}"
                f"{hot:6.0%}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short, on empty tables")
    parser.add_argument("--seconds", type=float, help="length of one measurement (default 1)")
    parser.add_argument("--rounds", type=int, help="measurements of each side, in turn (default 5)")
    parser.add_argument("--held", type=int, nargs="+", help="effects of random keys in each table (default 0 1000000)")
    arguments = parser.parse_args()
    seconds, rounds = arguments.seconds or (0.3 if arguments.quick else 1.0), 3 if arguments.quick else 5
    with PostgresServer() as server:
        for held in arguments.held or ([0] if arguments.quick else [0, 1_000_000]):
            uvloop.run(compare(server, held, seconds, arguments.rounds or rounds))


if __name__ == "__main__":
    main()
