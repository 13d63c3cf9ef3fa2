"""The `--database` option, and the store that it names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from verity._store.registry import OpenLedger

_Command = TypeVar("_Command", bound=Callable[..., Any])


class DatabaseError(click.ClickException):
    """The database can't be used."""

    exit_code = 3


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
