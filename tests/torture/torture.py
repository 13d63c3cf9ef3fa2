"""Torture: nodes, PostgreSQL and clients are killed, frozen and restarted while effects go through them.

A blow falls each time that a part of the work is done, so that all of them fall, however fast the machine is. What they
are is drawn from the seed; what they meet is chance. At the end the verdict is read from records that no blow could
reach.
"""

from __future__ import annotations

import json
import random
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, Popen
from typing import IO, Any

from tests.helpers.postgres import PostgresServer, free_port
from tests.helpers.verity_process import VERITY, run_verity
from tests.torture.aftermath import Person
from tests.torture.blows import DATABASE_TIMEOUT_S, LEASE_MS, Blows, Child, Node
from tests.torture.history import Beginnings, Blow, History, count_cells, find_overtaken, unmet
from tests.torture.notes import Notes, read_counts
from tests.torture.plan import Plan
from tests.torture.verdict import Verdict, judge, judge_spool
from verity import SyncVerityClient
from verity._ledger.calls import Environment
from verity._store.api_keys import Role

OVERLAP = 3
NODES = 3
_LOOK_AGAIN_S = 0.05
_COARSE_MS = 10
"""How far Linux's coarse clock may be behind."""
_RECOVERED = (0, 7)
"""Exit codes of `verity recover`: nothing is left to commit."""
_NODE_MAY_NOT_SAY = ("a request failed", "Traceback", "refused a call")


class TortureError(Exception):
    """It could not be carried through."""


