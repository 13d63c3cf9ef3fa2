"""A primary, its standby, and a served node that knows both. The standby stops receiving, an effect's commit waits for
it, the wait comes to an end in one way or another, and then the standby is promoted.

What must hold: whatever anybody was told as the effect's result is there afterwards, and the effect acts once. That the
scenario can see the opposite is shown by the control: the same with a primary that waits for no standby.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from tests.helpers.concurrency import OF_PROCESSES_S, sync_until
from tests.helpers.postgres import PostgresServer
from tests.helpers.silent_relay import SilentRelay
from tests.helpers.verity_process import serving
from verity import EffectPolicy, SyncVerityClient, VerityError
from verity._store.postgres.store import PostgresStore
from verity.server.api_keys import issue

NAMESPACE = "payments"
LEASE_MS = 5_000
_ASKED_AFTERWARDS_S = 0.5
_AGAIN_S = 0.02
_DATABASE_TIMEOUT_S = 0.5
_WAITING = "FROM pg_stat_activity WHERE wait_event = 'SyncRep'"


class Pair(NamedTuple):
    """What a scenario happens to."""

    primary: PostgresServer
    standby: PostgresServer
    replication: SilentRelay
    """Between primary and standby."""
    path: SilentRelay
    """Between node and primary."""
    base_url: str
    key: str


class Outcome(NamedTuple):
    """What became of the effect."""

    acts: int
    told: set[Any]
    """Results that anybody was told before the fail-over."""
    after: Any
    """The result afterwards, or None where the effect is not committed."""

    @property
    def is_lost(self) -> bool:
        return bool(self.told - {self.after})


def _cut_off(how: str) -> Callable[[Pair], None]:
    return lambda pair: pair.primary.execute(f"SELECT pg_{how}_backend(pid) {_WAITING}")


def _crash(pair: Pair) -> None:
    """It comes back with all that its own log has."""
    pair.primary.kill()
    pair.primary.start()


def _nothing(_pair: Pair) -> None:
    """The node itself gives up waiting."""


BLOWS: dict[str, Callable[[Pair], None]] = {
    "cancel": _cut_off("cancel"),
    "terminate": _cut_off("terminate"),
    "crash": _crash,
    "partition": lambda pair: pair.path.fall_silent(),
    "timeout": _nothing,
}
ONCE = ("crash", "partition")
"""The others fall again and again, since whoever asks waits anew."""


@contextmanager
def pair_of_servers(directory: Path, *, is_synchronous: bool = True) -> Iterator[Pair]:
    """A primary whose standby follows it by way of a relay, and a node that knows both."""
    with PostgresServer() as primary, SilentRelay(primary.port) as replication, SilentRelay(primary.port) as path:
        standby = primary.standby(by_way_of=replication.port)
        try:
            standby.start()
            url = primary.create_database()
            store = PostgresStore(url)
            key, record = issue("test", "agent", now=0)
            store.insert_key(record)
            store.close()
            if not is_synchronous:
                primary.execute("ALTER SYSTEM RESET synchronous_standby_names")
                primary.execute("SELECT pg_reload_conf()")
            both = f"postgresql://postgres@127.0.0.1:{path.port},127.0.0.1:{standby.port}/{url.rpartition('/')[2]}"
            options = ("--database", both, "--database-timeout", str(_DATABASE_TIMEOUT_S))
            with serving(directory, *options) as node:
                yield Pair(primary, standby, replication, path, node.base_url, key)
        finally:
            standby.close()


class Effect:
    """One effect, the world that it acts on, and what was told about it."""

    def __init__(self, pair: Pair, name: str, *, has_observe: bool) -> None:
        self.name = name
        self.has_observe = has_observe
        self.told: set[Any] = set()
        self.begun = threading.Event()
        self.may_act = threading.Event()
        self._pair = pair
        self._acts: list[str] = []

    @property
    def acts(self) -> int:
        return len(self._acts)

    def act(self) -> str:
        self.begun.set()
        assert self.may_act.wait(60)
        self._acts.append(f"{self.name} {len(self._acts) + 1}")
        return self._acts[-1]

    def protect(self) -> Any:
        """As an application does."""
        with SyncVerityClient(base_url=self._pair.base_url, api_key=self._pair.key, namespace=NAMESPACE) as client:
            observe = (lambda: self._acts[0] if self._acts else None) if self.has_observe else None
            policy = EffectPolicy(on_unknown="act")
            return client.protect(self.name, act=self.act, observe=observe, lease_duration_ms=LEASE_MS, policy=policy)

    def ask(self) -> Any:
        """The result that the node tells, or None."""
        headers = {"Authorization": f"Bearer {self._pair.key}"}
        body = {"effectKey": self.name, "leaseDurationMs": LEASE_MS}
        url = f"{self._pair.base_url}/effects/{NAMESPACE}/lease"
        answer = httpx.post(url, headers=headers, json=body, timeout=60)
        return answer.json().get("cachedResult") if answer.status_code == 200 else None

    def ask_for(self, seconds: float) -> None:
        """Ask again and again, and keep what is told."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.told |= {self.ask()} - {None}


def play(
    directory: Path, *blows: str, has_observe: bool, is_synchronous: bool = True, asked_for_s: float = 1.0
) -> dict[str, Outcome]:
    """Carry one fail-over out, with an effect for each blow; what became of them.

    Args:
        directory: for the node's log.
        blows: names of `BLOWS`.
        has_observe: whether the application can look.
        is_synchronous: False is the control: commits wait for no standby.
        asked_for_s: for how long others ask for each effect before the fail-over, in seconds.
    """
    with pair_of_servers(directory, is_synchronous=is_synchronous) as pair, ThreadPoolExecutor() as threads:
        before = Effect(pair, "before", has_observe=has_observe)
        before.may_act.set()
        assert before.protect() == "before 1"
        effects = [Effect(pair, blow, has_observe=has_observe) for blow in blows]
        calls = [threads.submit(effect.protect) for effect in effects]
        assert all(effect.begun.wait(30) for effect in effects), "they have their leases"
        pair.replication.fall_silent()
        for effect, call in zip(effects, calls, strict=True):
            _strike(pair, threads, effect, call, asked_for_s)
        pair.standby.execute("SELECT pg_promote()")
        for effect in effects:
            effect.ask_for(_ASKED_AFTERWARDS_S)  # the old primary still lives, and waits
        pair.primary.kill()
        outcomes = list(threads.map(_look_back, effects, calls))
        assert before.ask() == "before 1"
        return dict(zip(blows, outcomes, strict=True))


def _strike(pair: Pair, threads: ThreadPoolExecutor, effect: Effect, call: Future[Any], asked_for_s: float) -> None:
    """Let an effect act, and strike while its commit waits; others ask for it meanwhile."""
    effect.may_act.set()
    query = f"SELECT {_WAITING} AND query LIKE '%committed AS%'"
    sync_until(lambda: call.done() or bool(pair.primary.query(query)), OF_PROCESSES_S)
    BLOWS[effect.name](pair)
    asking = threads.submit(effect.ask_for, asked_for_s)
    while not asking.done():
        if effect.name not in ONCE:
            BLOWS[effect.name](pair)
        time.sleep(_AGAIN_S)
    asking.result()


def _look_back(effect: Effect, call: Future[Any]) -> Outcome:
    try:
        effect.told.add(call.result(timeout=60))
    except VerityError:
        if not effect.has_observe:  # who was told that it is uncertain, and can't look, does not call it again
            after = effect.ask()
            return Outcome(effect.acts, effect.told, after)
    after = effect.protect()
    return Outcome(effect.acts, effect.told, after)
