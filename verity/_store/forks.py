"""Stores and forks: connections are closed before a fork and opened anew after it, in parent and child.

SQLite keeps its file locks per process, in tables that a fork copies while the kernel's locks stay behind: a child
that used them would believe that it holds locks which it has not. https://www.sqlite.org/howtocorrupt.html section 2.6
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol


class Forkable(Protocol):
    """What can be brought over a fork."""

    def before_fork(self) -> None: ...
    def after_fork_in_parent(self) -> None: ...
    def after_fork_in_child(self) -> None: ...


_watched: weakref.WeakSet[Forkable] = weakref.WeakSet()
_crossing: list[Forkable] = []
_one_at_a_time = threading.Lock()


def watch(thing: Forkable) -> None:
    """Have the three methods called around every fork of this process."""
    _watched.add(thing)


def _before() -> None:
    _one_at_a_time.acquire()
    _crossing[:] = list(_watched)
    for thing in _crossing:
        thing.before_fork()


def _after_in_parent() -> None:
    for thing in reversed(_crossing):
        thing.after_fork_in_parent()
    _crossing.clear()
    _one_at_a_time.release()


def _after_in_child() -> None:
    global _one_at_a_time  # noqa: PLW0603 - a lock of the parent's threads is of no use here
    _one_at_a_time = threading.Lock()
    for thing in reversed(_crossing):
        thing.after_fork_in_child()
    _crossing.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
