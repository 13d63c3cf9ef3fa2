"""Lower bounds that the ledger is compared with: the same guarantee at the lowest possible cost, without a ledger."""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import tempfile
import time
from pathlib import Path
from typing import Any

import asyncpg

from benchmarks.load import INPUT, RESULT

_PAGE = bytes(4096)
_CONNECTIONS = 16
TABLES = """
CREATE TABLE floor_effects (
    key text COLLATE "C" PRIMARY KEY, id bigint NOT NULL, status text NOT NULL, fence bigint NOT NULL,
    lease_token text, lease_expires_at timestamptz, input_text text, result_text text
);
CREATE TABLE floor_events (effect bigint, sequence integer, type text, at timestamptz, PRIMARY KEY (effect, sequence));
"""
_LEASE = """
WITH granted AS (
    INSERT INTO floor_effects VALUES ($1, $2, 'RUNNING', 1, $3, clock_timestamp() + interval '30 s', $4)
    ON CONFLICT DO NOTHING RETURNING id, fence
), told AS (INSERT INTO floor_events SELECT id, 1, 'LEASE_GRANTED', clock_timestamp() FROM granted)
SELECT id, fence FROM granted
"""
_COMMIT = """
WITH committed AS (
    UPDATE floor_effects SET status = 'COMMITTED', result_text = $4
    WHERE key = $1 AND fence = $2 AND lease_token = $3 AND status = 'RUNNING' RETURNING id
), told AS (INSERT INTO floor_events SELECT id, 2, 'COMMITTED', clock_timestamp() FROM committed)
SELECT id FROM committed
"""


def write_synced_pairs(seconds: float) -> dict[str, Any]:
    """One client's lease and commit as two synced writes of one page each, in a file that does not grow."""
    latencies: list[int] = []
    with tempfile.NamedTemporaryFile(dir=Path(__file__).parent) as file:
        descriptor = file.fileno()
        os.write(descriptor, _PAGE * 1024)
        os.fsync(descriptor)
        places = itertools.cycle(range(1024))
        cpu_s, started_at = time.process_time(), time.perf_counter()
        until = started_at + seconds
        while (began_at := time.perf_counter()) < until:
            for _ in range(2):
                os.pwrite(descriptor, _PAGE, next(places) * len(_PAGE))
                os.fdatasync(descriptor)
            latencies.append(round((time.perf_counter() - began_at) * 1e6))
        wall_s = time.perf_counter() - started_at
    return {"wall_s": wall_s, "cpu_s": time.process_time() - cpu_s, "latencies_us": latencies}


async def run_statements(url: str, clients: int, seconds: float) -> dict[str, Any]:
    """Lease and commit as one asyncpg statement each, without HTTP, validation or API keys."""
    latencies: list[int] = []
    ids = itertools.count(time.time_ns())

    async def work(pool: Any, until: float) -> None:
        while (began_at := time.perf_counter()) < until:
            key, token = secrets.token_hex(16), secrets.token_urlsafe(24)
            assert await pool.fetchrow(_LEASE, f"order:{key}", next(ids), token, INPUT.decode())
            assert await pool.fetchrow(_COMMIT, f"order:{key}", 1, token, RESULT.decode())
            latencies.append(round((time.perf_counter() - began_at) * 1e6))

    async def keep(_connection: Any) -> None:
        """Do not reset the connection after each statement: that would double the round trips."""

    size = min(clients, _CONNECTIONS)
    settings = {"plan_cache_mode": "force_custom_plan"}
    async with asyncpg.create_pool(url, min_size=size, max_size=size, reset=keep, server_settings=settings) as pool:
        cpu_s, started_at = time.process_time(), time.perf_counter()
        await asyncio.gather(*(work(pool, started_at + seconds) for _ in range(clients)))
        wall_s, cpu_s = time.perf_counter() - started_at, time.process_time() - cpu_s
    return {"wall_s": wall_s, "cpu_s": cpu_s, "latencies_us": latencies}