class Torture:
    """One run.

    Args:
        directory: for the records.
        effects: how many.
        mode: which kinds of effects there are; see `plan.MODES`.
        slow: which part of the effects has a first holder that takes longer than a lease lasts, 0 to 1.
        trouble: which part of the acts raises or is cancelled, 0 to 1.
        lapses: whether every other client lets its leases expire where an act takes long.
        away_s: how long the whole ledger is away, from and to.
        blows: which, in their order.
        clients: how many; a third of them are sync ones, in threads.
        say: hears of the progress.
        postgres: the database server, already started; None: the nodes share a SQLite file.
    """

    def __init__(
        self,
        directory: Path,
        postgres: PostgresServer | None,
        *,
        effects: int,
        mode: str = "mixed",
        slow: float = 1 / 40,
        trouble: float = 1 / 5,
        lapses: bool = True,
        away_s: tuple[float, float] = (2.0, 10.0),
        blows: list[str],
        clients: int,
        rng: random.Random,
        time_limit_s: float,
        say: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self._directory = directory
        self._postgres = postgres
        self._database = postgres.create_database() if postgres else f"sqlite:///{directory}/ledger.db"
        self._effects = effects
        self._mode = mode
        self._slow = slow
        self._trouble = trouble
        self._lapses = lapses
        self._away_s = away_s
        self._blows = blows
        self._rng = rng
        self._say = say
        self._give_up_at = time.monotonic() + time_limit_s
        self.struck: Counter[str] = Counter()
        self._fallen: list[Blow] = []
        self.errors: Counter[str] = Counter()
        self.neighbour: Counter[str] = Counter()
        self.decided: Counter[str] = Counter()
        self._nodes = [self._make_node(number) for number in range(NODES)]
        self._urls = [node.url for node in self._nodes]
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
            blows = Blows(self._nodes, self._workers, self._postgres, self._rng, self._away_s)
            neighbour = self._make_neighbour(self._create_key("live"))
            try:
                for child in (*self._nodes, *self._workers, neighbour):
                    child.start()
                while not self._step(blows):
                    time.sleep(_LOOK_AGAIN_S)
                self._say("all is done or left to a person")
                self._recover()
                notes = self._settle(port)
            finally:
                for child in (neighbour, *self._workers, *self._nodes):
                    child.kill()
        verdict = self._judge([*self._plans, notes.plan])
        self.neighbour = read_neighbour(neighbour, verdict)
        return verdict

    def _judge(self, plans: list[Plan]) -> Verdict:
        history = History()
        for plan in plans:
            history.read(plan.name, plan.history)
            self.errors += read_counts(plan.counts)
        told = [plan.told for plan in plans]
        beginnings = Beginnings(history, LEASE_MS, behind_ms=0 if self._postgres else _COARSE_MS)
        verdict = judge(self._effects, self._mode, self._world_log, told, self._database, beginnings)
        verdict.overtaken = find_overtaken(history, verdict.take_overs, lapses=self._lapses)
        verdict.cells = count_cells(history, self._fallen)
        verdict.unmet = unmet(verdict.cells, self.struck)
        for plan in plans:
            if plan.spool is not None and plan.spool.exists():
                judge_spool(verdict, plan.spool)
        for node in self._nodes:
            verdict.problems += [
                f"{node.name} said: {node.log.partition(bad)[1]}{node.log.partition(bad)[2][:2000]}"
                for bad in _NODE_MAY_NOT_SAY
                if bad in node.log
            ]
        return verdict

    def _recover(self) -> None:
        """Let an operator commit what is left in spools, once a node is there to take it."""
        for plan in self._plans:
            while plan.spool is not None and plan.spool.exists():
                recovered = run_verity("recover", str(plan.spool), "--url", self._urls[0], VERITY_API_KEY=plan.api_key)
                if recovered.returncode in _RECOVERED:
                    break
                self._revive()
                self._check_time()

    def _settle(self, world_port: int) -> Notes:
        """Let a person settle what the clients left open."""
        notes = Notes(self._make_plan("person", world_port, api_key="", clients=[], is_async=False))

        def go_on() -> None:
            self._revive()
            self._check_time()

        with (
            socket.create_connection(("127.0.0.1", world_port)) as connection,
            connection.makefile("rw") as world,
            SyncVerityClient(self._urls[0], self._create_key("test", "org_admin"), "torture") as client,
        ):

            def ask(line: str) -> str:
                world.write(f"{line}\n")
                world.flush()
                return world.readline().strip()

            person = Person(self._database, client, notes, ask, self._world_log)
            person.settle(go_on)
        self.decided = person.decided
        return notes

    def _make_node(self, number: int) -> Node:
        command = [
            *VERITY, "serve", "--database", self._database,
            "--database-timeout", str(DATABASE_TIMEOUT_S), "--drain-timeout", "10",
        ]  # fmt: skip
        return Node(f"node-{number}", command, self._directory, free_port())

    def _make_neighbour(self, key: str) -> Child:
        """A neighbour in the other environment, whom nothing is promised."""
        return Child(
            "neighbour", [sys.executable, "-m", "tests.helpers.noisy_neighbour", key, *self._urls], self._directory
        )

    def _create_key(self, environment: Environment, role: Role = "agent") -> str:
        options = ("--database", self._database, "--environment", environment, "--role", role)
        return run_verity("keys", "create", *options).stdout.strip()

    def _plan(self, world_port: int, api_key: str) -> None:
        for number in range(3):
            clients = list(range(number, self._clients, 3))
            plan = self._make_plan(
                f"worker-{number}",
                world_port,
                api_key,
                clients,
                is_async=number > 0,
                spool_when=(None, "trouble", "always")[number],
            )
            self._plans.append(plan)
            command = [sys.executable, "-m", "tests.torture.worker", str(plan.save())]
            self._workers.append(Child(plan.name, command, self._directory))

    def _make_plan(
        self, name: str, world_port: int, api_key: str, clients: list[int], *, is_async: bool, spool_when: Any = None
    ) -> Plan:
        plan = Plan(
            name=name,
            directory=str(self._directory),
            nodes=self._urls,
            api_key=api_key,
            world_port=world_port,
            effects=self._effects,
            mode=self._mode,
            clients=clients,
            of=self._clients,
            overlap=OVERLAP,
            lease_ms=LEASE_MS,
            lapses=self._lapses,
            stragglers=max(1, round(self._effects * self._slow)),
            trouble=self._trouble,
            spool_when=spool_when,
            is_async=is_async,
        )
        plan.told.touch()
        return plan

    @contextmanager
    def _world(self) -> Iterator[int]:
        command = [sys.executable, "-m", "tests.torture.world", str(self._world_log)]
        with Popen(command, stdin=PIPE, stdout=PIPE, start_new_session=True) as world:
            assert world.stdout is not None
            try:
                yield int(world.stdout.readline())
            finally:
                world.kill()

    def _step(self, blows: Blows) -> bool:
        """Whether all is done."""
        self._revive()
        ended = [worker.process.poll() for worker in self._workers if worker.process is not None]
        if all(code == 0 for code in ended):
            return True
        for worker, code in zip(self._workers, ended, strict=True):
            if code not in (None, 0):
                raise TortureError(f"{worker.name} ended by itself with {code}:\n{worker.log[-3000:]}")
        self._check_time()
        struck = self.struck.total()
        if struck < len(self._blows) and self._done() >= (struck + 0.5) / len(self._blows) * self._effects * OVERLAP:
            blow = self._blows[struck]
            self._say(f"{self._done()} of {self._effects * OVERLAP} answers; {blow}")
            began_at = time.time_ns() // 1_000_000
            struck_worker = blows.strike(blow)
            self._fallen.append(Blow(blow, began_at, struck_worker))
            self.struck[blow] += 1
        return False

    def _revive(self) -> None:
        """As a supervisor does: start each node that is down, also one that found no database at its start."""
        for node in self._nodes:
            if node.process is not None and node.process.poll() is not None:
                node.start()

    def _check_time(self) -> None:
        if time.monotonic() > self._give_up_at:
            raise TortureError(f"not done in time: {self._done()} of {self._effects * OVERLAP}\n{self._logs()}")

    def _done(self) -> int:
        return sum(_count_lines(plan.told) for plan in self._plans)

    def _logs(self) -> str:
        return "\n".join(f"--- {child.name}\n{child.log[-1500:]}" for child in (*self._nodes, *self._workers))


def read_neighbour(neighbour: Child, verdict: Verdict) -> Counter[str]:
    """How many answers the noisy neighbour got, by load. It is a problem if it ended by itself."""
    whole = [line for line in neighbour.log.splitlines() if line.startswith("{") and line.endswith("}")]
    if "Traceback" in neighbour.log or not whole:
        verdict.problems.append(f"the noisy neighbour ended by itself:\n{neighbour.log[-3000:]}")
    return Counter(json.loads(whole[-1])) if whole else Counter()


def _count_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(chunk.count(b"\n") for chunk in _chunks(file))


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(1 << 20):
        yield chunk
