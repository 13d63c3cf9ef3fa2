"""Shared by all tests."""

from __future__ import annotations

import signal
import sys
from collections.abc import Generator, Iterator

import pytest
from hypothesis import settings

from tests.helpers.postgres import PostgresServer

# A shell's background job ignores Ctrl+C, and so would every process that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("long", max_examples=20_000)  # --hypothesis-profile=long

both_stores = pytest.mark.parametrize("database", ["sqlite", "postgres"], indirect=True, scope="module")
"""For a test of a served ledger whose outcome could depend on the store."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Put back a tracer that a test has taken off, such as coverage's. Take it off for a test that is `untraced`."""
    before = sys.gettrace()
    if item.get_closest_marker("untraced"):
        sys.settrace(None)  # of this thread, which is the one that signals interrupt
    try:
        return (yield)
    finally:
        if sys.gettrace() is not before:
            sys.settrace(before)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Every async test runs on both."""
    return str(request.param)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A real PostgreSQL of this session's own; it starts when a test asks for it."""
    with PostgresServer() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A fresh, empty database."""
    url = postgres_server.create_database()
    yield url
    postgres_server.drop_database(url)


@pytest.fixture(scope="module")
def database(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a ledger that is empty yet: SQLite in memory, unless the test says `both_stores`."""
    if getattr(request, "param", "sqlite") == "sqlite":
        yield "sqlite://"
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    url = server.create_database()
    yield url
    server.drop_database(url)
