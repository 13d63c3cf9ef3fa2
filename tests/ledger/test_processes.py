"""Several processes on one file; processes that are killed; processes that fork."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from tests.helpers.concurrency import sync_gather
from tests.helpers.store_calls import Caller
from verity import SyncVerityClient, VerityConfigError
from verity._store.sqlite.group_commit import ThreadGroupCommit
from verity._store.sqlite.store import SqliteStore

ROOT = Path(__file__).parents[2]

CONTEND = """
import sys
from verity import SyncVerityClient, LeaseConflictError
url, log, name = sys.argv[1:]
with SyncVerityClient(url, namespace="n") as client, open(log, "a", buffering=1) as acts:
    def act(key):
        acts.write(f"{key} {name}\\n")
        return name
    sys.stdin.read(1)
    for number in range(60):
        try:
            client.protect(f"k{number}", act=lambda: act(f"k{number}"), on_conflict="throw")
        except LeaseConflictError:
            pass
"""

WRITE = """
import sys
from verity import SyncVerityClient
url, start = sys.argv[1], int(sys.argv[2])
with SyncVerityClient(url, namespace="n") as client:
    number = start
    while True:
        client.protect(f"k{number}", act=lambda: number)
        sys.stdout.write(f"{number}\\n")
        sys.stdout.flush()
        number += 1
"""


def test_three_processes_act_once_for_each_key(tmp_path: Path) -> None:
    url, log = f"sqlite:///{tmp_path}/v.db", tmp_path / "acts"
    processes = [
        subprocess.Popen([sys.executable, "-W", "error", "-c", CONTEND, url, str(log), name], stdin=subprocess.PIPE)
        for name in ("one", "two", "three")
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"x")
        process.stdin.flush()
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    keys = [line.split()[0] for line in log.read_text().splitlines()]
    assert sorted(keys) == sorted(f"k{number}" for number in range(60)), "each key once, none twice"


def test_nobody_else_writes_while_a_batch_is_decided(tmp_path: Path) -> None:
    """The clock is read when a decision begins: there, another process tries."""
    others: list[str] = []

    def clock() -> int:
        try:
            other.execute("BEGIN IMMEDIATE; ROLLBACK")
        except apsw.BusyError:
            others.append("has to wait")
        else:
            others.append("writes")
        return 1_000_000

    store = SqliteStore(str(tmp_path / "v.db"), clock=clock)
    other = apsw.Connection(str(tmp_path / "v.db"))
    assert Caller(store).ask("lease_effect", {"effectKey": "k"}).status == 200
    assert others == ["has to wait"]
    other.close()
    store.close()


def test_a_killed_process_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/v.db"
    acknowledged: list[int] = []
    for round_number in range(12):
        start = round_number * 1000
        with subprocess.Popen(
            [sys.executable, "-W", "error", "-c", WRITE, url, str(start)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            acknowledged += [int(process.stdout.readline()) for _ in range(5 + round_number * 3)]
            process.send_signal(signal.SIGKILL)
            acknowledged += [int(line) for line in process.stdout.read().split("\n")[:-1]]
    assert len(acknowledged) >= 12 * 5
    with SyncVerityClient(url, namespace="n") as client:
        for number in acknowledged:
            lease = client.request_lease("n", {"effectKey": f"k{number}"})
            assert (lease.status, lease.cached_result) == ("cached_completed", number)


ONCE = """
import sys
from verity import SyncVerityClient
with SyncVerityClient(sys.argv[1], namespace="n") as client:
    client.protect("theirs", act=lambda: "done")
"""


@pytest.mark.parametrize("leave", [SqliteStore.close, SqliteStore.before_fork])
def test_who_closes_after_its_log_was_removed_leaves_anothers_alone(
    tmp_path: Path, leave: Callable[[SqliteStore], None]
) -> None:
    """SQLite itself deletes what has the log's name, and writes the removed log over what others wrote."""
    file = tmp_path / "v.db"
    SqliteStore(str(file)).close()
    store = SqliteStore(str(file))
    Caller(store).commit("mine")
    for suffix in ("-wal", "-shm"):
        Path(f"{file}{suffix}").unlink()
    subprocess.run([sys.executable, "-W", "error", "-c", ONCE, f"sqlite:///{file}"], check=True)
    leave(store)
    store.after_fork_in_child()
    assert Caller(store).refused("lease_effect", {"effectKey": "mine"}) == (503, "unavailable")
    with SyncVerityClient(f"sqlite:///{file}", namespace="n") as client:
        assert client.protect("theirs", act=lambda: "a second time") == "done"


def _in_child(work: str) -> int:
    """Fork in a process of its own (this one has threads of pytest's), and return its exit status."""
    return subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", work], check=False, timeout=120
    ).returncode


FORK = """
import os, sys, json
from verity import SyncVerityClient
url, log = {url!r}, {log!r}
client = SyncVerityClient(url, namespace="n")
def act(key):
    fd = os.open(log, os.O_APPEND | os.O_CREAT | os.O_WRONLY)
    os.write(fd, (key + "\\n").encode())
    os.close(fd)
    return os.getpid()
client.protect("before", act=lambda: act("before"))
children = []
for child in range(6):
    pid = os.fork()
    if pid == 0:
        try:
            for number in os.listdir("/proc/self/fd"):
                place = f"/proc/self/fd/{{number}}"
                assert not (os.path.exists(place) and "v.db" in os.readlink(place)), "the parent's file is open"
            for number in range(20):
                client.protect(f"k{{number}}", act=lambda: act(f"k{{number}}"))
                client.protect(f"own-{{child}}-{{number}}", act=lambda: act(f"own-{{child}}-{{number}}"))
            os._exit(0)
        except BaseException as error:
            sys.stderr.write(repr(error) + "\\n")
            os._exit(1)
    children.append(pid)
    client.protect(f"parent-{{child}}", act=lambda: act(f"parent-{{child}}"))
statuses = [os.waitpid(pid, 0)[1] for pid in children]
client.close()
sys.exit(any(statuses))
"""


