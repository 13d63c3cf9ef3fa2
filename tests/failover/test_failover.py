"""The short form of the fail-over suite; `python -m tests.failover` is the long one."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from tests.failover.scenario import play
from tests.helpers.postgres import PostgresServer, find_binaries
from verity._store.postgres.database import connect, find_dangers

pytestmark = pytest.mark.skipif(
    not (find_binaries() / "pg_basebackup").exists(), reason="this PostgreSQL comes without pg_basebackup"
)


@pytest.fixture
def anyio_backend() -> str:
    """The server is asyncio's."""
    return "asyncio"


def test_what_was_told_survives_the_fail_over_whatever_ended_the_wait_for_the_standby(tmp_path: Path) -> None:
    outcomes = play(tmp_path, "cancel", "terminate", has_observe=True)
    assert not [name for name, outcome in outcomes.items() if outcome.is_lost], outcomes
    assert [outcome.acts for outcome in outcomes.values()] == [1, 1]


def test_the_control_whose_primary_waits_for_no_standby_loses_a_result_and_acts_twice(tmp_path: Path) -> None:
    """So the test above can see what it looks for."""
    (outcome,) = play(tmp_path, "timeout", has_observe=False, is_synchronous=False).values()
    assert (outcome.told, outcome.after) == ({"timeout 1"}, "timeout 2")
    assert outcome.is_lost
    assert outcome.acts == 2


async def test_standbys_that_no_commit_waits_for_are_a_danger() -> None:
    with PostgresServer() as primary, primary.standby() as standby:
        for names, is_dangerous in (("*", False), ("", True), ("another", True), ("FIRST 1 (another, *)", False)):
            primary.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
            primary.execute("SELECT pg_reload_conf()")
            database = await connect(primary.url())
            with anyio.fail_after(60):
                while bool(dangers := await find_dangers(database)) is not is_dangerous:
                    assert standby.is_running
            await database.close()
            assert all("no commit waits for 1 of the standbys (walreceiver)" in danger for danger in dangers)
