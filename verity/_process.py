"""Fork safety: objects that a forked child must not share with its parent are reset in the child, before their use.

`os.fork` runs Python's at-fork hooks. A fork in C code, such as uWSGI's without `--lazy-apps`, does not. So each entry
of a client or a store also compares the process id, which costs a fraction of a microsecond.
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
# A lock for each process: a thread of the parent, which the child does not have, may hold the parent's lock.
_locks: dict[int, threading.RLock] = {}


def forget_in_child(thing: _Forkable) -> None:
    """Register `thing`: every child process calls its `reset_after_fork()`. The reference to it is weak.

    For objects that have sockets, threads or locks, none of which a child may use.
    """
    notice_fork()
    _forkables.add(thing)


def notice_fork() -> None:
    """Reset all registered objects, once, if this process is a forked child that has not done so.

    Each entry of a client and of a store calls it. Other threads of the child wait until the reset is done.
    """
    if os.getpid() != _known:
        _reset_in_child()


def _reset_in_child() -> None:
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
    _known = _NONE  # in another PID namespace, a child may have its parent's id
    _reset_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
