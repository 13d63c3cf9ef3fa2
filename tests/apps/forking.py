"""A program that uses a client, forks, and uses it on: `python -m tests.apps.forking SCENARIO`.

With FORK=C it forks as code in C does, such as uWSGI: no at-fork hook of Python's runs.

It appends what happens to the file RECORDS, as lines of JSON, for the test to judge. SIGALRM ends what hangs, and says
where.
"""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import json
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from verity import (
    ConflictRetryConfig,
    EffectPolicy,
    LeaseConflictError,
    NotExecuted,
    SyncVerityClient,
    VerityClient,
    VerityError,
)

_IN_C = os.environ.get("FORK") == "C"
CHILDREN = 8
EFFECTS = 25
SHARED_EFFECTS = 5
MANY_CHILDREN = 64
BUSY_THREADS = 4
BUSY_CHILDREN = 24
_HANGS_AFTER_S = 100
_RETRY = ConflictRetryConfig(max_attempts=10_000, initial_delay_s=0.01, max_delay_s=0.05)


def _fork() -> int:
    """As FORK says. Code in C that runs no hooks can't fork safely while another thread wants Python's lock."""
    if not _IN_C:
        return os.fork()
    before: list[str] = []
    while before != (now := _steps_of_threads()):
        before = now
        time.sleep(0.02)
    return int(ctypes.PyDLL(None).fork())


def _steps_of_threads() -> list[str]:
    """How often each other thread has run until now."""
    steps = []
    for thread in Path("/proc/self/task").iterdir():
        if thread.name != str(threading.get_native_id()):
            with suppress(FileNotFoundError):  # it ended
                steps.append(f"{thread.name} {(thread / 'schedstat').read_text().split()[2]}")
    return sorted(steps)


