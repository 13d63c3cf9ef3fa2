"""The `--database` option, and the ledger that it names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import click

if TYPE_CHECKING:
    from verity._ledger.calls import Answer, Request
    from verity._store.api_keys import ApiKey

_Command = TypeVar("_Command", bound=Callable[..., Any])


class DatabaseError(click.ClickException):
    """The database can't be used."""

    exit_code = 3


class Store(Protocol):
    """A ledger's database as commands use it, whatever its kind: every method waits until it is done."""

    def answer(self, request: Request) -> Answer:
        """Carry a call of the API out."""
        ...

    def insert_key(self, key: ApiKey) -> None:
        """Add an API key."""
        ...

    def list_keys(self) -> list[ApiKey]:
        """All API keys, oldest first."""
        ...

    def revoke_key(self, key_id: str, now: int) -> bool:
        """Revoke an API key; False where there is none with this id."""
        ...

    def close(self) -> None:
        """Close the database."""
        ...


def database_option(command: _Command) -> _Command:
    """Add `--database URL`."""
    return click.option(
        "--database",
        required=True,
        envvar="VERITY_DATABASE",
        show_envvar=True,
        metavar="URL",
        help="Where the ledger is: sqlite:///relative.db, sqlite:////absolute.db or postgresql://user@host/database.",
    )(command)


@contextmanager
def open_store(url: str, *, create: bool = True) -> Iterator[Store]:
    """Open the database, of whatever kind, for the time of a command.

    Args:
        url: where the ledger is.
        create: whether to make a ledger where there is none.

    Raises:
        DatabaseError: it can't be used.
    """
    from verity.errors import VerityConfigError
    from verity.server.opening import is_postgres

    try:
        store, failures = (_open_postgres if is_postgres(url) else _open_sqlite)(url, create)
    except VerityConfigError as error:
        raise DatabaseError(str(error)) from None
    try:
        yield store
    except failures as error:
        raise DatabaseError(f"The database does not answer ({type(error).__name__}: {error}).") from None
    finally:
        store.close()


def _open_sqlite(url: str, create: bool) -> tuple[Store, tuple[type[Exception], ...]]:
    import apsw

    from verity._store.connection import read_path
    from verity._store.sqlite import SqliteStore

    path = read_path(url)
    if path is None:
        raise DatabaseError("A ledger in memory ends with its process, and no key could reach it; name a file.")
    if not create and not Path(path).exists():
        raise DatabaseError(f"There is no ledger at {path!r}.")
    return SqliteStore(path), (apsw.Error,)


def _open_postgres(url: str, create: bool) -> tuple[Store, tuple[type[Exception], ...]]:
    from verity.server.postgres.blocking import PostgresStore
    from verity.server.postgres.database import Refusal
    from verity.server.storage import StorageError

    failures = (StorageError, Refusal)
    try:
        store = PostgresStore(url, migrated=create)
        if not create:
            try:
                store.check_version()
            except BaseException:
                store.close()
                raise
    except failures as error:
        raise DatabaseError(f"The database does not answer ({type(error).__name__}: {error}).") from None
    return store, failures
