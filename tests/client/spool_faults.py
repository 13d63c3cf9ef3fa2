"""A fault at every step of the code that spools and replays: `python -m tests.client.spool_faults kill|interrupt`.

`kill`: a child process ends itself with SIGKILL, at one step in each run, until a run meets no more steps. A step is a
call, a line or a return of that code, or a write or a sync of the spool's file. `interrupt`: an exception comes up at
one step in each run, as a signal handler raises it.

After each fault the ledger answers again, and a new client starts with the spool. A result that was spooled is
committed as it was; act ran at most once; no other result is ever committed; the spool is empty and whole.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import apsw
import httpx

from tests.helpers._sync.virtual_runtime import SyncVirtualRuntime
from tests.helpers.served_ledger import TestClock
from tests.steps.__main__ import Injector, Interrupt
from verity import CommitUncertainError, EffectPolicy, SyncVerityClient
from verity._embedded import read_request
from verity._ledger.calls import Scope
from verity._spool import Entry, Spool
from verity._store.sqlite.store import SqliteStore
from verity._sync import commit, spooling, unprotected

URL = "http://127.0.0.1:9/v1"
NAMESPACE = "payments"
HANGS_AFTER_S = 120
_TRACED = {module.__file__ for module in (commit, spooling, unprotected)} | {sys.modules[Spool.__module__].__file__}
PROCEED = EffectPolicy(on_unavailable="proceed")


class Bridge(httpx.BaseTransport):
    """Carries requests into a store in this process; the operations in `away` get no answer."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self.away: set[str] = set()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/v1")
        if path.rsplit("/", 1)[-1] in self.away:
            raise httpx.ConnectError("refused", request=request)
        content = request.read()
        scope = Scope("test", actor="bridge")
        asked = read_request(
            scope,
            request.method,
            path,
            headers=request.headers,
            json=json.loads(content) if content else None,
            params=dict(request.url.params),
        )
        answer = self._store.answer(asked)
        return httpx.Response(answer.status, headers=dict(answer.headers), content=answer.body, request=request)


class World:
    """A ledger, a spool, and what was acted."""

    def __init__(self, directory: Path, clock: TestClock) -> None:
        self.clock = clock
        self.path = str(directory / "verity.spool")
        self.acts = directory / "acts"
        self.acts.touch()
        self.store = SqliteStore(str(directory / "ledger.db"), clock=clock)
        self.network = Bridge(self.store)

    def client(self, **settings: Any) -> SyncVerityClient:
        """A client with the spool, on virtual time."""
        options = {"spool": self.path, "transport": self.network, "_runtime": SyncVirtualRuntime(self.clock)}
        return SyncVerityClient(URL, "vt_test_key", NAMESPACE, **{**options, **settings})

    def act(self, key: str) -> dict[str, Any]:
        """The effect itself. Its result is never the same twice."""
        result = {"key": key, "number": len(self.acted(key)) + 1, "pid": os.getpid()}
        with self.acts.open("a") as file:
            file.write(json.dumps(result) + "\n")
        return result

    def acted(self, key: str) -> list[Any]:
        """The results of the effect's acts."""
        return [each for each in map(json.loads, self.acts.read_text().splitlines()) if each["key"] == key]

    def effect(self, key: str) -> dict[str, Any]:
        """The effect as the ledger has it; empty if there is none."""
        with self.client(spool=False) as client:
            found = [each for each in client.effects.list(search=key) if each.effect_key == key]
        return dict(found[0]) if found else {}


# What is interrupted, on a fresh key. The ledger's faults are planned before.


def always(world: World, key: str) -> None:
    """The result is written before its commit."""
    world.client(spool_when="always").protect(key, act=lambda: world.act(key))


def trouble(world: World, key: str) -> None:
    """The ledger is away at the commit."""
    world.network.away = {"commit"}
    world.client().protect(key, act=lambda: world.act(key), policy=EffectPolicy(commit_patience_s=1))


