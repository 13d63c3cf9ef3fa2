"""Where a SQLite ledger is: what its URL says, and whether the file there has one name only.

SQLite's log is beside the name by which a file was opened. Two names of one file have two logs: both sides would be
granted the same effects, and overwrite what the other wrote.
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
    """A ledger's place. Both paths are absolute, and None for a ledger in memory."""

    path: str | None
    """The file itself: no part of it is a symbolic link."""
    named: str | None = None
    """The same as it was written. It may lead to another file later."""
    must_exist: bool = False
    """Whether a file that is not there is an error, and not a new ledger."""


def read_location(url: str) -> Location:
    """The place that `sqlite:///relative.db`, `sqlite:////absolute.db` or `sqlite://` (in memory) names.

    `?mode=rw` at the end says that the file must exist; `?mode=rwc`, which makes it, is the default.

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
    """Look at the file before it is opened, without touching it.

    Args:
        path: the file.
        must_exist: whether it has to be there.
        mounts: what the system has mounted, as Linux tells it.

    Raises:
        VerityConfigError: it has another name, by which others may open it; or it must exist, and does not.
    """
    if must_exist and not _size_of(path):
        raise _wrong(f"There is no ledger at {path!r}. Check the path, and whether its volume is mounted.")
    mounted = _mount_points(mounts)
    for file in files_of(path):
        if file.is_file() and file.stat().st_nlink > 1:
            raise _wrong(
                f"The ledger's file {str(file)!r} has another name, a hard link. Who opens it by the other name has a "
                "log of its own: both would act, and overwrite each other. Remove the link."
            )
        if str(file) in mounted:
            raise _wrong(
                f"The ledger's file {str(file)!r} is mounted alone, so that its log is not beside the one of its other "
                "name: both sides would act, and overwrite each other. Mount the directory that has the file."
            )


def _read_mode(parameters: str) -> bool:
    name, _, mode = parameters.partition("=")
    if name != "mode" or mode not in _MODES:
        raise _wrong(
            f"{'?' + parameters!r} is not known: a ledger's URL, such as sqlite:///relative.db, may end in ?mode=rw "
            "(the file must exist) or ?mode=rwc (it is made where there is none)."
        )
    return _MODES[mode]


def _size_of(path: str) -> int:
    """In bytes; an empty file holds no ledger, like one that is not there."""
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0


def _mount_points(mounts: Path) -> frozenset[str]:
    """All of them, where the system tells."""
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
