"""Starts the payments service and the worker, kills the worker between refund and commit, and starts it again.

Every child ends with this process: by SIGKILL on the way out, and by itself at the end of its standard input should
this process be killed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

from verity.demo.worker import Mode

Child = subprocess.Popen[str]


class DemoError(Exception):
    """The demo could not be carried out; it has shown nothing."""


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
        mode: how the worker refunds.
        directory: where all files of the run are; exists, and is empty.
        order_count: how many orders of the file are to be refunded.
        kill_at: the orders (ids) whose first refund is the moment to kill the worker.
        limit_s: seconds that the run may take.
    """

    mode: Mode
    directory: Path
    order_count: int
    kill_at: frozenset[str]
    limit_s: float = 120.0

    @property
    def records_file(self) -> Path:
        """The payments service's own records."""
        return self.directory / "payments.db"


@dataclass
class Tally:
    """What the supervisor itself saw."""

    worker_starts: int = 0
    refunds: int = 0
    killed_at: set[str] = field(default_factory=set[str])
    notified: set[str] = field(default_factory=set[str])
    wall_s: float = 0.0


class Supervisor:
    """Carries out one job. `on_change` hears of every change of the tally, from any thread."""

    def __init__(self, job: Job, on_change: Callable[[Tally], None]) -> None:
        self._job = job
        self._on_change = on_change
        self._tally = Tally()
        self._worker: Child | None = None

    def run(self) -> Tally:
        """Start workers until one gets through the file.

        Raises:
            DemoError: a process ended that nobody killed, or the run took too long.
        """
        started_at = time.monotonic()
        deadline = started_at + self._job.limit_s
        log = self._job.directory / "payments.log"
        with _child(log, "payments", self._job.records_file) as payments:
            hello = cast("IO[str]", payments.stdout).readline()
            if not hello:
                raise DemoError(f"The payments service did not start.\n{_tail(log)}")
            reports = threading.Thread(target=self._answer_reports, args=(payments,), name="demo-reports")
            reports.start()
            try:
                while not self._finish_by_worker(json.loads(hello)["port"], deadline):
                    pass
            finally:
                payments.kill()
                reports.join()
        self._tally.wall_s = time.monotonic() - started_at
        return self._tally

    def _finish_by_worker(self, port: int, deadline: float) -> bool:
        """Whether a new worker got through the file; False if it was killed."""
        job, log = self._job, self._job.directory / "worker.log"
        kills_before = len(self._tally.killed_at)
        with _child(log, "worker", job.mode, job.directory, port, job.order_count) as worker:
            self._worker = worker
            self._tally.worker_starts += 1
            self._on_change(self._tally)
            try:
                code = worker.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                raise DemoError(f"Not done after {job.limit_s:.0f} s.\n{_tail(log)}") from None
        was_killed = len(self._tally.killed_at) > kills_before
        if code != 0 and not was_killed:
            raise DemoError(f"The worker ended by itself with exit code {code}.\n{_tail(log)}")
        return not was_killed

    def _answer_reports(self, payments: Child) -> None:
        """Hear of every record before its caller does; this is the moment between refund and commit."""
        says, hears = cast("IO[str]", payments.stdout), cast("IO[str]", payments.stdin)
        for line in says:
            self._hear(**json.loads(line))
            try:
                hears.write("go on\n")
                hears.flush()
            except BrokenPipeError:
                return  # the service was ended while it waited

    def _hear(self, recorded: str, order: str) -> None:
        tally = self._tally
        if recorded == "receipts":
            tally.notified.add(order)
        else:
            tally.refunds += 1
            if self._worker is not None and order in self._job.kill_at - tally.killed_at:
                tally.killed_at.add(order)
                self._worker.kill()
                self._worker.wait()
        self._on_change(tally)


@contextmanager
def _child(log: Path, module: str, *arguments: object) -> Generator[Child]:
    """A process of this package; killed on the way out, whatever the way."""
    command = [sys.executable, "-m", f"{__package__}.{module}", *map(str, arguments)]
    with (
        log.open("ab") as errors,
        # In a session of its own, so that Ctrl-C reaches the supervisor alone, which ends the others.
        subprocess.Popen(  # noqa: S603 - our own modules
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            encoding="utf-8",
            start_new_session=True,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