def record(kind: str, **what: Any) -> None:
    file = os.open(os.environ["RECORDS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, json.dumps({"kind": kind, "pid": os.getpid(), **what}).encode() + b"\n")
    os.close(file)


def acting_on(key: str) -> Callable[[], str]:
    def act() -> str:
        record("act", key=key)
        return uuid.uuid4().hex

    return act


def acting_async_on(key: str) -> Callable[[], Awaitable[str]]:
    """Without a thread: a fork that runs no hooks must find no other one on its way out, waiting for Python's lock."""

    async def act() -> str:
        return acting_on(key)()

    return act


def make_client() -> SyncVerityClient:
    return SyncVerityClient(namespace="forks", conflict_retry=_RETRY)


def protect(client: SyncVerityClient, key: str) -> None:
    record("result", key=key, result=client.protect(key, act=acting_on(key)))


def keys_of(name: str) -> list[str]:
    return [f"effect {number} of {name}" for number in range(EFFECTS)] + [
        f"effect {number} of all" for number in range(SHARED_EFFECTS)
    ]


def sockets() -> list[str]:
    """The sockets that are open in this process, by their inodes."""
    return sorted(link for link in _links() if link.startswith("socket:"))


def _links() -> list[str]:
    """What is open in this process."""
    links = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            links.append(str(link.readlink()))
        except FileNotFoundError:
            continue  # the directory's own descriptor
    return links


def work(client: SyncVerityClient, name: str) -> None:
    """What the parent and each child do at the same time."""
    for key in keys_of(name):
        protect(client, key)
    fired = threading.Event()
    client._runtime.call_later(0.0, fired.set)
    record(
        "process",
        sockets=sockets(),
        run_ids=[client.workflow("forks").case(name).run().run_id for _ in range(3)],
        timer_fired=fired.wait(_HANGS_AFTER_S),
        timer_threads=client._runtime._timers._threads,
    )


def in_child(run: Callable[[], None]) -> int:
    """Fork; the child ends as any program does, with all that the interpreter checks then. Gives its pid."""
    pid = _fork()
    if pid == 0:
        signal.alarm(_HANGS_AFTER_S)
        run()
        if threading.active_count() > 1 and _IN_C:
            os._exit(0)  # without its hooks, Python would wait for the parent's threads
        sys.exit()
    return pid


def wait_for(pids: list[int]) -> None:
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    if any(codes):
        sys.exit(f"children ended with {codes}")


def raw() -> None:
    """os.fork; parent and children begin when the pipe is closed."""
    with make_client() as client:
        protect(client, "before")
        start, gate = os.pipe()

        def child(name: str) -> None:
            os.close(gate)
            os.read(start, 1)
            work(client, name)
            client.close()

        pids = [in_child(lambda number=number: child(f"child {number}")) for number in range(CHILDREN)]  # type: ignore[misc]
        os.close(gate)
        work(client, "parent")
        wait_for(pids)
        protect(client, "after")


def many() -> None:
    """A pre-forking server: both clients are used before it, and by all of its workers at the same time."""
    client, async_client = make_client(), VerityClient(namespace="forks", conflict_retry=_RETRY)

    async def protect_too(key: str) -> None:
        record("result", key=key, result=await async_client.protect(key, act=acting_async_on(key)))

    start, gate = os.pipe()
    protect(client, "before")
    asyncio.run(protect_too("before, too"))

    def child(name: str) -> None:
        os.close(gate)
        os.read(start, 1)
        client._check_open()  # what every call begins with
        record("begun", sockets=sockets())
        protect(client, name)
        asyncio.run(protect_too(f"{name}, too"))
        protect(client, "of all")
        record("process", sockets=sockets())
        client.close()

    pids = [in_child(lambda number=number: child(f"child {number}")) for number in range(MANY_CHILDREN)]  # type: ignore[misc]
    os.close(gate)
    wait_for(pids)
    protect(client, "of all")
    record("process", sockets=sockets())
    client.close()


def with_multiprocessing() -> None:
    """The start method "fork"; a barrier lets all begin at once."""
    fork = multiprocessing.get_context("fork")
    barrier = fork.Barrier(CHILDREN + 1)
    with make_client() as client:
        protect(client, "before")

        def child(name: str) -> None:
            signal.alarm(_HANGS_AFTER_S)
            barrier.wait()
            work(client, name)

        processes = [fork.Process(target=child, args=(f"child {number}",)) for number in range(CHILDREN)]
        for process in processes:
            process.start()
        barrier.wait()
        work(client, "parent")
        for process in processes:
            process.join()
        if any(process.exitcode for process in processes):
            sys.exit(f"children ended with {[process.exitcode for process in processes]}")
        protect(client, "after")


def while_busy() -> None:
    """Forks while other threads are anywhere in protect(): between two lines, on the wire, in a transaction."""
    with make_client() as client:
        warm, enough = threading.Barrier(BUSY_THREADS + 1), threading.Event()

        def keep_busy(thread: int) -> None:
            protect(client, f"effect 0 of thread {thread}")
            warm.wait()
            number = 0
            while not enough.is_set():
                number += 1
                protect(client, f"effect {number} of thread {thread}")

        threads = [threading.Thread(target=keep_busy, args=(number,)) for number in range(BUSY_THREADS)]
        for thread in threads:
            thread.start()
        warm.wait()

        def child(name: str) -> None:
            for number in range(5):
                protect(client, f"effect {number} of {name}")
            record("process", sockets=sockets())

        pids = [in_child(lambda number=number: child(f"child {number}")) for number in range(BUSY_CHILDREN)]  # type: ignore[misc]
        wait_for(pids)
        enough.set()
        for thread in threads:
            thread.join()
        record("process", sockets=sockets())


def while_opening() -> None:
    """Forks while other threads open and close ledgers; the children open some, too."""
    enough = threading.Event()
    warm = threading.Barrier(BUSY_THREADS + 1)

    def use_a_ledger_of(name: str) -> None:
        with SyncVerityClient(f"{os.environ['VERITY_BASE_URL']}.{name}", namespace="forks") as client:
            protect(client, name)

    def keep_opening(thread: int) -> None:
        number = 0
        while not enough.is_set():
            number += 1
            use_a_ledger_of(f"{number}_of_thread_{thread}")
            if number == 1:
                warm.wait()

    threads = [threading.Thread(target=keep_opening, args=(number,)) for number in range(BUSY_THREADS)]
    for thread in threads:
        thread.start()
    warm.wait()
    pids = [in_child(lambda number=number: use_a_ledger_of(f"child_{number}")) for number in range(BUSY_CHILDREN)]  # type: ignore[misc]
    wait_for(pids)
    enough.set()
    for thread in threads:
        thread.join()


def while_reading() -> None:
    """Forks while other threads read; the children read, too, and have no file of the ledger's open to begin with."""
    with make_client() as client:
        warm, enough = threading.Barrier(BUSY_THREADS + 1), threading.Event()
        protect(client, "before")

        def read() -> None:
            assert [effect.effect_key for effect in client.effects.list()] == ["before"]
            assert client.effects.get("before").status == "COMMITTED"

        def keep_reading() -> None:
            read()
            warm.wait()
            while not enough.is_set():
                read()

        threads = [threading.Thread(target=keep_reading) for _ in range(BUSY_THREADS)]
        for thread in threads:
            thread.start()
        warm.wait()

        def child() -> None:
            files = [link for link in _links() if "verity.db" in link]
            read()
            record("process", files=files)

        wait_for([in_child(child) for _ in range(BUSY_CHILDREN)])
        enough.set()
        for thread in threads:
            thread.join()
        read()


def while_waiting() -> None:
    """Forks while another thread waits for the ledger's answer, which the relay holds back until the child connects."""
    sent = threading.Event()

    class Watch(logging.Handler):
        def emit(self, logged: logging.LogRecord) -> None:
            if logged.getMessage().startswith("receive_response_headers.started"):
                sent.set()

    logger = logging.getLogger("httpcore.http11")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logger.addHandler(Watch())
    with make_client() as client:
        thread = threading.Thread(target=lambda: protect(client, "in the parent"))
        thread.start()
        sent.wait()

        def child() -> None:
            protect(client, "in the child")
            record("process", sockets=sockets())

        wait_for([in_child(child)])
        thread.join()
        record("process", sockets=sockets())


def while_acting() -> None:
    """Forks while another thread's act runs: its lease is the parent's alone."""
    with make_client() as client:
        acting, forked = threading.Event(), threading.Event()

        def act() -> str:
            record("act", key="slow")
            acting.set()
            forked.wait()
            return "done by the parent"

        thread = threading.Thread(target=lambda: record("result", key="slow", result=client.protect("slow", act=act)))
        thread.start()
        acting.wait()

        def child() -> None:
            try:
                client.protect("slow", act=acting_on("slow"), on_conflict="throw")
            except LeaseConflictError:
                record("conflict")
            record("process", timers=len(client._runtime._timers._planned))

        wait_for([in_child(child)])
        forked.set()
        thread.join()
        protect(client, "slow")


def _forking(key: str, place: str, error: BaseException) -> tuple[Callable[[], str], Callable[[], None], Any]:
    """act, observe and on_lease. The one that `place` names forks, and its child raises the error."""

    def call(here: str) -> None:
        if here == place:
            pid = _fork()
            if pid == 0:
                raise error
            wait_for([pid])

    def act() -> str:
        call("act")
        record("act", key=key)
        return key

    return act, lambda: call("observe"), lambda _lease: call("on_lease")


def in_the_callers_code() -> None:
    """on_lease, observe and act fork, and their children leave the call by an exception: the parent goes on."""
    errors = [SystemExit(0), ValueError(), NotExecuted()]
    cases = [(f"{place} {error!r}", place, error) for place in ("on_lease", "observe", "act") for error in errors]
    policy = EffectPolicy(observe_when="always")
    client, async_client = make_client(), VerityClient(namespace="forks", conflict_retry=_RETRY)
    me = os.getpid()

    def leave() -> None:
        """End a child without the end of its parent's threads and loop."""
        if os.getpid() != me:
            os._exit(0)

    for key, place, error in cases:
        act, observe, on_lease = _forking(key, place, error)
        try:
            result = client.protect(key, act=act, observe=observe, on_lease=on_lease, policy=policy)
        finally:
            leave()
        record("result", key=key, result=result)

    async def in_a_loop(key: str, act: Any, observe: Any, on_lease: Any) -> None:
        async def act_here() -> Any:
            return act()

        async def observe_here() -> Any:
            return observe()

        try:
            call = async_client.protect(key, act=act_here, observe=observe_here, on_lease=on_lease, policy=policy)
            record("result", key=key, result=await call)
        finally:
            leave()

    async def all_in_a_loop() -> None:
        for key, place, error in cases:
            await in_a_loop(f"{key} in a loop", *_forking(f"{key} in a loop", place, error))
        await async_client.close()

    asyncio.run(all_in_a_loop())
    for effect in client.effects.list():
        key = str(effect.effect_key)
        record("events", key=key, types=[event.type for event in client.effects.events(key)])
    client.close()


def in_memory() -> None:
    """A ledger in memory stays with the parent."""
    with SyncVerityClient("sqlite://", namespace="forks") as client:
        protect(client, "before")

        def child() -> None:
            try:
                protect(client, "in the child")
            except VerityError as error:
                record("error", type=type(error).__name__, message=str(error))

        wait_for([in_child(child)])
        protect(client, "before")
        protect(client, "after")


def async_client() -> None:
    """The async client: used in a loop before the fork, in loops after it, and in a loop that runs during a fork."""
    client = VerityClient(namespace="forks", conflict_retry=_RETRY)

    async def protect_all(keys: list[str]) -> None:
        for key in keys:
            record("result", key=key, result=await client.protect(key, act=acting_async_on(key)))

    async def in_a_loop(name: str) -> None:
        await protect_all(keys_of(name))
        record("process")
        await client.close()

    async def fork_in_a_loop() -> int:
        await protect_all(["in the second loop"])
        pid = _fork()
        if pid == 0:
            signal.alarm(_HANGS_AFTER_S)
            if _IN_C:  # from Python 3.12 on, a hook is what tells asyncio that no loop runs in the child
                asyncio._set_running_loop(None)
            asyncio.run(in_a_loop("a loop's child"))
            os._exit(0)  # without the end of the parent's loop
        await in_a_loop("parent")
        return pid

    asyncio.run(protect_all(["before"]))
    pids = [in_child(lambda number=number: asyncio.run(in_a_loop(f"child {number}"))) for number in range(CHILDREN)]  # type: ignore[misc]
    wait_for([*pids, asyncio.run(fork_in_a_loop())])


SCENARIOS = {
    each.__name__: each
    for each in (
        raw,
        many,
        with_multiprocessing,
        while_busy,
        while_opening,
        while_reading,
        while_waiting,
        while_acting,
        in_the_callers_code,
        in_memory,
        async_client,
    )
}

if __name__ == "__main__":
    faulthandler.register(signal.SIGALRM, chain=True)
    signal.alarm(_HANGS_AFTER_S)
    # In development mode asyncio warns of slow steps, which a busy machine has; what is wrong, it logs as an error.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    logging.getLogger("verity.ledger").setLevel(logging.ERROR)  # each ledger is a new one, which is told as a warning
    SCENARIOS[sys.argv[1]]()
