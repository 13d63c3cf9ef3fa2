"""DNS lookups in threads of their own, and connections to one of the addresses found.

Event loops look names up in shared threads: asyncio in its default executor, trio in its limited threads. The caller's
functions run in the same threads. While all of them are busy, no connection opens and no lease is renewed.
"""

from __future__ import annotations

import os
import socket
import threading
from _thread import start_new_thread
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from ipaddress import ip_address
from typing import Any, Protocol, TypeVar

from verity._clock import monotonic
from verity._concurrency.loops import asyncio_loop

ASK_AGAIN_AFTER_S = 5.0
"""A lookup that takes longer hangs. The next caller starts another one."""
STAGGER_S = 0.25
"""How long an attempt runs alone before one to the next address starts beside it (RFC 8305 says 250 ms)."""
_LEAST_S = 0.001
_FAMILIES = (socket.AF_INET, socket.AF_INET6)


class _Closable(Protocol):
    async def aclose(self) -> None: ...


S = TypeVar("S", bound=_Closable)
T = TypeVar("T")


class _Lookup:
    """One lookup of a name. All callers that want the name meanwhile share it."""

    def __init__(self, process_and_host: tuple[int, str]) -> None:
        self._name = process_and_host
        self.began_at: float | None = None
        self.waiting: deque[Callable[[], object]] = deque()
        self.outcome: list[str] | Exception | None = None

    def run(self) -> None:
        """Ask the system, and wake the callers. A caller joins before it reads the outcome, so it misses no wake-up."""
        try:
            found = socket.getaddrinfo(self._name[1], None, type=socket.SOCK_STREAM)
            outcome: list[str] | Exception = _in_order(found)
        except Exception as error:  # noqa: BLE001 - each caller that waits raises it
            outcome = error
        self.outcome = self.outcome or outcome
        if _under_way.get(self._name) is self:
            _under_way.pop(self._name, None)
        while self.waiting:
            with suppress(IndexError):  # two threads may look up one name, if the first one took long
                self.waiting.popleft()()

    def addresses(self) -> list[str]:
        """The addresses found.

        Raises:
            OSError: the lookup failed; the system's error is the cause.
        """
        if isinstance(self.outcome, list):
            return self.outcome
        raise OSError(str(self.outcome)) from self.outcome


# No lock: an interrupt or a fork could leave it locked for ever. Each step is one call that no other thread divides.
# The process id is part of the key, since the threads of a parent process do not run in its children.
_under_way: dict[tuple[int, str], _Lookup] = {}


def _join(host: str, wake: Callable[[], object], ask_again_after_s: float) -> _Lookup:
    """Join the lookup of a name, or start it. `wake` is called, in any thread, once there is an outcome."""
    name = (os.getpid(), host)
    lookup = _under_way.setdefault(name, _Lookup(name))
    lookup.waiting.append(wake)
    now = monotonic()
    if lookup.began_at is None or now - lookup.began_at > ask_again_after_s:
        try:
            # One call into C, which no signal handler divides. An exception inside `Thread.start` could leave a thread
            # that never runs, and other callers, such as a commit that must be finished, would wait for it in vain.
            start_new_thread(lookup.run, ())
        except RuntimeError:  # no thread can be started; to block here is better than not to renew a lease
            lookup.run()
        lookup.began_at = now
    return lookup


def _in_order(found: Sequence[tuple[Any, ...]]) -> list[str]:
    """The addresses in the system's order, except that the second is of the other IP family (one may be broken)."""
    addresses = {_literal(address): family for family, _, _, _, address in found if family in _FAMILIES}
    if not addresses:
        raise OSError("the name has no IP address")
    first_family = next(iter(addresses.values()))
    same = [address for address, family in addresses.items() if family == first_family]
    other = [address for address, family in addresses.items() if family != first_family]
    return [same[0], *other[:1], *same[1:], *other[1:]]


def _literal(address: tuple[Any, ...]) -> str:
    """The host of a socket address, without the port. A link-local address keeps its scope id."""
    host, scope = str(address[0]), address[3] if len(address) > 3 else 0
    return f"{host}%{scope}" if scope and "%" not in host else host


