"""Compares PostgreSQL drivers: the served ledger's two statements through each driver, side by side in one run.

    python -m benchmarks.drivers [--seconds 2] [--rounds 3] [--quick]

It starts a private PostgreSQL server with fsync on. One row is one effect: one multi-row statement leases it, and
another commits it, each with its audit event. Sides are measured in turn (A B A B …), so that a drift of the machine's
speed affects all of them. The results are medians of throughput and client CPU, and their ratios to the first side.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import re
import secrets
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import psycopg
import uvloop

from benchmarks.load import INPUT, RESULT
from tests.helpers.postgres import PostgresServer

TABLES = """
CREATE TABLE {effects} (
    environment text NOT NULL CHECK (environment IN ('live', 'test')),
    namespace text NOT NULL,
    key_hash bytea NOT NULL,
    id bigint NOT NULL,
    effect_key text NOT NULL,
    status text NOT NULL CHECK (status IN ('IDLE', 'RUNNING', 'COMMITTED', 'FAILED')),
    fence bigint NOT NULL CHECK (fence >= 1),
    lease_token text,
    lease_expires_at bigint NOT NULL,
    input_text text,
    result_text text,
    event_count integer NOT NULL,
    PRIMARY KEY (environment, namespace, key_hash)
) WITH (fillfactor = {fillfactor});
CREATE TABLE {effects}_events (
    environment text NOT NULL,
    namespace text NOT NULL,
    effect bigint NOT NULL,
    sequence integer NOT NULL,
    type text NOT NULL,
    fence bigint NOT NULL,
    PRIMARY KEY (environment, namespace, effect, sequence)
)
"""
LEASE = """
WITH granted AS (
    INSERT INTO {effects} (environment, namespace, key_hash, id, effect_key, status, fence, lease_token,
                           lease_expires_at, input_text, event_count)
    SELECT environment, namespace, key_hash, id, effect_key, 'RUNNING', 1, token,
           (extract(epoch FROM clock_timestamp()) * 1000)::bigint + 30000, input_text, 1
    FROM unnest($1::text[], $2::text[], $3::bytea[], $4::bigint[], $5::text[], $6::text[], $7::text[])
        AS w (environment, namespace, key_hash, id, effect_key, token, input_text)
    ON CONFLICT DO NOTHING
    RETURNING environment, namespace, id, fence, lease_expires_at
), told AS (
    INSERT INTO {effects}_events SELECT environment, namespace, id, 1, 'LEASE_GRANTED', fence FROM granted
)
SELECT id, fence, lease_expires_at FROM granted
"""
COMMIT = """
WITH committed AS (
    UPDATE {effects} e SET status = 'COMMITTED', result_text = w.result_text, event_count = event_count + 1
    FROM unnest($1::text[], $2::text[], $3::bytea[], $4::text[], $5::bigint[], $6::text[])
        AS w (environment, namespace, key_hash, token, fence, result_text)
    WHERE e.environment = w.environment AND e.namespace = w.namespace AND e.key_hash = w.key_hash
      AND e.fence = w.fence AND e.lease_token = w.token AND e.status = 'RUNNING'
    RETURNING e.environment, e.namespace, e.id, e.fence, e.event_count
), told AS (
    INSERT INTO {effects}_events SELECT environment, namespace, id, event_count, 'COMMITTED', fence FROM committed
)
SELECT id, fence FROM committed
"""
# Without this, a statement prepared on an empty table keeps its plan, a table scan, and slows down as the table fills:
# the commit of a batch took 8 ms at 26,000 rows, and 2.7 ms with this.
PLANNER = {"plan_cache_mode": "force_custom_plan"}

Columns = list[list[Any]]
Fetch = Callable[[str, Columns], Awaitable[list[Any]]]

_ids = itertools.count(time.time_ns() // 1_000_000 << 21)


def new_effects(count: int) -> tuple[Columns, Columns]:
    """The columns for leasing effects with random keys, and the columns for committing them."""
    hashes = [secrets.token_bytes(16) for _ in range(count)]
    tokens = [secrets.token_urlsafe(24) for _ in range(count)]
    environments, namespaces = ["test"] * count, ["payments"] * count
    keys = [f"order:{hashed.hex()}" for hashed in hashes]
    ids = list(itertools.islice(_ids, count))
    lease: Columns = [environments, namespaces, hashes, ids, keys, tokens, [INPUT.decode()] * count]
    commit: Columns = [environments, namespaces, hashes, tokens, [1] * count, [RESULT.decode()] * count]
    return lease, commit


def _one_row_each(columns: Columns) -> list[Columns]:
    return [[[value] for value in row] for row in zip(*columns, strict=True)]


@asynccontextmanager
async def asyncpg_unnest(url: str) -> AsyncIterator[Fetch]:
    """One statement for the batch."""
    connection = await asyncpg.connect(url, ssl=False, server_settings=PLANNER)

    async def fetch(sql: str, columns: Columns) -> list[Any]:
        return list(await connection.fetch(sql, *columns))

    yield fetch
    await connection.close()


@asynccontextmanager
async def asyncpg_pipelined(url: str) -> AsyncIterator[Fetch]:
    """A statement for each row, in one round trip and one transaction."""
    connection = await asyncpg.connect(url, ssl=False, server_settings=PLANNER)

    async def fetch(sql: str, columns: Columns) -> list[Any]:
        return list(await connection.fetchmany(sql, _one_row_each(columns)))

    yield fetch
    await connection.close()


@asynccontextmanager
async def _psycopg(url: str) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """A connection that prepares each statement on first use and starts no transactions of its own."""
    options = " ".join(f"-c {name}={value}" for name, value in PLANNER.items())
    connection: psycopg.AsyncConnection[Any] = await psycopg.AsyncConnection.connect(
        url, autocommit=True, prepare_threshold=0, options=options
    )
    yield connection
    await connection.close()


def _in_psycopgs_words(sql: str) -> bytes:
    return re.sub(r"\$\d", "%s", sql).encode()


@asynccontextmanager
async def psycopg_unnest(url: str) -> AsyncIterator[Fetch]:
    """One statement for the batch, in the binary protocol."""
    async with _psycopg(url) as connection:

        async def fetch(sql: str, columns: Columns) -> list[Any]:
            async with connection.cursor(binary=True) as cursor:
                await cursor.execute(_in_psycopgs_words(sql), columns)
                return await cursor.fetchall()

        yield fetch


@asynccontextmanager
async def psycopg_pipelined(url: str) -> AsyncIterator[Fetch]:
    """A statement for each row, in pipeline mode."""
    async with _psycopg(url) as connection:

        async def fetch(sql: str, columns: Columns) -> list[Any]:
            async with connection.cursor(binary=True) as cursor:
                await cursor.executemany(_in_psycopgs_words(sql), _one_row_each(columns), returning=True)
                found = await cursor.fetchall()
                while cursor.nextset():
                    found += await cursor.fetchall()
                return found

        yield fetch


DRIVERS = {
    "asyncpg, one statement": asyncpg_unnest,
    "asyncpg, pipelined rows": asyncpg_pipelined,
    "psycopg 3, one statement": psycopg_unnest,
    "psycopg 3, pipelined rows": psycopg_pipelined,
}


@dataclass
class Side:
    """One side of the comparison: a driver, or a table's layout, and its measurements."""

    name: str
    table: str
    fetches: list[Fetch]
    per_s: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)

    async def run(self, batch: int, seconds: float) -> int:
        """Lease and commit effects on all connections at the same time; returns the number of effects."""
        lease, commit = LEASE.format(effects=self.table), COMMIT.format(effects=self.table)
        count, making_s = 0, 0.0

        async def work(fetch: Fetch, until: float) -> None:
            nonlocal count, making_s
            while time.perf_counter() < until:
                began_s = time.process_time()
                to_lease, to_commit = new_effects(batch)
                making_s += time.process_time() - began_s
                assert len(await fetch(lease, to_lease)) == batch
                assert len(await fetch(commit, to_commit)) == batch
                count += batch

        started_at, cpu_s = time.perf_counter(), time.process_time()
        await asyncio.gather(*(work(fetch, started_at + seconds) for fetch in self.fetches))
        wall_s, cpu_s = time.perf_counter() - started_at, time.process_time() - cpu_s - making_s
        self.per_s.append(count / wall_s)
        self.cpu_us.append(cpu_s / count * 1e6)
        return count

    async def warm(self, batch: int) -> None:
        """Run for a moment without counting, so that statements are prepared and pages are cached."""
        await self.run(batch, 0.2)
        self.per_s.clear()
        self.cpu_us.clear()


