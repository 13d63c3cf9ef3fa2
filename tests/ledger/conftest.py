"""Shared by the tests of the stores."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest


@pytest.fixture
async def sql(postgres_url: str) -> AsyncIterator[Any]:
    """A session of the test's own, beside the nodes'."""
    connection = await asyncpg.connect(postgres_url, ssl=False)
    yield connection
    await connection.close()