def proceed(world: World, key: str) -> None:
    """The ledger is away."""
    world.network.away = {"lease", "commit"}
    world.client().protect(key, act=lambda: world.act(key), policy=PROCEED)


def replay(world: World, key: str) -> None:
    """A new client finds a result in the spool."""
    world.client().protect(key, act=lambda: world.act(key))


def replay_refused(world: World, key: str) -> None:
    """The same, and somebody else was granted the effect meanwhile."""
    with world.client():
        pass


def prepare(world: World, key: str, kind: Any) -> None:
    """A result in the spool, of a process that died."""
    with world.client(spool=False) as client:
        lease = client.request_lease(NAMESPACE, {"effectKey": key})
        if kind == "refused":
            client.effects.reset(key, force=True, mode="retry")
    fence, token = (
        (None, f"idempotency-{key}") if kind == "unprotected" else (lease.fence_token, str(lease.lease_token))
    )
    if kind == "unprotected":
        world.clock.advance(60_000)
    entry_kind: Any = "unprotected" if kind == "unprotected" else "committed"
    result = json.dumps(world.act(key), separators=(",", ":"))
    Spool(world.path).add(Entry(URL, "test", NAMESPACE, key, entry_kind, fence, token, result, "acted"))


SCENARIOS: dict[str, tuple[Callable[[World, str], None], str | None]] = {
    "always": (always, None),
    "trouble": (trouble, None),
    "proceed": (proceed, None),
    "replay": (replay, "committed"),
    "replay-unprotected": (replay, "unprotected"),
    "replay-refused": (replay_refused, "refused"),
}


def check(world: World, key: str, *, was_spooled: bool, is_refused: bool) -> list[str]:
    """What holds after each fault; see the module's docstring."""
    world.network.away = set()
    acted = world.acted(key)
    problems = [] if len(acted) <= 1 else [f"acted {len(acted)} times"]
    with apsw.Connection(world.path) as connection:
        if connection.pragma("integrity_check") != "ok":
            problems.append("the file is damaged")
    connection.close()
    waits = [each.value for each in Spool(world.path).read()]
    before = world.effect(key)
    kept = [each.value for each in Spool(world.path).rejected() if each.effect_key == key]
    if was_spooled and acted[0] not in [*waits, *kept, before.get("result")]:
        problems.append(f"the spooled result is lost: {waits}, {before}")
    with world.client():
        pass
    after = world.effect(key)
    if Spool(world.path).read():
        problems.append("an entry is left")
    if is_refused:
        return problems if [each.value for each in Spool(world.path).rejected() if each.effect_key == key] else ["lost"]
    if waits and (after.get("status"), after.get("result")) != ("COMMITTED", acted[0]):
        problems.append(f"not committed: {after}")
    if after.get("status") == "COMMITTED" and after["result"] != acted[0]:
        problems.append(f"another result was committed: {after}")
    return problems


# --- kill ---


