"""Reads of a SQLite ledger that last as long as the test wants."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import apsw

_LONG_S = 20.0
"""Longer than any test needs; what lasts so long has not been given up, or kept others waiting."""
_ENDLESS = """
CREATE TEMP VIEW effects AS
WITH RECURSIVE forever(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM forever WHERE lasts())
SELECT real.* FROM forever, main.effects AS real
"""


@contextmanager
def _on_new_connections(hook: Callable[[apsw.Connection], None]) -> Iterator[None]:
    apsw.connection_hooks.append(hook)
    try:
        yield
    finally:
        apsw.connection_hooks.remove(hook)


@contextmanager
def endless_reads() -> Iterator[None]:
    """On connections that are opened meanwhile, a query of effects never ends, if there is an effect."""
    lasting, end = threading.Event(), time.monotonic() + _LONG_S
    lasting.set()

    def make_endless(connection: apsw.Connection) -> None:
        connection.create_scalar_function("lasts", lambda *_: lasting.is_set() and time.monotonic() < end, 0)
        connection.execute(_ENDLESS)

    with _on_new_connections(make_endless):
        try:
            yield
        finally:
            lasting.clear()


class Gate:
    """Searches by a part of the key stop here, in the middle of their query."""

    def __init__(self) -> None:
        self.reached = 0
        self._open = threading.Event()
        self._counting = threading.Lock()

    def pass_through(self, *_arguments: object) -> bool:
        with self._counting:
            self.reached += 1
        assert self._open.wait(_LONG_S)
        return True

    def open(self) -> None:
        self._open.set()


@contextmanager
def held_searches() -> Iterator[Gate]:
    """A `Gate` for the connections that are opened meanwhile. It opens at the end."""
    gate = Gate()
    with _on_new_connections(lambda connection: connection.create_scalar_function("instr", gate.pass_through, 2)):
        try:
            yield gate
        finally:
            gate.open()
