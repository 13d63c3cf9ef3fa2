"""Looks up a host's addresses, and connects to one of them, with nothing that a caller's own code can use up.

Event loops look names up in the threads in which a caller's functions run: asyncio's default executor, trio's limited
threads. While those are all taken no connection opens, and no lease is renewed. So each look-up has its own thread.
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
"""A look-up that takes longer hangs. The next caller starts another."""
STAGGER_S = 0.25
"""How long an address has to itself before the next one is tried beside it (RFC 8305 says 250 ms)."""
_LEAST_S = 0.001
_FAMILIES = (socket.AF_INET, socket.AF_INET6)


class _Closable(Protocol):
    async def aclose(self) -> None: ...


S = TypeVar("S", bound=_Closable)
T = TypeVar("T")


class _LookUp:
    """One look-up of a name, shared by all who want it while it is under way."""

    def __init__(self, process_and_host: tuple[int, str]) -> None:
        self._name = process_and_host
        self.began_at: float | None = None
        self.waiting: deque[Callable[[], object]] = deque()
        self.outcome: list[str] | Exception | None = None

    def run(self) -> None:
        """Ask the system. Whoever waits looks at the outcome only after it has joined: it misses no wake-up."""
        try:
            found = socket.getaddrinfo(self._name[1], None, type=socket.SOCK_STREAM)
            outcome: list[str] | Exception = _in_order(found)
        except Exception as error:  # noqa: BLE001 - those who wait are told, whatever it is
            outcome = error
        self.outcome = self.outcome or outcome
        if _under_way.get(self._name) is self:
            _under_way.pop(self._name, None)
        while self.waiting:
            with suppress(IndexError):  # two threads may look up one name, where the first one took long
                self.waiting.popleft()()

    def addresses(self) -> list[str]:
        """What was found.

        Raises:
            OSError: nothing was; what the system says is its cause.
        """
        if isinstance(self.outcome, list):
            return self.outcome
        raise OSError(str(self.outcome)) from self.outcome


# No lock: an interrupt or a fork could leave one held for ever. Each step is one call that no other thread divides. The
# process is part of the name, since the threads of a parent do nothing in its children.
_under_way: dict[tuple[int, str], _LookUp] = {}


def _join(host: str, wake: Callable[[], object], ask_again_after_s: float) -> _LookUp:
    """Take part in a look-up; `wake` is called, in any thread, once it has an outcome."""
    name = (os.getpid(), host)
    look_up = _under_way.setdefault(name, _LookUp(name))
    look_up.waiting.append(wake)
    now = monotonic()
    if look_up.began_at is None or now - look_up.began_at > ask_again_after_s:
        try:
            # One call of C: a signal's handler can raise before it or after it. Out of `Thread.start` it could leave a
            # thread that never runs, for which others, such as a commit that must be finished, would wait in vain.
            start_new_thread(look_up.run, ())
        except RuntimeError:  # no thread is to be had: a lease that is not renewed is worse than a short wait here
            look_up.run()
        look_up.began_at = now
    return look_up


def _in_order(found: Sequence[tuple[Any, ...]]) -> list[str]:
    """The addresses in the system's order, but the second one of the other family: one of the two may lead nowhere."""
    addresses = {_literal(address): family for family, _, _, _, address in found if family in _FAMILIES}
    if not addresses:
        raise OSError("the name has no IP address")
    first_family = next(iter(addresses.values()))
    same = [address for address, family in addresses.items() if family == first_family]
    other = [address for address, family in addresses.items() if family != first_family]
    return [same[0], *other[:1], *same[1:], *other[1:]]


def _literal(address: tuple[Any, ...]) -> str:
    """A socket's address without the port; one of a single link keeps the link's number."""
    host, scope = str(address[0]), address[3] if len(address) > 3 else 0
    return f"{host}%{scope}" if scope and "%" not in host else host


def _is_literal(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


async def async_addresses(host: str, timeout: float | None, ask_again_after_s: float = ASK_AGAIN_AFTER_S) -> list[str]:
    """The addresses of a name, at least one; a literal is its own.

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
        with suppress(RuntimeError):  # the loop has ended, and with it whoever waited
            call_soon(found.set)

    look_up = _join(host, wake, ask_again_after_s)
    if look_up.outcome is None:
        with anyio.move_on_after(timeout):
            await found.wait()
    if look_up.outcome is None:
        raise TimeoutError("looking up the name took too long")
    return look_up.addresses()


def sync_addresses(host: str, timeout: float | None, ask_again_after_s: float = ASK_AGAIN_AFTER_S) -> list[str]:
    """The addresses of a name, at least one; a literal is its own.

    Raises:
        TimeoutError: there was no answer within `timeout` seconds.
        OSError: the name can't be looked up.
    """
    if _is_literal(host):
        return [host]
    turn = threading.Lock()
    turn.acquire()
    look_up = _join(host, turn.release, ask_again_after_s)
    if look_up.outcome is None:
        turn.acquire(timeout=-1 if timeout is None else min(timeout, threading.TIMEOUT_MAX))
    if look_up.outcome is None:
        raise TimeoutError("looking up the name took too long")
    return look_up.addresses()


async def async_connect(
    addresses: Sequence[str],
    connect: Callable[[str, float | None], Awaitable[S]],
    ends_at: float | None,
    errors: tuple[type[Exception], ...],
) -> S:
    """The first connection to any of the addresses: each is tried beside the ones before it where those take long.

    Args:
        addresses: at least one.
        connect: opens a connection to an address within a number of seconds.
        ends_at: when all of this is to be over, on Python's monotonic clock.
        errors: what `connect` raises where it fails. The last one is raised where all fail.
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
    """A connection to the first address that takes one, each with its share of the time that is left.

    Args:
        addresses: at least one.
        connect: opens a connection to an address within a number of seconds.
        ends_at: when all of this is to be over, on Python's monotonic clock.
        errors: what `connect` raises where it fails. The last one is raised where all fail.
    """
    *others, last = addresses
    for tried, address in enumerate(others):
        left = _left(ends_at)
        with suppress(*errors):
            return connect(address, None if left is None else left / (len(addresses) - tried))
    return connect(last, _left(ends_at))


def _left(ends_at: float | None) -> float | None:
    return None if ends_at is None else max(ends_at - monotonic(), _LEAST_S)