class Disk(apsw.VFS):
    """Calls `step` at each write and sync of the spool's files."""

    def __init__(self, step: Callable[[], None]) -> None:
        self._step = step
        super().__init__("steps", "unix", makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> Any:  # noqa: N802 - SQLite's name
        path = str(name.filename() if isinstance(name, apsw.URIFilename) else name)
        return _File(self._step if ".spool" in path else bool, name, flags)

    def xDelete(self, name: str, sync: bool) -> None:  # noqa: N802 - SQLite's name
        if ".spool" in name:
            self._step()
        super().xDelete(name, sync)


class _File(apsw.VFSFile):
    def __init__(self, step: Callable[[], object], name: Any, flags: list[int]) -> None:
        self._step = step
        super().__init__("unix", name, flags)

    def xSync(self, flags: int) -> None:  # noqa: N802 - SQLite's name
        self._step()
        super().xSync(flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 - SQLite's name
        self._step()
        super().xWrite(data, offset)


class Killer:
    """Ends this process at its step number `at`."""

    def __init__(self, at: int, spooled: Path) -> None:
        self.steps = 0
        self._at = at
        self._spooled = spooled

    def step(self) -> None:
        """One step."""
        self.steps += 1
        if self.steps == self._at:
            os.kill(os.getpid(), signal.SIGKILL)

    def trace(self, frame: FrameType, event: str, arg: object) -> Any:
        """A trace function: each line, call and return is a step."""
        if frame.f_code.co_filename not in _TRACED:
            return None
        if event == "return" and frame.f_code is Spool.add.__code__ and arg is None:
            self._spooled.touch()
        self.step()
        return self.trace


def kill(world: World, name: str, every: int) -> tuple[int, list[str]]:
    """The number of kills, and the problems."""
    scenario, kind = SCENARIOS[name]
    problems: list[str] = []
    number = 0
    spooled = Path(world.path).with_name("was-spooled")
    while True:
        at = 1 + number * every
        key = f"{name}-{at}-"
        if kind is not None:
            prepare(world, key, kind)
        spooled.unlink(missing_ok=True)
        child = os.fork()
        if not child:
            killer = Killer(at, spooled)
            disk = Disk(killer.step)
            sys.settrace(killer.trace)
            try:
                scenario(world, key)
            except CommitUncertainError:
                pass
            except BaseException:  # noqa: BLE001 - the parent judges
                traceback.print_exc()
                os._exit(7)
            os._exit(0 if disk else 1)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            if os.WEXITSTATUS(status):
                problems.append(f"{key}: exit status {os.WEXITSTATUS(status)}")
            return number, problems
        number += 1
        found = check(world, key, was_spooled=kind is not None or spooled.exists(), is_refused=kind == "refused")
        problems += [f"{key}: {each}" for each in found]


# --- interrupt ---


class Here(Injector):
    """Raises in the code that spools alone."""

    def trace(self, frame: FrameType, event: str, arg: object) -> Any:
        """As the base, for fewer files."""
        return super().trace(frame, event, arg) if frame.f_code.co_filename in _TRACED else None


def interrupt(world: World, name: str, every: int) -> tuple[int, list[str]]:
    """The number of interrupts, and the problems."""
    scenario, kind = SCENARIOS[name]
    problems: list[str] = []
    number = 0
    while True:
        faulthandler.dump_traceback_later(HANGS_AFTER_S, exit=True)
        injector = Here(1 + number * every)
        key = f"{name}-{1 + number * every}-"
        if kind is not None:
            prepare(world, key, kind)
        sys.settrace(injector.trace)
        outcome: BaseException | None = None
        try:
            scenario(world, key)
        except BaseException as error:  # noqa: BLE001 - it is the outcome
            outcome = error
        finally:
            sys.settrace(None)
        if injector.where == "nowhere":
            faulthandler.cancel_dump_traceback_later()
            return number, problems
        number += 1
        where = f"{key} at {injector.where}"
        if not isinstance(outcome, (Interrupt, CommitUncertainError)):
            problems.append(f"{where}: {outcome!r} came out")
        # After the end of act, an interrupt loses nothing.
        was_spooled = bool(world.acted(key)) and name != "always"
        found = check(world, key, was_spooled=was_spooled, is_refused=kind == "refused")
        if name == "always" and world.acted(key) and world.effect(key).get("status") != "COMMITTED":
            found.append("the result is lost")
        problems += [f"{where}: {each}" for each in found]


def main() -> int:
    """1 if anything went wrong."""
    how, every = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1
    problems: list[str] = []
    logging.disable()
    for name in SCENARIOS:
        with tempfile.TemporaryDirectory() as scratch:
            world = World(Path(scratch), TestClock())
            world.client().close()
            count, found = (kill if how == "kill" else interrupt)(world, name, every)
            world.store.close()
        sys.stdout.write(f"{how}, {name}: {count} steps\n")
        problems += found
    sys.stdout.write("\n".join(problems[:40]))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
