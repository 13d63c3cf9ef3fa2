"""Starts the payments service and the worker, kills the worker between refund and commit, and starts it again.

The child processes end with this process: it kills them when it ends, and if it is killed itself, each child ends when
its standard input ends.
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
    """The demo could not be carried out, so that it has no result."""


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
        mode: how the worker refunds.
        directory: the directory of the run's files; it exists and is empty.
        order_count: how many orders of the file are refunded.
        kill_at: the ids of the orders at whose first refund the worker is killed.
        limit_s: how long the run may take, in seconds.
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
    """What the supervisor has counted so far."""

    worker_starts: int = 0
    refunds: int = 0
    killed_at: set[str] = field(default_factory=set[str])
    notified: set[str] = field(default_factory=set[str])
    wall_s: float = 0.0


class Supervisor:
    """Carries out one job. It calls `on_change` after every change of the tally, from any thread."""

    def __init__(self, job: Job, on_change: Callable[[Tally], None]) -> None:
        self._job = job
        self._on_change = on_change
        self._tally = Tally()
        self._worker: Child | None = None

    def run(self) -> Tally:
        """Start workers, one after another, until one has worked through the file.

        Raises:
            DemoError: a process ended without being killed, or the run took too long.
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
        """Start a worker; returns whether it worked through the file, False if it was killed."""
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
        """Handle each report of the service before the worker gets its answer: between refund and commit."""
        stdout, stdin = cast("IO[str]", payments.stdout), cast("IO[str]", payments.stdin)
        for line in stdout:
            self._handle_report(**json.loads(line))
            try:
                stdin.write("go on\n")
                stdin.flush()
            except BrokenPipeError:
                return  # the service was ended while it waited

    def _handle_report(self, recorded: str, order: str) -> None:
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
    """Run a module of this package in a process; the process is killed at the end of the block."""
    command = [sys.executable, "-m", f"{__package__}.{module}", *map(str, arguments)]
    with (
        log.open("ab") as errors,
        # In a session of its own: Ctrl-C then reaches only the supervisor, which ends its children.
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