def _is_literal(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


async def async_addresses(host: str, timeout: float | None, ask_again_after_s: float = ASK_AGAIN_AFTER_S) -> list[str]:
    """The addresses of a host name, at least one. An IP address is returned as it is.

    Raises:
        TimeoutError: there was no answer within `timeout` seconds.
        OSError: the name can't be looked up.
    """
    if _is_literal(host):
        return [host]
    import anyio

    found = anyio.Event()
    loop = asyncio_loop()
    if loop is None:
        import trio

        call_soon: Callable[..., object] = trio.lowlevel.current_trio_token().run_sync_soon
    else:
        call_soon = loop.call_soon_threadsafe

    def wake() -> None:
        with suppress(RuntimeError):  # the loop has ended, and with it the task that waited
            call_soon(found.set)

    lookup = _join(host, wake, ask_again_after_s)
    if lookup.outcome is None:
        with anyio.move_on_after(timeout):
            await found.wait()
    if lookup.outcome is None:
        raise TimeoutError("looking up the name took too long")
    return lookup.addresses()


def sync_addresses(host: str, timeout: float | None, ask_again_after_s: float = ASK_AGAIN_AFTER_S) -> list[str]:
    """The addresses of a host name, at least one. An IP address is returned as it is.

    Raises:
        TimeoutError: there was no answer within `timeout` seconds.
        OSError: the name can't be looked up.
    """
    if _is_literal(host):
        return [host]
    found = threading.Lock()
    found.acquire()
    lookup = _join(host, found.release, ask_again_after_s)
    if lookup.outcome is None:
        found.acquire(timeout=-1 if timeout is None else min(timeout, threading.TIMEOUT_MAX))
    if lookup.outcome is None:
        raise TimeoutError("looking up the name took too long")
    return lookup.addresses()


async def async_connect(
    addresses: Sequence[str],
    connect: Callable[[str, float | None], Awaitable[S]],
    ends_at: float | None,
    errors: tuple[type[Exception], ...],
) -> S:
    """The first connection to any of the addresses. Attempts overlap: each starts `STAGGER_S` after the one before.

    Args:
        addresses: at least one.
        connect: opens a connection to an address within a number of seconds.
        ends_at: the deadline for all attempts, in seconds of `verity._clock.monotonic`; None for no deadline.
        errors: the exceptions of a failed `connect`. If all attempts fail, the last exception is raised.
    """
    if len(addresses) == 1:
        return await connect(addresses[0], _left(ends_at))
    import anyio

    opened: list[S] = []
    failures: list[Exception] = []

    async def attempt(address: str, over: anyio.Event) -> None:
        try:
            connection = await connect(address, _left(ends_at))
        except errors as error:
            failures.append(error)
        else:
            if opened:
                await connection.aclose()
            else:
                opened.append(connection)
                group.cancel_scope.cancel()
        finally:
            over.set()

    try:
        async with anyio.create_task_group() as group:
            for address in addresses:
                over = anyio.Event()
                group.start_soon(attempt, address, over)
                with anyio.move_on_after(STAGGER_S):
                    await over.wait()
    except BaseException:
        with anyio.CancelScope(shield=True):
            for connection in opened:
                await connection.aclose()
        raise
    if opened:
        return opened[0]
    raise failures[-1]


def sync_connect(
    addresses: Sequence[str],
    connect: Callable[[str, float | None], T],
    ends_at: float | None,
    errors: tuple[type[Exception], ...],
) -> T:
    """A connection to the first address that accepts one. Each attempt gets an equal share of the time that is left.

    Args:
        addresses: at least one; tried one after the other.
        connect: opens a connection to an address within a number of seconds.
        ends_at: the deadline for all attempts, in seconds of `verity._clock.monotonic`; None for no deadline.
        errors: the exceptions of a failed `connect`. If all attempts fail, the last exception is raised.
    """
    *others, last = addresses
    for tried, address in enumerate(others):
        left = _left(ends_at)
        with suppress(*errors):
            return connect(address, None if left is None else left / (len(addresses) - tried))
    return connect(last, _left(ends_at))


def _left(ends_at: float | None) -> float | None:
    return None if ends_at is None else max(ends_at - monotonic(), _LEAST_S)
