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
    from verity._store.registry import OpenLedger

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


def database_option(command: _Command) -> _Command:
    """Add `--database URL`."""
    return click.option(
        "--database",
        required=True,
        envvar="VERITY_DATABASE",
        show_envvar=True,
        metavar="URL",
        help="Where the ledger is: sqlite:///relative.db or sqlite:////absolute.db.",
    )(command)


@contextmanager
def open_database(url: str) -> Iterator[OpenLedger]:
    """Open the store for the time of a command.

    Raises:
        DatabaseError: it can't be used.
    """
    import apsw

    from verity._store.connection import read_path
    from verity._store.registry import open_ledger
    from verity.errors import VerityConfigError

    try:
        if read_path(url) is None:
            raise DatabaseError("A ledger in memory ends with its process, and no key could reach it; name a file.")
        ledger = open_ledger(url)
    except VerityConfigError as error:
        raise DatabaseError(str(error)) from None
    try:
        yield ledger
    except apsw.Error as error:
        raise DatabaseError(f"The database does not answer ({type(error).__name__}: {error}).") from None
    finally:
        ledger.close()


@contextmanager
def open_store(url: str, *, create: bool = True) -> Iterator[Store]:
    """Open the database, of whatever kind, for the time of a command.

    Args:
        url: where the ledger is.
        create: whether to make it where there is none.

    Raises:
        DatabaseError: it can't be used.
    """
    if not create:
        _check_exists(url)
    with open_database(url) as ledger:
        yield ledger.store


def _check_exists(url: str) -> None:
    from verity._store.connection import read_path
    from verity.errors import VerityConfigError

    try:
        path = read_path(url)
    except VerityConfigError as error:
        raise DatabaseError(str(error)) from None
    if path is not None and not Path(path).exists():
        raise DatabaseError(f"There is no ledger at {path!r}.")
