"""Stores and forks: connections are closed before a fork and opened anew after it, in parent and child.

SQLite keeps its file locks per process, in tables that a fork copies while the kernel's locks stay behind: a child
that used them would believe that it holds locks which it has not. https://www.sqlite.org/howtocorrupt.html section 2.6

Where a fork runs no hooks (see `_process.py`), the child finds the connections open. It must not go on beside them:
every connection of a process to one file shares those tables, so a new one would not lock anything either. The child
closes each connection that was idle, without a checkpoint, which touches neither the file nor the parent's locks; then
the tables are empty. What another thread used at that moment can't be closed, and no file is opened in that child.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
import weakref
from collections.abc import Callable
from typing import Protocol, TypeVar

import apsw

from verity._mutex import holding
from verity._process import forget_in_child, notice_fork
from verity.errors import VerityConfigError

T = TypeVar("T")


class Forkable(Protocol):
    """What can be brought over a fork."""

    def before_fork(self) -> None: ...
    def after_fork_in_parent(self) -> None: ...
    def after_fork_in_child(self) -> None: ...


_watched: weakref.WeakSet[Forkable] = weakref.WeakSet()
_crossing: list[Forkable] = []
_no_fork = threading.RLock()


def hold_off(work: Callable[[], T]) -> T:
    """No fork happens during `work`: a fork must find it either not begun or done, such as opening a file."""
    return holding(_no_fork, work)


def watch(thing: Forkable) -> None:
    """Have the three methods called around every fork of this process."""
    hold_off(lambda: _watched.add(thing))


def _before() -> None:
    _no_fork.acquire()
    _crossing[:] = list(_watched)
    for thing in _crossing:
        thing.before_fork()


def _after_in_parent() -> None:
    for thing in reversed(_crossing):
        thing.after_fork_in_parent()
    _crossing.clear()
    _no_fork.release()


_inherited: list[apsw.Connection] = []
_is_stranded = False


def discard_inherited(*connections: apsw.Connection, in_use: bool) -> None:
    """In a child that ran no hooks: have connections of the parent's closed, or left alone if one was in use."""
    global _is_stranded  # noqa: PLW0603 - for as long as this process lives
    _is_stranded = _is_stranded or in_use
    _inherited.extend(connections)


def _close_inherited() -> None:
    """Close them as if they had never been; none, where a thread that is not here may hold a lock of SQLite's own."""
    while _inherited:
        connection = _inherited.pop()
        if _is_stranded:
            # Never closed, not at the end of the process either: that would undo what the parent is writing.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
        else:
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            connection.close(force=True)


def check_not_stranded() -> None:
    """Raises VerityConfigError where this process can't use SQLite."""
    if _is_stranded:
        raise VerityConfigError(
            "This process was forked without Python's at-fork hooks while another thread used a ledger's file: SQLite "
            "can't be used here. Create the client after the fork (uWSGI: --lazy-apps), or fork while no call is under "
            "way.",
            parameter="base_url",
        )


class _Watched:
    def reset_after_fork(self) -> None:
        global _no_fork, _is_stranded  # noqa: PLW0603 - a lock of the parent's threads is of no use here
        _is_stranded = _is_stranded or not _no_fork.acquire(blocking=False)  # somebody was opening a file
        _no_fork = threading.RLock()
        for thing in reversed(list(_watched)):
            thing.after_fork_in_child()
        _crossing.clear()
        _close_inherited()


_all_watched = _Watched()
forget_in_child(_all_watched)
# A child that ends without a use of its own would close what it inherited, with a checkpoint.
atexit.register(notice_fork)

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent)