def median_and_ratio(values: list[float], first: list[float]) -> tuple[float, float]:
    """The median, and its ratio to the first side's median."""
    return statistics.median(values), statistics.median(values) / statistics.median(first)


async def compare(server: PostgresServer, batch: int, connections: int, seconds: float, rounds: int) -> None:
    url = server.create_database()
    server.execute(TABLES.format(effects="effects", fillfactor=100), url.rpartition("/")[2])
    async with AsyncExitStack() as stack:
        sides = [
            Side(name, "effects", [await stack.enter_async_context(connect(url)) for _ in range(connections)])
            for name, connect in DRIVERS.items()
        ]
        for side in sides:
            await side.warm(batch)
        for _ in range(rounds):
            for side in sides:
                await side.run(batch, seconds)
    for side in sides:
        per_s, faster = median_and_ratio(side.per_s, sides[0].per_s)
        cpu_us, dearer = median_and_ratio(side.cpu_us, sides[0].cpu_us)
        row = f"{side.name:28}{connections:12}{batch:6}{per_s:11,.0f}{faster:7.2f}x{cpu_us:9.1f}{dearer:7.2f}x"
        print(row, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short")
    parser.add_argument("--seconds", type=float, help="length of one measurement (default 2)")
    parser.add_argument("--rounds", type=int, help="measurements of each side, in turn (default 3)")
    arguments = parser.parse_args()
    seconds = arguments.seconds or (0.5 if arguments.quick else 2.0)
    with PostgresServer() as server:
        print(f"{'':28}{'connections':>12}{'batch':>6}{'effects/s':>11}{'ratio':>8}{'CPU us':>9}{'ratio':>8}")
        for connections in (1, 4):
            for batch in (1, 16, 64):
                uvloop.run(compare(server, batch, connections, seconds, arguments.rounds or 3))


if __name__ == "__main__":
    main()
