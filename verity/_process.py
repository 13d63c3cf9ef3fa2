"""Which process this is: what must not be used in the child of a fork is replaced there, before anything uses it.

Python's own forks run at-fork hooks. A fork in C runs none: uWSGI's without `--lazy-apps`, for one. So the process id
is compared as well, wherever a client or a store is used. It costs a fraction of a microsecond.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any, Protocol

from verity._mutex import holding


class _Forkable(Protocol):
    def reset_after_fork(self) -> None: ...


_NONE = 0
"""No process has this id."""

_known = os.getpid()
_resetting = _NONE
_forkables: weakref.WeakSet[Any] = weakref.WeakSet()
# A lock for each process: the parent's may be held by a thread that is not here.
_locks: dict[int, threading.RLock] = {}


def forget_in_child(thing: _Forkable) -> None:
    """Have `thing.reset_after_fork()` called in every child process: sockets, threads and locks stay behind."""
    notice_fork()
    _forkables.add(thing)


def notice_fork() -> None:
    """Reset everything that came from the parent, once, if this process is a child of the one that made it.

    Called at each entry of a client and of a store. Other threads of the child wait until it is done.
    """
    if os.getpid() != _known:
        _begin_anew()


def _begin_anew() -> None:
    holding(_locks.setdefault(os.getpid(), threading.RLock()), _reset)


def _reset() -> None:
    global _known, _resetting  # noqa: PLW0603 - a process has one id
    pid = os.getpid()
    if pid in (_known, _resetting):
        return
    _resetting = pid
    try:
        for thing in list(_forkables):
            thing.reset_after_fork()
        _known = pid
    finally:
        try:  # see verity/_mutex.py
            _resetting = _NONE
        finally:
            pass


def _after_fork_in_child() -> None:
    global _known  # noqa: PLW0603 - a process has one id
    _known = _NONE  # in a PID namespace of its own, a child may have its parent's id
    _begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
