"""Stores and forks: connections are closed before a fork and opened anew after it, in parent and child.

SQLite keeps its file locks per process, in tables that a fork copies while the kernel's locks stay behind: a child
that used them would believe that it holds locks which it has not. https://www.sqlite.org/howtocorrupt.html section 2.6
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Forkable(Protocol):
    """What can be brought over a fork."""

    def before_fork(self) -> None: ...
    def after_fork_in_parent(self) -> None: ...
    def after_fork_in_child(self) -> None: ...


_watched: weakref.WeakSet[Forkable] = weakref.WeakSet()
_crossing: list[Forkable] = []
_no_fork = threading.RLock()


@contextmanager
def held_off() -> Iterator[None]:
    """No fork happens meanwhile: for what a fork must find either not begun or done, such as opening a file."""
    with _no_fork:
        yield


def watch(thing: Forkable) -> None:
    """Have the three methods called around every fork of this process."""
    with held_off():
        _watched.add(thing)


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


def _after_in_child() -> None:
    global _no_fork  # noqa: PLW0603 - a lock of the parent's threads is of no use here
    _no_fork = threading.RLock()
    for thing in reversed(_crossing):
        thing.after_fork_in_child()
    _crossing.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
