"""An exception that a signal's handler, or another thread, raises in a thread that uses the sync client."""

from __future__ import annotations

import threading

from tests.gather import sync_until
from verity._concurrency.lines import SyncLines

# --- a line of threads that wait for the same effect ---


def test_a_thread_that_could_not_leave_its_line_holds_up_nobody() -> None:
    lines = SyncLines()
    first, second = lines.place("k"), lines.place("k")
    assert first.turn(30)
    turns: list[bool] = []
    thread = threading.Thread(target=lambda: turns.append(second.turn(30)), daemon=True)
    thread.start()
    sync_until(lambda: len(lines.lines["k"]) == 2)
    first.is_gone = True  # all that is certain to be done where a second interrupt follows
    sync_until(lambda: turns == [True])
    second.leave()
    assert not lines.lines


def test_what_is_shared_in_a_line_is_for_those_who_wait() -> None:
    lines = SyncLines()
    first, late = lines.place("k"), lines.place("k")
    assert first.turn(30)
    first.share("an answer")
    assert late.turn(30)
    assert late.shared is None
    first.leave()
    late.leave()
    assert not lines.lines
