"""Torture: nodes, PostgreSQL and clients are killed, frozen and restarted while effects go through them.

A blow falls each time that a part of the work is done, so that all of them fall, however fast the machine is. What they
are is drawn from the seed; what they meet is chance. At the end the verdict is read from records that no blow could
reach.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tests.helpers.postgres import PostgresServer, free_port
from tests.helpers.verity_process import VERITY
from tests.torture.history import Beginnings, Blow, History, count_cells, unmet
from tests.torture.verdict import Verdict, judge
from tests.torture.worker import Plan
from verity._ledger.calls import Environment
from verity._store.postgres.store import PostgresStore
from verity.server.api_keys import issue

OVERLAP = 3
LEASE_MS = 5_000
EFFECTS_FOR_A_STRAGGLER = 40
NODES = 3
DATABASE_TIMEOUT_S = 2
WEIGHTS = {
    "node killed": 6,
    "node stopped in order": 2,
    "node frozen": 3,
    "PostgreSQL killed": 4,
    "PostgreSQL restarted": 2,
    "PostgreSQL frozen": 2,
    "clients killed": 4,
}
_LOOK_AGAIN_S = 0.05
_NODE_MAY_NOT_SAY = ("a request failed", "Traceback", "refused a call")


class TortureError(Exception):
    """It could not be carried through."""


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


class Torture:
    """One run.

    Args:
        directory: for the records.
        effects: how many.
        blows: which, in their order.
        clients: how many; a third of them are sync ones, in threads.
        say: hears of the progress.
        postgres: the database server, already started.
    """

    def __init__(
        self,
        directory: Path,
        postgres: PostgresServer,
        *,
        effects: int,
        blows: list[str],
        clients: int,
        rng: random.Random,
        time_limit_s: float,
        say: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self._directory = directory
        self._postgres = postgres
        self._database = postgres.create_database()
        self._effects = effects
        self._blows = blows
        self._rng = rng
        self._say = say
        self._give_up_at = time.monotonic() + time_limit_s
        self.struck: Counter[str] = Counter()
        self._fallen: list[Blow] = []
        self.errors: Counter[str] = Counter()
        self.neighbour: Counter[str] = Counter()
        ports = [free_port() for _ in range(NODES)]
        self._nodes = [self._make_node(number, port) for number, port in enumerate(ports)]
        self._urls = [f"http://127.0.0.1:{port}/v1" for port in ports]
        self._world_log = directory / "world.log"
        self._world_log.touch()
        self._clients = clients
        self._plans: list[Plan] = []
        self._workers: list[Child] = []

    def run(self) -> Verdict:
        """Carry it out, and judge.

        Raises:
            TortureError: a worker ended by itself, or it took too long.
        """
        with self._world() as port:
            self._plan(port, self._create_key("test"))
            neighbour = self._make_neighbour(self._create_key("live"))
            try:
                for child in (*self._nodes, *self._workers, neighbour):
                    child.start()
                while not self._step():
                    time.sleep(_LOOK_AGAIN_S)
            finally:
                for child in (neighbour, *self._workers, *self._nodes):
                    child.kill()
            self.neighbour = read_neighbour(neighbour)
        history = History()
        for plan in self._plans:
            history.read(plan.name, plan.history)
        told = [plan.told for plan in self._plans]
        verdict = judge(self._effects, self._world_log, told, self._database, Beginnings(history, LEASE_MS))
        verdict.cells = count_cells(history, self._fallen)
        verdict.unmet = unmet(verdict.cells, self.struck)
        for plan in self._plans:
            for line in plan.counts.read_text().splitlines():
                self.errors.update(json.loads(line))
        for node in self._nodes:
            verdict.problems += [
                f"{node.name} said: {node.log.partition(bad)[1]}{node.log.partition(bad)[2][:2000]}"
                for bad in _NODE_MAY_NOT_SAY
                if bad in node.log
            ]
        return verdict

    def _make_node(self, number: int, port: int) -> Child:
        command = [
            *VERITY, "serve", "--database", self._database, "--port", str(port),
            "--database-timeout", str(DATABASE_TIMEOUT_S), "--drain-timeout", "10",
        ]  # fmt: skip
        return Child(f"node-{number}", command, self._directory)

    def _make_neighbour(self, key: str) -> Child:
        """A neighbour in the other environment, whom nothing is promised."""
        return Child(
            "neighbour", [sys.executable, "-m", "tests.helpers.noisy_neighbour", key, *self._urls], self._directory
        )

    def _create_key(self, environment: Environment) -> str:
        key, record = issue(environment, "agent", now=0)
        store = PostgresStore(self._database)
        store.insert_key(record)
        store.close()
        return key

    def _plan(self, world_port: int, api_key: str) -> None:
        for number in range(3):
            plan = Plan(
                name=f"worker-{number}",
                directory=str(self._directory),
                nodes=self._urls,
                api_key=api_key,
                world_port=world_port,
                effects=self._effects,
                clients=list(range(number, self._clients, 3)),
                of=self._clients,
                overlap=OVERLAP,
                lease_ms=LEASE_MS,
                stragglers=max(1, self._effects // EFFECTS_FOR_A_STRAGGLER),
                is_async=number > 0,
            )
            plan.told.touch()
            self._plans.append(plan)
            command = [sys.executable, "-m", "tests.torture.worker", str(plan.save())]
            self._workers.append(Child(plan.name, command, self._directory))

    @contextmanager
    def _world(self) -> Iterator[int]:
        command = [sys.executable, "-m", "tests.torture.world", str(self._world_log)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as world:
            assert world.stdout is not None
            try:
                yield int(world.stdout.readline())
            finally:
                world.kill()

    def _step(self) -> bool:
        """Whether all is done."""
        for node in self._nodes:
            if node.process is not None and node.process.poll() is not None:
                node.start()  # as a supervisor does: also one that found no database at its start
        ended = [worker.process.poll() for worker in self._workers if worker.process is not None]
        if all(code == 0 for code in ended):
            return True
        for worker, code in zip(self._workers, ended, strict=True):
            if code not in (None, 0):
                raise TortureError(f"{worker.name} ended by itself with {code}:\n{worker.log[-3000:]}")
        if time.monotonic() > self._give_up_at:
            raise TortureError(f"not done in time: {self._done()} of {self._effects * OVERLAP}\n{self._logs()}")
        struck = self.struck.total()
        if struck < len(self._blows) and self._done() >= (struck + 0.5) / len(self._blows) * self._effects * OVERLAP:
            blow = self._blows[struck]
            self._say(f"{self._done()} of {self._effects * OVERLAP} answers; {blow}")
            began_at = time.time_ns() // 1_000_000
            struck_worker = self._strike(blow)
            self._fallen.append(Blow(blow, began_at, struck_worker))
            self.struck[blow] += 1
        return False

    def _done(self) -> int:
        return sum(_count_lines(plan.told) for plan in self._plans)

    def _logs(self) -> str:
        return "\n".join(f"--- {child.name}\n{child.log[-1500:]}" for child in (*self._nodes, *self._workers))

    def _strike(self, blow: str) -> str | None:
        """Returns the name of the worker that it fell upon, if it was one."""
        what, how = blow.split(" ", 1)
        if what == "node":
            node = self._rng.choice(self._nodes)
            if how == "killed":
                node.kill()
            elif how == "frozen":
                node.send(signal.SIGSTOP)
                time.sleep(self._rng.uniform(0.5, LEASE_MS / 1000 + 2))
                node.send(signal.SIGCONT)
            else:
                node.send(signal.SIGTERM)
        elif what == "clients":
            worker = self._rng.choice(self._workers)
            if worker.process is not None and worker.process.poll() is None:
                worker.kill()
                worker.start()
            return worker.name
        elif how == "frozen":
            processes = self._postgres.processes()
            _send_all(processes, signal.SIGSTOP)
            time.sleep(self._rng.uniform(0.2, DATABASE_TIMEOUT_S + 3))
            _send_all(processes, signal.SIGCONT)
        else:
            self._postgres.kill() if how == "killed" else self._postgres.stop()
            time.sleep(self._rng.choice([0, 0, self._rng.uniform(0, 3)]))
            self._postgres.start()
        return None


def _send_all(processes: list[int], number: signal.Signals) -> None:
    for process in processes:
        try:
            os.kill(process, number)
        except ProcessLookupError:
            continue


def read_neighbour(neighbour: Child) -> Counter[str]:
    """How many answers the noisy neighbour got, by load.

    Raises:
        TortureError: it ended by itself.
    """
    whole = [line for line in neighbour.log.splitlines() if line.startswith("{") and line.endswith("}")]
    if "Traceback" in neighbour.log or not whole:
        raise TortureError(f"the noisy neighbour ended by itself:\n{neighbour.log[-3000:]}")
    return Counter(json.loads(whole[-1]))


def _count_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in _chunks(file))


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(1 << 20):
        yield chunk


def draw_blows(count: int, rng: random.Random) -> list[str]:
    """Each kind once, as far as they go, then by weight; in any order."""
    kinds = list(WEIGHTS)
    blows = kinds[:count] + rng.choices(kinds, list(WEIGHTS.values()), k=max(0, count - len(kinds)))
    rng.shuffle(blows)
    return blows
