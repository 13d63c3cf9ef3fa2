"""Shared by the tests of the stores."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.helpers.served_ledger import TestClock
from tests.helpers.store_calls import Caller
from tests.helpers.stores import KINDS, Bench


@pytest.fixture
async def sql(postgres_url: str) -> AsyncIterator[Any]:
    """A session of the test's own, beside the nodes'."""
    connection = await asyncpg.connect(postgres_url, ssl=False)
    yield connection
    await connection.close()


@pytest.fixture(params=KINDS)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """A store of each kind. After the test, all its rows must agree with their events."""
    bench = Bench(request.param, tmp_path, lambda: str(request.getfixturevalue("postgres_url")))
    yield bench
    bench.check_all_rows()
    bench.store.close()


@pytest.fixture
def clock(bench: Bench) -> TestClock:
    return bench.clock


@pytest.fixture
def call(bench: Bench) -> Caller:
    return Caller(bench.store)
