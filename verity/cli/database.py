"""The `--database` option, and opening, migrating and backing up the database that it names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import click

from verity.cli.texts import read_setting

if TYPE_CHECKING:
    from verity._ledger.calls import Answer, Request
    from verity._store.api_keys import ApiKey
    from verity._store.purging import Purge
    from verity._store.sqlite.backup import Backup

Failures = tuple[type[Exception], ...]
_Command = TypeVar("_Command", bound=Callable[..., Any])


class DatabaseError(click.ClickException):
    """The database can't be used."""

    exit_code = 3


class Store(Protocol):
    """A ledger's database as commands use it, on SQLite or PostgreSQL. Every method blocks until it is done."""

    def answer(self, request: Request) -> Answer:
        """Carry out a call of the API."""
        ...

    def insert_key(self, key: ApiKey) -> None:
        """Add an API key."""
        ...

    def list_keys(self) -> list[ApiKey]:
        """All API keys, oldest first."""
        ...

    def revoke_key(self, key_id: str, now: int) -> bool:
        """Revoke an API key; returns False if there is no key with this id."""
        ...

    def now_ms(self) -> int:
        """The ledger's clock, in ms since 1970."""
        ...

    def purge(self, purge: Purge) -> Purge:
        """Purge one batch, durably; returns the purge with its progress."""
        ...

    def close(self) -> None:
        """Close the database."""
        ...


def database_option(command: _Command) -> _Command:
    """Add `--database URL`."""
    return click.option(
        "--database",
        callback=read_setting,
        required=True,
        envvar="VERITY_DATABASE",
        show_envvar=True,
        metavar="URL",
        help="The ledger's database: sqlite:///relative.db, sqlite:////absolute.db or postgresql://user@host/database.",
    )(command)


def _no_answer(error: Exception) -> str:
    return f"The database does not answer ({type(error).__name__}: {error})."


@contextmanager
def open_store(url: str, *, create: bool = True) -> Iterator[Store]:
    """Open the database, on SQLite or PostgreSQL, for the time of a command. It refuses an older schema.

    Args:
        url: the database's URL.
        create: whether to make a ledger if the database has none.

    Raises:
        DatabaseError: the database can't be used.
    """
    from verity._store.opening import is_postgres
    from verity.errors import VerityConfigError

    with _translating_errors((VerityConfigError,), str):
        store, failures = (_open_postgres if is_postgres(url) else _open_sqlite)(url, create)
    with _translating_errors(failures), closing(store):
        yield store


def migrate(url: str) -> tuple[int, int]:
    """Bring the database's schema up to date, and make it if there is none.

    Returns:
        The schema's version before and now.

    Raises:
        DatabaseError: the database can't be used.
    """
    from verity._store.opening import is_postgres, read_file
    from verity._store.sqlite.connection import open_and_migrate
    from verity._store.sqlite.location import check_file
    from verity._store.sqlite.migrations import SCHEMA_VERSION
    from verity.errors import VerityConfigError

    with _translating_errors((VerityConfigError,), str):
        if not is_postgres(url):
            place = read_file(url)
            check_file(str(place.path), must_exist=place.must_exist)
            connection, before = open_and_migrate(place.path)
            connection.close()
            return before, SCHEMA_VERSION
        from verity._store.postgres.store import PostgresStore

        with _translating_errors(_postgres_failures()), closing(PostgresStore(url, migrated=False)) as store:
            return store.migrate()


def back_up(url: str, target: str) -> Backup:
    """Copy a SQLite ledger to a new file.

    Raises:
        DatabaseError: the ledger can't be copied.
        click.UsageError: the ledger is in PostgreSQL.
    """
    import apsw

    from verity._store.opening import is_postgres, read_file
    from verity._store.sqlite.backup import back_up as back_up_file
    from verity.errors import VerityConfigError

    if is_postgres(url):
        raise click.UsageError("A ledger in PostgreSQL is backed up with pg_dump or pg_basebackup.")
    with _translating_errors((VerityConfigError,), str):
        path = str(read_file(url).path)
        with _translating_errors(
            (apsw.Error, OSError), lambda error: f"The ledger was not copied ({type(error).__name__}: {error})."
        ):
            return back_up_file(path, target)


def _open_sqlite(url: str, create: bool) -> tuple[Store, Failures]:
    import apsw

    from verity._store.opening import read_file
    from verity._store.reads import COMMAND_READS_WITHIN_S
    from verity._store.sqlite.store import SqliteStore

    place = read_file(url)
    store = SqliteStore.at(place if create else place._replace(must_exist=True), upgrade=False)
    store.read_within_s = COMMAND_READS_WITHIN_S
    return store, (apsw.Error,)


def _open_postgres(url: str, create: bool) -> tuple[Store, Failures]:
    from verity._store.postgres.store import PostgresStore

    with _translating_errors(_postgres_failures()):
        store = PostgresStore(url, migrated=create)
        if not create:
            try:
                store.check_version()
            except BaseException:
                store.close()
                raise
    return store, _postgres_failures()


def _postgres_failures() -> Failures:
    from verity._store.interface import StorageError
    from verity._store.postgres.database import StatementRefused

    return StorageError, StatementRefused


@contextmanager
def _translating_errors(failures: Failures, words: Callable[[Exception], str] = _no_answer) -> Iterator[None]:
    """Turn these exceptions into a `DatabaseError`: a message in one line, and its exit code."""
    try:
        yield
    except failures as error:
        raise DatabaseError(words(error)) from None
