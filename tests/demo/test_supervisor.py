"""No process outlives the supervisor, and a run that goes wrong says so."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from verity.demo.orders import read_orders
from verity.demo.supervisor import DemoError, Job, Supervisor, Tally

ONE = frozenset({read_orders(1)[0].order_id})


def children() -> list[int]:
    """The demo's processes that this process has started."""
    command = ["ps", "-o", "pid=,args=", "--ppid", str(os.getpid())]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if "verity.demo." in line]


def test_ctrl_c_ends_the_worker_and_the_service(tmp_path: Path) -> None:
    running: list[int] = []

    def interrupt(tally: Tally) -> None:
        if tally.worker_starts == 2:
            running.extend(children())
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        Supervisor(Job("plain", tmp_path, 5, ONE), interrupt).run()

    assert len(running) == 2
    assert children() == []


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="waits for a process that is not its child: Linux only")
def test_the_worker_and_the_service_end_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, __file__, str(tmp_path)]
    killed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr

    pids = [int(pid) for pid in killed.stdout.split()]

    assert len(pids) == 2
    assert [pid for pid in pids if not ends(pid)] == []


def ends(pid: int) -> bool:
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return select.select([watched], [], [], 30.0)[0] == [watched]
    finally:
        os.close(watched)


def test_a_worker_that_ends_by_itself_is_told_with_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "done.txt").mkdir()  # the plain worker can't open its progress file

    with pytest.raises(DemoError, match=r"exit code 1[\s\S]*IsADirectoryError"):
        Supervisor(Job("plain", tmp_path, 5, ONE), lambda _: None).run()

    assert children() == []


def test_a_service_that_does_not_start_is_told_with_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "payments.db").mkdir()

    with pytest.raises(DemoError, match=r"did not start[\s\S]*unable to open database"):
        Supervisor(Job("plain", tmp_path, 5, ONE), lambda _: None).run()

    assert children() == []


def test_a_run_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="Not done after 0 s"):
        Supervisor(Job("plain", tmp_path, 5, ONE, limit_s=0.0), lambda _: None).run()

    assert children() == []


def supervise_and_die(tally: Tally) -> None:
    if tally.worker_starts == 2:
        sys.stdout.write(" ".join(map(str, children())))
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    Supervisor(Job("plain", Path(sys.argv[1]), 5, ONE), supervise_and_die).run()
