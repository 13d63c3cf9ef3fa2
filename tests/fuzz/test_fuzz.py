"""Fuzzing for some seconds, so that what it asks for stays true. `nox -s fuzz` goes on for hours."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fuzz.cases import Cases
from tests.fuzz.ledger import Target, serve
from tests.fuzz.raw import RawRequests
from tests.helpers.postgres import PostgresServer


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    server: PostgresServer | None = None
    if request.param == "postgres":
        server = request.getfixturevalue("postgres_server")
    with serve(request.param, tmp_path_factory.mktemp("fuzz"), server) as target:
        yield target


def test_cases_of_the_contract(target: Target) -> None:
    cases = Cases(target)
    cases.run_chunk(0)
    assert cases.failures == {}
    assert {200, 400, 403, 404, 409} <= set(cases.statuses)


def test_bytes_that_no_honest_client_sends(target: Target) -> None:
    raw = RawRequests(target)
    for chunk in range(2):
        raw.run_chunk(chunk)
    assert raw.failures == {}
    assert {200, 400, 401, 404, 405} <= set(raw.statuses)
