"""Where a SQLite ledger is: reading its URL, and checking that its file has one name only.

SQLite keeps the log beside the name by which the file was opened. A file with two names has two logs. Processes that
use different names would be granted the same effects, and would overwrite each other's writes.
https://www.sqlite.org/howtocorrupt.html sections 2.4 and 2.5
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from verity._store.sqlite.connection import files_of
from verity.errors import VerityConfigError

_MODES = {"rw": True, "rwc": False}
MOUNTS = Path("/proc/self/mountinfo")


class Location(NamedTuple):
    """A ledger's location. Both paths are absolute, and None for a ledger in memory."""

    path: str | None
    """The path without symbolic links."""
    named: str | None = None
    """The path as the URL has it. A symbolic link in it may lead to another file later."""
    must_exist: bool = False
    """Whether a file that does not exist is an error; otherwise it is created."""


def read_location(url: str) -> Location:
    """Read a URL: `sqlite:///relative.db`, `sqlite:////absolute.db` or `sqlite://` (in memory).

    `?mode=rw` at the end: the file must exist. `?mode=rwc`, the default: it is created if it does not exist.

    Raises:
        VerityConfigError: the URL has another form, or its directory does not exist.
    """
    address, has_parameters, parameters = url.partition("?")
    must_exist = _read_mode(parameters) if has_parameters else False
    if address in ("sqlite://", "sqlite:///:memory:"):
        if has_parameters:
            raise _wrong(f"A ledger in memory takes no mode: leave out {'?' + parameters!r}.")
        return Location(None)
    path = address.removeprefix("sqlite:///")
    if path == address or not path or "#" in url:
        raise _wrong(
            f"{url!r} is not a ledger's URL: use sqlite:///relative.db, sqlite:////absolute.db, "
            "or sqlite:// for a ledger in memory."
        )
    try:
        named = Path(path).expanduser().absolute()
        file = named.resolve()
    except (OSError, RuntimeError) as error:  # a user who does not exist, or symbolic links in a circle
        raise _wrong(f"The path {path!r} of the ledger's file leads nowhere ({error}).") from None
    if not file.parent.is_dir():
        raise _wrong(f"The directory {str(file.parent)!r} of the ledger's file does not exist; create it first.")
    if file.is_dir():
        raise _wrong(f"{str(file)!r} is a directory; name a file in it.")
    return Location(str(file), str(named), must_exist)


def check_file(path: str, *, must_exist: bool, mounts: Path = MOUNTS) -> None:
    """Check the file before it is opened, without opening it.

    Args:
        path: the file.
        must_exist: whether the file has to exist.
        mounts: Linux's list of what is mounted.

    Raises:
        VerityConfigError: the file has a second name, or it must exist and does not.
    """
    if must_exist and not _size_of(path):
        raise _wrong(f"There is no ledger at {path!r}. Check the path, and whether its volume is mounted.")
    mounted = _mount_points(mounts)
    for file in files_of(path):
        if file.is_file() and file.stat().st_nlink > 1:
            raise _wrong(
                f"The ledger's file {str(file)!r} has another name, a hard link. A process that opens it by the other "
                "name uses another log: both processes would act, and overwrite each other's writes. Remove the link."
            )
        if str(file) in mounted:
            raise _wrong(
                f"The ledger's file {str(file)!r} is mounted alone, so a process that opens it by its other name uses "
                "another log: both processes would act, and overwrite each other's writes. Mount the file's directory."
            )


def _read_mode(parameters: str) -> bool:
    name, _, mode = parameters.partition("=")
    if name != "mode" or mode not in _MODES:
        raise _wrong(
            f"{'?' + parameters!r} is not known: a ledger's URL, such as sqlite:///relative.db, may end in ?mode=rw "
            "(the file must exist) or ?mode=rwc (it is created if it does not exist)."
        )
    return _MODES[mode]


def _size_of(path: str) -> int:
    """In bytes; 0 if there is no file. An empty file has no ledger either."""
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0


def _mount_points(mounts: Path) -> frozenset[str]:
    """All mount points; empty if the system has no list."""
    try:
        lines = mounts.read_bytes().splitlines()
    except OSError:
        return frozenset()
    # The fifth field; a blank, tab, line end or backslash in it is three octal digits behind a backslash.
    fields = (line.split(b" ", 5)[4] for line in lines)
    return frozenset(os.fsdecode(re.sub(rb"\\([0-7]{3})", _unescape, field)) for field in fields)


def _unescape(found: re.Match[bytes]) -> bytes:
    return bytes([int(found[1], 8)])


def _wrong(problem: str) -> VerityConfigError:
    return VerityConfigError(problem, parameter="base_url")
