"""Effects whose acts end while the ledger is away, with real processes: a restart, a cut network, a fail-over.

What must hold: every holder gets its result, and so does every rival that waits for it. Nobody acts twice, although
nobody has an `observe` and all may act again where an outcome is unknown.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from tests.failover.scenario import pair_of_servers
from tests.helpers.any_node import AnyNode
from tests.helpers.concurrency import OF_PROCESSES_S, sync_until
from tests.helpers.postgres import PostgresServer, free_port
from tests.helpers.silent_relay import SilentRelay
from tests.helpers.verity_process import ServeProcess, run_verity, serving
from verity import (
    ConflictRetryConfig,
    EffectPolicy,
    LeaseConflictError,
    SyncVerityClient,
    VerityApiError,
    VerityConnectionError,
)
from verity._store.postgres.store import PostgresStore
from verity.config import OnConflict
from verity.server.api_keys import issue

EFFECTS = 8
NAMESPACE = "payments"
_REQUEST_TIMEOUT_S = 1.0
_RETRY = ConflictRetryConfig(max_delay_s=1.0, wait=True)
_POLICY = EffectPolicy(on_unknown="act")
_AGAIN_S = 0.1


class Ledger(NamedTuple):
    """A ledger that goes away and comes back.

    Attributes:
        holders: the URLs by which holders reach it.
        rivals: those by which rivals do.
        key: an API key.
        leave: makes the outage, and returns when the ledger is back.
    """

    holders: Sequence[str]
    rivals: Sequence[str]
    key: str
    leave: Callable[[float], None]


class Outcome(NamedTuple):
    """What came of all effects."""

    acts: Counter[str]
    """How often each effect was acted on."""
    results: dict[str, set[str]]
    """What its holder and its rival were told."""
    uncertain: list[str]
    """Errors of holders."""

    @property
    def is_right(self) -> bool:
        return (
            not self.uncertain
            and set(self.acts.values()) == {1}
            and all(len(told) == 1 for told in self.results.values())
        )


class Node:
    """A node that can be restarted on its port."""

    def __init__(self, directory: Path, *options: str) -> None:
        directory.mkdir(exist_ok=True)
        self._directory = directory
        self._options = ("--port", str(free_port()), *options)
        self._running = ExitStack()
        self._process: ServeProcess

    def start(self) -> None:
        self._process = self._running.enter_context(serving(self._directory, *self._options))

    def stop(self) -> None:
        self._process.send(signal.SIGTERM)
        self._process.wait()
        self._running.close()

    @property
    def base_url(self) -> str:
        return self._process.base_url

    def __enter__(self) -> Node:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()


@contextmanager
def restarted_node(directory: Path) -> Iterator[Ledger]:
    """One node on SQLite, which is stopped in order and started again."""
    options = ("--database", f"sqlite:///{directory}/verity.db", "--environment", "test", "--role", "agent")
    key = run_verity("keys", "create", *options).stdout.strip()
    with Node(directory) as node:

        def leave(seconds: float) -> None:
            node.stop()
            time.sleep(seconds)
            node.start()

        yield Ledger([node.base_url], [node.base_url], key, leave)


@contextmanager
def rolling_restart(directory: Path) -> Iterator[Ledger]:
    """Three nodes on PostgreSQL, which are restarted one after another."""
    with PostgresServer() as postgres, ExitStack() as stack:
        url = postgres.create_database()
        key = _create_key(url)
        nodes = [stack.enter_context(Node(directory / f"node-{number}", "--database", url)) for number in range(3)]

        def leave(seconds: float) -> None:
            for node in nodes:
                node.stop()
                time.sleep(seconds / len(nodes))
                node.start()

        urls = [node.base_url for node in nodes]
        yield Ledger(urls, urls, key, leave)


@contextmanager
def cut_network(directory: Path) -> Iterator[Ledger]:
    """One node on SQLite, from which the holders are cut off; their rivals are not."""
    options = ("--database", f"sqlite:///{directory}/verity.db", "--environment", "test", "--role", "agent")
    key = run_verity("keys", "create", *options).stdout.strip()
    with serving(directory) as node, SilentRelay(node.port) as path:

        def leave(seconds: float) -> None:
            path.fall_silent()
            time.sleep(seconds)
            path.speak_again()

        yield Ledger([f"http://127.0.0.1:{path.port}/v1"], [node.base_url], key, leave)


@contextmanager
def fail_over(directory: Path) -> Iterator[Ledger]:
    """A node whose PostgreSQL dies, and whose standby is promoted some time later."""
    with pair_of_servers(directory) as pair:

        def leave(seconds: float) -> None:
            pair.primary.kill()
            time.sleep(seconds)
            pair.standby.execute("SELECT pg_promote()")

        yield Ledger([pair.base_url], [pair.base_url], pair.key, leave)


SCENARIOS: dict[str, Callable[[Path], AbstractContextManager[Ledger]]] = {
    "node restarted": restarted_node,
    "nodes restarted in turn": rolling_restart,
    "network cut": cut_network,
    "PostgreSQL failed over": fail_over,
}


def play(directory: Path, scenario: str, seconds: float, lease_ms: int) -> Outcome:
    """Let the ledger be away for so many seconds, from right before the effects' acts end."""
    with SCENARIOS[scenario](directory) as ledger, ThreadPoolExecutor(2 * EFFECTS + 1) as threads:
        effects = [_Effect(f"effect:{number}", ledger, lease_ms) for number in range(EFFECTS)]
        holders = [threads.submit(effect.hold) for effect in effects]
        assert all(effect.begun.wait(OF_PROCESSES_S) for effect in effects), "they have their leases"
        rivals = [threads.submit(effect.rival) for effect in effects]
        sync_until(lambda: all(effect.has_rival for effect in effects), OF_PROCESSES_S)
        away = threads.submit(ledger.leave, seconds)
        sync_until(lambda: away.done() or effects[0].is_away(), OF_PROCESSES_S)
        for effect in effects:
            effect.may_end.set()
        results: dict[str, set[str]] = {}
        uncertain = []
        for effect, holder, rival in zip(effects, holders, rivals, strict=True):
            results[effect.key] = {rival.result(timeout=OF_PROCESSES_S + seconds)}
            try:
                results[effect.key].add(holder.result(timeout=OF_PROCESSES_S + seconds))
            except Exception as error:  # noqa: BLE001 - whatever it is, the holder has no result
                uncertain.append(repr(error))
        away.result(timeout=OF_PROCESSES_S)
        return Outcome(sum((effect.acts for effect in effects), Counter()), results, uncertain)


