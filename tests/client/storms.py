"""Requests in a storm of signals: `python -m tests.client.storms`.

Each signal's handler raises. Afterwards all permits must be free, and no connection may be used again that an
exception went through. Prints how many requests were interrupted.
"""

from __future__ import annotations

import faulthandler
import random
import signal
import sys
import threading
from types import FrameType

import httpx

from verity._concurrency import NonBlockingLimiter, Permit
from verity._sync.connection import SyncOneConnectionTransport
from verity._sync.pool import SyncTransportPool

REQUESTS = 5_000
PLACES = 2
WITHIN_S = 60.0
LONGEST_S = 0.0003
"""A request here takes about as long."""


class Interrupted(Exception):
    """What a signal's handler raises, as a soft time limit does."""


class Connection(SyncOneConnectionTransport):
    """Without a network: it keeps a lock while it is asked, as httpcore's do."""

    meeting: threading.Barrier | None = None
    """Where requests wait for each other."""

    def __init__(self) -> None:
        super().__init__(ssl_context=False)
        self.lock = threading.Lock()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        assert self.lock.acquire(blocking=False), "a connection that was interrupted is used again"
        if self.meeting is not None:
            self.meeting.wait(WITHIN_S)
        answer = httpx.Response(200, content=b"{}", request=request)
        self.lock.release()
        return answer


def _raise(signal_number: int, frame: FrameType | None) -> None:
    """Only inside a request: Python 3.10 calls handlers before the first step of an `except`, too, which would end the
    storm itself. A signal that meets this handler is dropped.
    """
    if frame is None or frame.f_code is _raise.__code__:
        return
    while frame is not None and frame.f_code is not _ask.__code__:
        frame = frame.f_back
    if frame is not None:
        raise Interrupted


def _request(operation: str) -> httpx.Request:
    return httpx.Request("POST", f"http://127.0.0.1/v1/effects/payments/{operation}", content=b"{}")


def _ask(pool: SyncTransportPool, limiter: NonBlockingLimiter) -> None:
    permit = Permit()
    try:
        assert limiter.acquire(permit), "a permit was not returned"
        pool.handle_request(_request("commit"))
    finally:
        try:  # as the client does: see verity/_mutex.py
            limiter.permits.pop(permit, None)
        finally:
            pass


def _storm(pool: SyncTransportPool, limiter: NonBlockingLimiter) -> int:
    """How many of the requests were interrupted."""
    interrupted = 0
    chance = random.Random(1)
    for _ in range(REQUESTS):
        try:
            signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-6, LONGEST_S), chance.uniform(1e-5, LONGEST_S))
            _ask(pool, limiter)
            signal.setitimer(signal.ITIMER_REAL, 0)
        except Interrupted:
            signal.setitimer(signal.ITIMER_REAL, 0)
            interrupted += 1
    return interrupted


def _all_places_are_free(pool: SyncTransportPool) -> None:
    """As many requests as there are places meet: each has one."""
    Connection.meeting = threading.Barrier(PLACES)
    threads = [
        threading.Thread(target=pool.handle_request, args=[_request("commit")], daemon=True) for _ in range(PLACES)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WITHIN_S)
    assert not Connection.meeting.broken, "a place was not given back"
    assert not any(thread.is_alive() for thread in threads)


def main() -> None:
    """Print how many requests were interrupted; an AssertionError says what was not given back."""
    faulthandler.dump_traceback_later(WITHIN_S, exit=True)  # a place that was not given back is waited for
    signal.signal(signal.SIGALRM, _raise)
    pool, limiter = SyncTransportPool(Connection, PLACES), NonBlockingLimiter(1)
    interrupted = _storm(pool, limiter)
    _all_places_are_free(pool)
    sys.stdout.write(f"{interrupted}\n")


if __name__ == "__main__":
    main()