def test_a_store_may_be_used_before_and_after_a_fork(tmp_path: Path) -> None:
    log = tmp_path / "acts"
    assert _in_child(FORK.format(url=f"sqlite:///{tmp_path}/v.db", log=str(log))) == 0
    acts = log.read_text().split()
    assert len(acts) == len(set(acts)) == 1 + 20 + 6 * 20 + 6


FORK_WHILE_BUSY = """
import os, sys, threading
from verity import SyncVerityClient
client = SyncVerityClient({url!r}, namespace="n")
stop = threading.Event()
def work(name):
    number = 0
    while not stop.is_set():
        client.protect(f"{{name}}-{{number}}", act=lambda: 1)
        number += 1
threads = [threading.Thread(target=work, args=[f"t{{n}}"]) for n in range(4)]
for thread in threads:
    thread.start()
statuses = []
for child in range(10):
    pid = os.fork()
    if pid == 0:
        os._exit(0 if client.protect(f"child-{{child}}", act=lambda: 7) == 7 else 1)
    statuses.append(os.waitpid(pid, 0)[1])
stop.set()
for thread in threads:
    thread.join()
client.close()
sys.exit(any(statuses))
"""


def test_a_fork_while_other_threads_commit(tmp_path: Path) -> None:
    assert _in_child(FORK_WHILE_BUSY.format(url=f"sqlite:///{tmp_path}/v.db")) == 0


FORK_IN_C = """
import ctypes, os, sys, threading
from verity import SyncVerityClient, VerityConfigError
from verity._store.sqlite.registry import open_ledger
from tests.helpers.store_calls import Caller
url, busy = sys.argv[1:]
begun, forked = threading.Event(), threading.Event()
def clock():
    begun.set()
    forked.wait()
    return 1_000_000
store = open_ledger(url, clock=clock).store
call = Caller(store)
thread = None
if busy == "writing":
    thread = threading.Thread(target=call.commit, args=("of the parent",))
elif busy == "reading":
    thread = threading.Thread(target=store._reads.run, args=(lambda connection: clock(),))
if thread is None:
    forked.set()
    call.commit("of the parent")
    call.ask("get_effect", effectKey="of the parent")
else:
    thread.start()
    begun.wait()
pid = ctypes.PyDLL(None).fork()
if pid == 0:
    forked.set()
    try:
        call.ask("get_effect", effectKey="of the child")
        answer = call.ask("lease_effect", {"effectKey": "of the child"})
    except VerityConfigError as error:
        os._exit(3 if "at-fork hooks" in str(error) else 4)
    locks = [line.split()[1:5] for line in open("/proc/locks")]
    held = [kind for kind, _, _, owner in locks if owner == str(os.getpid())]
    os._exit(5 if answer.status == 200 and len(held) >= 2 else 6)
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
forked.set()
if thread is not None:
    thread.join()
call.commit("after")
store.close()
sys.exit(status)
"""


@pytest.mark.parametrize(("busy", "status"), [("idle", 5), ("writing", 3), ("reading", 3)])
def test_a_fork_that_runs_no_hooks(busy: str, status: int, tmp_path: Path) -> None:
    """The child opens the file anew, with locks of its own; beside what a thread of the parent's does it opens none."""
    command = [sys.executable, "-c", FORK_IN_C, f"sqlite:///{tmp_path}/v.db", busy]
    assert subprocess.run(command, check=False, timeout=120, cwd=ROOT).returncode == status
    assert [each.name for each in tmp_path.iterdir()] == ["v.db"], "the last one closed it well"


def test_a_ledger_in_memory_stays_with_its_parent() -> None:
    store = SqliteStore(None)
    call = Caller(store)
    call.commit("k")
    store.before_fork()
    store.after_fork_in_child()
    with pytest.raises(VerityConfigError, match="does not survive a fork"):
        call.ask("lease_effect", {"effectKey": "k"})
    store.close()


def test_the_client_says_so_in_a_forked_child() -> None:
    work = (
        "import os, sys\n"
        "from verity import SyncVerityClient, VerityConfigError\n"
        "client = SyncVerityClient('sqlite://', namespace='n')\n"
        "client.protect('k', act=lambda: 1)\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    try:\n"
        "        client.protect('k', act=lambda: 1)\n"
        "    except VerityConfigError as error:\n"
        "        os._exit(0 if 'does not survive a fork' in str(error) else 2)\n"
        "    os._exit(3)\n"
        "assert client.protect('k', act=lambda: 2) == 1\n"
        "sys.exit(os.waitpid(pid, 0)[1] >> 8)\n"
    )
    assert _in_child(work) == 0


def test_a_store_is_safe_for_many_threads(tmp_path: Path) -> None:
    store = SqliteStore(str(tmp_path / "v.db"))
    group, call = ThreadGroupCommit(store), Caller(store)

    def work() -> int:
        grants = 0
        for number in range(30):
            answer = group.answer(call.request("lease_effect", {"effectKey": f"k{number}"}))
            lease = json.loads(answer.body)
            if lease.get("status") == "granted":
                grants += 1
                body = {**call.tokens(lease), "result": 1}
                assert group.answer(call.request("commit_effect", body)).status == 200
        return grants

    assert sum(sync_gather([work] * 16)) == 30
    events = [call("list_effect_events", effectKey=f"k{number}")["items"] for number in range(30)]
    assert [[event["type"] for event in trail] for trail in events] == [["LEASE_GRANTED", "COMMITTED"]] * 30
    store.close()
