"""The blows: what happens to nodes, PostgreSQL and clients while effects go through them."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.helpers.concurrency import OF_PROCESSES_S, sync_until
from tests.helpers.postgres import PostgresServer

LEASE_MS = 5_000
DATABASE_TIMEOUT_S = 2
WEIGHTS = {
    "node killed": 6,
    "node stopped in order": 2,
    "node frozen": 3,
    "nodes restarted in turn": 3,
    "nodes away": 3,
    "PostgreSQL killed": 4,
    "PostgreSQL restarted": 2,
    "PostgreSQL frozen": 2,
    "PostgreSQL away": 3,
    "clients killed": 4,
    "clients stopped in order": 3,
    "clients frozen": 3,
}
ON_SQLITE = {blow: weight for blow, weight in WEIGHTS.items() if not blow.startswith("PostgreSQL")}


class Child:
    """A process that is started again whenever it is not there."""

    def __init__(self, name: str, command: list[str], directory: Path) -> None:
        self.name = name
        self._command = command
        self._log = directory / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def send(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def stop(self) -> None:
        """Ask it to end in order, and wait until it has; a process that does not end is killed."""
        self.send(signal.SIGTERM)
        try:
            if self.process is not None:
                self.process.wait(OF_PROCESSES_S)
        except subprocess.TimeoutExpired:
            self.kill()


class Node(Child):
    """A node of the ledger."""

    def __init__(self, name: str, command: list[str], directory: Path, port: int) -> None:
        super().__init__(name, [*command, "--port", str(port)], directory)
        self.url = f"http://127.0.0.1:{port}/v1"

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url.removesuffix('/v1')}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False


class Blows:
    """Strikes.

    Args:
        nodes: all of the ledger's.
        workers: the processes of the clients.
        postgres: the database server; None: there is none to strike.
        rng: chooses whom, and for how long.
        away_s: how long the whole ledger is away, from and to: shorter and longer than a lease.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        workers: Sequence[Child],
        postgres: PostgresServer | None,
        rng: random.Random,
        away_s: tuple[float, float],
    ) -> None:
        self._nodes = nodes
        self._workers = workers
        self._postgres = postgres
        self._rng = rng
        self._away_s = away_s

    def strike(self, blow: str) -> str | None:
        """One blow, from its beginning to its end. Returns the name of the worker that it fell upon, if it was one."""
        what, how = blow.split(" ", 1)
        if what == "node":
            self._strike_node(self._rng.choice(self._nodes), how)
        elif what == "nodes":
            self._strike_nodes(how)
        elif what == "clients":
            worker = self._rng.choice(self._workers)
            if how == "frozen":
                worker.send(signal.SIGSTOP)
                time.sleep(LEASE_MS / 1000 + self._rng.uniform(0.5, 2.5))
                worker.send(signal.SIGCONT)
            elif worker.process is not None and worker.process.poll() is None:
                worker.kill() if how == "killed" else worker.stop()
                worker.start()
            return worker.name
        else:
            self._strike_postgres(how)
        return None

    def _strike_node(self, node: Node, how: str) -> None:
        if how == "killed":
            node.kill()
        elif how == "frozen":
            node.send(signal.SIGSTOP)
            time.sleep(self._rng.uniform(0.5, LEASE_MS / 1000 + 2))
            node.send(signal.SIGCONT)
        else:
            node.send(signal.SIGTERM)

    def _strike_nodes(self, how: str) -> None:
        if how == "away":
            in_order = self._rng.random() < 0.5
            for node in self._nodes:
                node.send(signal.SIGTERM) if in_order else node.kill()
            for node in self._nodes:
                node.stop()
            time.sleep(self._rng.uniform(*self._away_s))
            for node in self._nodes:
                node.start()
        else:
            for node in self._nodes:
                node.stop()
                node.start()
                sync_until(node.is_ready, OF_PROCESSES_S)

    def _strike_postgres(self, how: str) -> None:
        assert self._postgres is not None
        if how == "frozen":
            processes = self._postgres.processes()
            _send_all(processes, signal.SIGSTOP)
            time.sleep(self._rng.uniform(0.2, DATABASE_TIMEOUT_S + 3))
            _send_all(processes, signal.SIGCONT)
            return
        self._postgres.stop() if how == "restarted" else self._postgres.kill()
        time.sleep(
            self._rng.uniform(*self._away_s) if how == "away" else self._rng.choice([0, 0, self._rng.uniform(0, 3)])
        )
        self._postgres.start()


def draw_blows(count: int, rng: random.Random, weights: Mapping[str, int] = WEIGHTS) -> list[str]:
    """Each kind once, as far as they go, then by weight; in any order."""
    kinds = list(weights)
    blows = kinds[:count] + rng.choices(kinds, list(weights.values()), k=max(0, count - len(kinds)))
    rng.shuffle(blows)
    return blows


def _send_all(processes: list[int], number: signal.Signals) -> None:
    for process in processes:
        try:
            os.kill(process, number)
        except ProcessLookupError:
            continue
