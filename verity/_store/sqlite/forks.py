"""Forks: connections are closed before a fork, and opened again after it, in parent and child.

SQLite records its file locks in tables of the process. A fork copies the tables, but the kernel's locks stay with the
parent. A child that used the connections would believe that it holds locks which it does not have.
https://www.sqlite.org/howtocorrupt.html section 2.6

If a fork runs no hooks (see `_process.py`), the child inherits open connections. It can't open new ones beside them,
because all connections of a process to one file share the tables, so a new connection would lock nothing either.
Therefore the child first closes each inherited connection that was idle, without a checkpoint. This touches neither the
file nor the parent's locks, and empties the tables. A connection that another thread was using can't be closed. Such a
child is "stranded": it opens no file at all.
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
    """An object that has to act before and after a fork."""

    def before_fork(self) -> None: ...
    def after_fork_in_parent(self) -> None: ...
    def after_fork_in_child(self) -> None: ...


_watched: weakref.WeakSet[Forkable] = weakref.WeakSet()
_crossing: list[Forkable] = []
_fork_lock = threading.RLock()


def without_forks(work: Callable[[], T]) -> T:
    """Call `work`, and let no fork happen meanwhile. Use it for work that must not be half done in a child."""
    return holding(_fork_lock, work)


def watch(thing: Forkable) -> None:
    """Have the three methods called around every fork of this process."""
    without_forks(lambda: _watched.add(thing))


def _before() -> None:
    _fork_lock.acquire()
    _crossing[:] = list(_watched)
    for thing in _crossing:
        thing.before_fork()


def _after_in_parent() -> None:
    for thing in reversed(_crossing):
        thing.after_fork_in_parent()
    _crossing.clear()
    _fork_lock.release()


_inherited: list[apsw.Connection] = []
_is_stranded = False


def discard_inherited(*connections: apsw.Connection, in_use: bool) -> None:
    """In a child that ran no hooks: have inherited connections closed, or left open if `in_use`.

    Args:
        connections: the inherited ones.
        in_use: whether another thread used one of them at the fork; then this process is stranded.
    """
    global _is_stranded  # noqa: PLW0603 - for as long as this process lives
    _is_stranded = _is_stranded or in_use
    _inherited.extend(connections)


def _close_inherited() -> None:
    """Close the inherited connections. In a stranded process none is closed: SQLite's own mutexes may be locked."""
    while _inherited:
        connection = _inherited.pop()
        if _is_stranded:
            # Never closed, not even when the process ends: closing would roll back what the parent is writing.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
        else:
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            connection.close(force=True)


def check_not_stranded() -> None:
    """Raise VerityConfigError if this process is stranded, so that it can't use SQLite."""
    if _is_stranded:
        raise VerityConfigError(
            "This process was forked without Python's at-fork hooks while another thread used a ledger's file: SQLite "
            "can't be used here. Create the client after the fork (uWSGI: --lazy-apps), or fork while no call is under "
            "way.",
            parameter="base_url",
        )


class _Watched:
    def reset_after_fork(self) -> None:
        global _fork_lock, _is_stranded  # noqa: PLW0603 - a thread of the parent may hold the lock
        _is_stranded = _is_stranded or not _fork_lock.acquire(blocking=False)  # another thread was opening a file
        _fork_lock = threading.RLock()
        for thing in reversed(list(_watched)):
            thing.after_fork_in_child()
        _crossing.clear()
        _close_inherited()


_all_watched = _Watched()
forget_in_child(_all_watched)
# Otherwise a child that never uses Verity would close the inherited connections at its end, with a checkpoint.
atexit.register(notice_fork)

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent)
