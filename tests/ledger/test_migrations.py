"""Schemas of every earlier version, with data in them, brought up to date."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import asyncpg
import pytest

from tests.helpers.new_ledger_notice import NEW_LEDGER_NOTICE
from tests.helpers.store_calls import Caller
from tests.helpers.stores import Bench, DatabaseRefused
from tests.helpers.verity_process import VERITY, run_verity
from tests.ledger import earlier
from verity import SyncVerityClient, VerityConfigError
from verity._store.postgres import migrations as postgres
from verity._store.postgres.database import connect
from verity._store.postgres.statements import to_numbered
from verity._store.sqlite import migrations as sqlite
from verity._store.sqlite.connection import open_and_migrate

LATEST = {"sqlite": sqlite.SCHEMA_VERSION, "postgres": postgres.SCHEMA_VERSION}
AT_ONCE = 8


class Place:
    """A database of one kind that does not exist yet, or is empty."""

    def __init__(self, kind: str, directory: Path, make_url: Callable[[], str]) -> None:
        self.kind = kind
        self.file = directory / "v.db"
        self.url = make_url() if kind == "postgres" else f"sqlite:///{self.file}"

    def make(self, version: int, *, filled: bool = True) -> None:
        """Have the schema of a version, with the data that its code wrote."""
        statements = earlier.read(self.kind, version) if filled and version else []
        if self.kind == "postgres":
            asyncio.run(self._make_postgres(version, statements))
            return
        connection = apsw.Connection(str(self.file))
        connection.execute("PRAGMA journal_mode = WAL")
        sqlite.migrate(connection, None, to=version)
        for sql, values in statements:
            connection.execute(sql, values)
        connection.close()

    async def _make_postgres(self, version: int, statements: list[tuple[str, tuple[Any, ...]]]) -> None:
        database = await connect(self.url, readers=1)
        await postgres.migrate(database, to=version)
        async with database.connection() as connection:
            for sql, values in statements:
                await connection.execute(to_numbered(sql), *values)
        await database.close()

    def execute(self, sql: str) -> list[Any]:
        """The rows of one statement."""
        if self.kind == "postgres":
            return asyncio.run(self._fetch(sql))
        connection = apsw.Connection(str(self.file))
        rows: list[Any] = connection.execute(sql).fetchall()
        connection.close()
        return rows

    async def _fetch(self, sql: str) -> list[Any]:
        connection = await asyncpg.connect(self.url, ssl=False)
        try:
            return [tuple(row) for row in await connection.fetch(sql)]
        finally:
            await connection.close()

    def schema(self) -> list[Any]:
        """All that the database says of itself, but for the data."""
        if self.kind == "sqlite":
            return self.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY type, name")
        return [
            self.execute(f"SELECT {columns} FROM {table} WHERE {where} ORDER BY {columns}")
            for columns, table, where in (
                ("table_name, ordinal_position, column_name, data_type, is_nullable, collation_name",
                 "information_schema.columns", "table_schema = 'public'"),
                ("indexname, indexdef", "pg_indexes", "schemaname = 'public'"),
                ("conrelid::regclass::text, contype::text, pg_get_constraintdef(oid)", "pg_constraint",
                 "connamespace = 'public'::regnamespace"),
                ("tgname, pg_get_triggerdef(oid)", "pg_trigger", "NOT tgisinternal"),
                ("proname, prosrc", "pg_proc", "pronamespace = 'public'::regnamespace"),
            )
        ]  # fmt: skip

    def version(self) -> int:
        if self.kind == "sqlite":
            return int(self.execute("PRAGMA user_version")[0][0])
        return int(self.execute("SELECT version FROM verity_schema")[0][0])

    def migrate(self) -> subprocess.CompletedProcess[str]:
        return run_verity("migrate", "--database", self.url)


@pytest.fixture(params=LATEST)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(request.param, tmp_path, lambda: str(request.getfixturevalue("postgres_url")))


@pytest.fixture
def fresh_schema(place: Place, tmp_path: Path, request: pytest.FixtureRequest) -> list[Any]:
    (tmp_path / "fresh").mkdir()
    server: Any = request.getfixturevalue("postgres_server") if place.kind == "postgres" else None
    fresh = Place(place.kind, tmp_path / "fresh", lambda: str(server.create_database()))
    fresh.make(LATEST[place.kind], filled=False)
    return fresh.schema()


def test_every_version_has_its_data() -> None:
    """With a new migration come two things: its own data, and the tests below, from the version before."""
    for kind, latest in LATEST.items():
        for version in range(1, latest + 1):
            assert earlier.path_of(kind, version).exists(), f"run python -m tests.ledger.earlier ({kind} {version})"


CASES = [(kind, version) for kind, latest in LATEST.items() for version in range(1, latest + 1)]


@pytest.mark.parametrize(("place", "version"), CASES, indirect=["place"])
def test_what_an_earlier_version_wrote_is_kept(
    place: Place, version: int, tmp_path: Path, fresh_schema: list[Any]
) -> None:
    place.make(version)
    latest = LATEST[place.kind]
    done = place.migrate()
    said = f"schema {version} to {latest}" if version < latest else f"is up to date: {latest}."
    assert (done.returncode, done.stderr) == (0, "")
    assert said in done.stdout
    assert place.version() == latest
    assert place.schema() == fresh_schema, "as if it had been made today"
    bench = Bench("postgres" if place.kind == "postgres" else "file", tmp_path, lambda: place.url)
    check(bench, earlier.names_in(place.kind, version))
    bench.store.close()


def check(bench: Bench, names: list[str]) -> None:
    """All that `earlier.fill` did is still so."""
    call, clock = Caller(bench.store), bench.clock
    clock.advance(10_001)
    found = {item["effectKey"]: item for item in call("list_effects", namespace="payments")["items"]}
    assert set(found) == {*names, "live"}
    bench.check_all_rows()
    assert bench.store.list_keys() == earlier.KEYS
    assert [bench.store.find_key(key.sha256) for key in earlier.KEYS] == earlier.KEYS

    leases = {name: call.ask("lease_effect", {"effectKey": name}).body.decode() for name in found}
    for name, cached in {
        "done": f'"cachedResult":{earlier.RESULT}',
        "observed": '"cachedResult":null',
        "resolved": f'"cachedResult":{json.dumps(earlier.RESULT)}',
        "failed": f'"cachedError":{earlier.ERROR}',
    }.items():
        assert cached in leases[name], "byte for byte"
    assert Caller(bench.store, "live")("lease_effect", {"effectKey": "done"})["cachedResult"] == "of live"
    assert Caller(bench.store, namespace="mail")("lease_effect", {"effectKey": "done"})["cachedResult"] == "of mail"
    assert (found["resolved"]["source"], found["observed"]["source"]) == ("resolved", "observed")
    assert (found["done"]["caseId"], found["done"]["agentId"]) == ("case", "worker")
    assert call("get_effect", effectKey="done")["inputJson"] == {"a": 1}

    for name, prior_state, fence in (
        ("told reset", "reset", 2),
        ("told expired", "expired", 2),
        ("expired", "expired", 3),
        ("given back", "none", 2),
        ("given back in doubt", "expired", 3),
    ):
        if name in names:
            lease = json.loads(leases[name])
            assert (lease["status"], lease["priorState"], lease["fenceToken"]) == ("granted", prior_state, fence), name
            assert call("commit_effect", {**call.tokens(lease), "result": name})["status"] == "accepted"
    for name in {"purged", "purged failure"} & set(names):
        assert json.loads(leases[name])["error"]["code"] == "effect_purged"
    if "settling" in names:
        assert json.loads(leases["settling"])["error"]["code"] == "lease_conflict"
        assert found["settling"]["status"] == "EXPIRED"
    assert call("reset_effect", {"effectKey": "failed"})["status"] == "reset"
    assert call("lease_effect", {"effectKey": "failed"})["fenceToken"] == 2

    assert json.loads(leases["live"])["error"]["code"] == "lease_conflict"
    live = call("lease_effect", {"effectKey": "live"}, key="once")
    assert (live["status"], live["fenceToken"]) == ("granted", 1)
    assert call("renew_effect", call.tokens(live))["status"] == "renewed"
    assert call("commit_effect", {**call.tokens(live), "result": 1})["status"] == "accepted"
    bench.check_all_rows()
    for change in (
        "UPDATE effects SET fence = fence - 1",
        "UPDATE effects SET fence = fence + 1 WHERE status = 'RUNNING'",
        "UPDATE effects SET effect_key = 'another'",
        "UPDATE events SET fence = 9",
        "DELETE FROM effects",
        "DELETE FROM events",
    ):
        with pytest.raises(DatabaseRefused):
            bench.execute(change)


# --- refusals ---


def test_a_server_and_commands_leave_an_older_database_as_it_is(place: Place, tmp_path: Path) -> None:
    place.make(1)
    before = place.schema()
    for command in (
        ["serve", "--port", "0"],
        ["keys", "list"],
        ["effects", "list"],
        ["purge", "--older-than", "1d", "--yes"],
    ):
        done = run_verity(*command, VERITY_DATABASE=place.url, VERITY_BASE_URL="")
        assert (done.returncode, done.stdout) == (3, ""), done.stderr
        assert "has schema 1, and this Verity needs" in done.stderr
        assert "run `verity migrate`" in done.stderr
        assert done.stderr.count("\n") == 1
    assert (place.version(), place.schema()) == (1, before)


def test_a_newer_database_is_refused(place: Place) -> None:
    latest = LATEST[place.kind]
    place.make(latest, filled=False)
    newer = f"{latest + 1}"
    place.execute(
        f"PRAGMA user_version = {newer}" if place.kind == "sqlite" else f"UPDATE verity_schema SET version = {newer}"
    )
    for command in (["serve", "--port", "0"], ["keys", "list"], ["migrate"]):
        done = run_verity(*command, VERITY_DATABASE=place.url)
        assert (done.returncode, done.stdout) == (3, ""), done.stderr
        assert f"has schema {newer}, made by a newer Verity" in done.stderr
    assert place.version() == latest + 1


def test_an_embedded_ledger_migrates_by_itself(tmp_path: Path) -> None:
    place = Place("sqlite", tmp_path, str)
    place.make(1)
    with SyncVerityClient(place.url, api_key="vt_test_", namespace="payments") as client:
        assert client.protect("done", act=list) == json.loads(earlier.RESULT)
    assert place.version() == sqlite.SCHEMA_VERSION


# --- half-way, and at once ---

# What a late step of migration 2 would make is there already.
IN_THE_WAY = {
    "sqlite": "CREATE TRIGGER events_have_no_gaps AFTER DELETE ON events BEGIN SELECT 1; END",
    "postgres": "CREATE FUNCTION verity_events_have_no_gaps() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN END'",
}
OUT_OF_THE_WAY = {
    "sqlite": "DROP TRIGGER events_have_no_gaps",
    "postgres": "DROP FUNCTION verity_events_have_no_gaps",
}


def test_a_migration_that_fails_half_way_changes_nothing(place: Place) -> None:
    place.make(1)
    place.execute(IN_THE_WAY[place.kind])
    before = place.schema(), place.version(), place.execute("SELECT count(*) FROM effects")
    done = place.migrate()
    assert (done.returncode, done.stdout) == (3, ""), done.stderr
    assert "verity_events_have_no_gaps" in done.stderr or "events_have_no_gaps already exists" in done.stderr
    assert done.stderr.count("\n") == 1
    assert (place.schema(), place.version(), place.execute("SELECT count(*) FROM effects")) == before
    place.execute(OUT_OF_THE_WAY[place.kind])
    assert place.migrate().returncode == 0
    assert place.version() == LATEST[place.kind]


def test_a_disk_that_is_full_half_way_changes_nothing(tmp_path: Path) -> None:
    place = Place("sqlite", tmp_path, str)
    place.make(1)
    connection = apsw.Connection(str(place.file))
    schema = place.schema()
    pages: Any = connection.execute("PRAGMA page_count").get
    connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(apsw.FullError):
        sqlite.migrate(connection, None)
    assert not connection.in_transaction
    connection.close()
    assert (place.version(), place.schema()) == (1, schema)
    assert place.migrate().returncode == 0


MIGRATE = """
import sys
from verity.cli.database import migrate
url = sys.argv[1]
sys.stdin.read(1)
print(*migrate(url))
"""
OPEN = """
import sys
from verity.cli.database import open_store
url = sys.argv[1]
sys.stdin.read(1)
with open_store(url) as store:
    print(len(store.list_keys()))