class _Effect:
    """One effect, its holder and its rival."""

    def __init__(self, key: str, ledger: Ledger, lease_ms: int) -> None:
        self.key = key
        self._ledger = ledger
        self._lease_ms = lease_ms
        self.begun = threading.Event()
        self.may_end = threading.Event()
        self.has_rival = False
        self.acts: Counter[str] = Counter()

    def hold(self) -> Any:
        def act() -> str:
            self.acts[self.key] += 1
            self.begun.set()
            assert self.may_end.wait(OF_PROCESSES_S)
            return f"the holder's {self.acts[self.key]}"

        with self._client(self._ledger.holders) as client:
            return client.protect(self.key, act=act, lease_duration_ms=self._lease_ms)

    def rival(self) -> Any:
        """As an application does: again, while the ledger is away."""

        def act() -> str:
            self.acts[self.key] += 1
            return f"the rival's {self.acts[self.key]}"

        with self._client(self._ledger.rivals) as client:
            while True:
                # The first call only shows that there is a holder; the others wait for it.
                on_conflict: OnConflict = "retry" if self.has_rival else "throw"
                try:
                    return client.protect(self.key, act=act, lease_duration_ms=self._lease_ms, on_conflict=on_conflict)
                except LeaseConflictError:
                    self.has_rival = True
                except VerityConnectionError:
                    pass
                except VerityApiError as error:
                    if error.status_code != 503:
                        raise
                time.sleep(_AGAIN_S)

    def is_away(self) -> bool:
        """Whether the holders can't reach the ledger."""
        url = self._ledger.holders[0].removesuffix("/v1")
        try:
            return httpx.get(f"{url}/readyz", timeout=0.5).status_code != 200
        except httpx.HTTPError:
            return True

    @contextmanager
    def _client(self, urls: Sequence[str]) -> Iterator[SyncVerityClient]:
        with (
            AnyNode(urls) as transport,
            SyncVerityClient(
                urls[0],
                self._ledger.key,
                NAMESPACE,
                transport=transport,
                request_timeout_s=_REQUEST_TIMEOUT_S,
                conflict_retry=_RETRY,
                policy=_POLICY,
            ) as client,
        ):
            yield client


def _create_key(database: str) -> str:
    store = PostgresStore(database)
    key, record = issue("test", "agent", now=0)
    store.insert_key(record)
    store.close()
    return key