"""


def all_at_once(program: str, url: str) -> list[tuple[int, str, str]]:
    """Have several processes begin at the same moment; their exit codes and what they said."""
    processes = [
        subprocess.Popen(
            [VERITY[0], "-W", "error", "-c", program, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(AT_ONCE)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("x")
        process.stdin.flush()
    said = [process.communicate(timeout=120) for process in processes]
    return [(process.returncode, *each) for process, each in zip(processes, said, strict=True)]


def without_new_ledger_notice(said: list[tuple[int, str, str]], *, expected: bool) -> list[tuple[int, str, str]]:
    """What they said, but that a new file was made, which exactly one of them tells where it was."""
    told = [each for each in said if NEW_LEDGER_NOTICE in each[2]]
    assert len(told) == expected
    return [(code, out, "" if (code, out, error) in told else error) for code, out, error in said]


@pytest.mark.parametrize("version", [0, 1])
def test_several_may_migrate_at_once(place: Place, version: int, fresh_schema: list[Any]) -> None:
    latest = LATEST[place.kind]
    place.make(version)
    effects = place.execute("SELECT id FROM effects ORDER BY id") if version else []
    done = without_new_ledger_notice(all_at_once(MIGRATE, place.url), expected=place.kind == "sqlite" and not version)
    assert sorted(done) == sorted(
        [(0, f"{version} {latest}\n", "")] + [(0, f"{latest} {latest}\n", "")] * (AT_ONCE - 1)
    )
    assert (place.version(), place.schema()) == (latest, fresh_schema)
    assert place.execute("SELECT id FROM effects ORDER BY id") == effects


@pytest.mark.parametrize("version", [0, 1])
def test_connections_that_migrate_at_once_wait_for_each_other(version: int, tmp_path: Path, postgres_url: str) -> None:
    place = Place("postgres", tmp_path, lambda: postgres_url)
    place.make(version)

    async def at_once() -> list[tuple[int, int]]:
        databases = [await connect(postgres_url, readers=1) for _ in range(AT_ONCE)]
        try:
            return await asyncio.gather(*map(postgres.migrate, databases))
        finally:
            for database in databases:
                await database.close()

    latest = postgres.SCHEMA_VERSION
    assert sorted(asyncio.run(at_once())) == [(version, latest)] + [(latest, latest)] * (AT_ONCE - 1)


def test_several_may_open_an_empty_database_at_once(place: Place, fresh_schema: list[Any]) -> None:
    said = without_new_ledger_notice(all_at_once(OPEN, place.url), expected=place.kind == "sqlite")
    assert said == [(0, "0\n", "")] * AT_ONCE
    assert place.schema() == fresh_schema


def test_a_file_that_is_being_migrated_says_so(tmp_path: Path) -> None:
    place = Place("sqlite", tmp_path, str)
    place.make(1)
    other = apsw.Connection(str(place.file))
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(VerityConfigError, match=r"locked for 0\.001 seconds .* may be migrating it\. Try again"):
        open_and_migrate(str(place.file), wait_ms=1)
    other.execute("ROLLBACK")
    open_and_migrate(str(place.file))[0].close()
    other.close()


def test_a_database_of_something_else_is_left_alone(place: Place) -> None:
    place.execute("CREATE TABLE effects (x integer)")
    done = place.migrate()
    assert done.returncode == 3
    assert "another program" in done.stderr
