"""Raises an exception at every point of one `protect()` where CPython could deliver one to the thread.

    python -m tests.steps [--ledger embedded|served] [--every N] [--at-once N] [--storms N]

CPython looks for signals, and for exceptions from other threads, at a function's entry, after a call, and where a loop
begins anew. A trace function raises there, as a signal's handler would: at one such point in each run, in the next run
at the next one, until a run meets no more. After each: act ran at most once, what it returned is committed, nothing is
recorded as failed if it did not run, no lease was given back as if act had not run if it did, the exception came out,
and the client goes on. Nothing hangs; at the end, nothing is renewed. `--at-once` has several signals pending at each
such point: the handler of the next one raises as soon as Python looks again, which 3.10 does even before the first
instruction of a `finally`. `--storms` then raises from a real signal's handler, several times in each run.
"""

from __future__ import annotations

import argparse
import dis
import faulthandler
import inspect
import opcode
import os
import random
import signal
import sys
import tempfile
import time
from _thread import interrupt_main
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from functools import lru_cache
from types import CodeType, FrameType
from typing import Any

from tests.helpers.served_ledger import ServedLedger
from verity import (
    EffectPolicy,
    EffectPreviouslyFailedError,
    LeaseConflictError,
    OutcomeUnknownError,
    SyncVerityClient,
    VerityApiError,
)

HUNG_AFTER_S = 60
RENEWED_AFTER_S = 1.5
"""A lease of 5 s, renewed after 0.3 of it."""
_TRACED = tuple(f"{os.sep}{name}{os.sep}" for name in ("verity", "verity_api", "httpx", "httpcore", "h11"))
_OPCODES = opcode.opmap.items()
_CHECKED = {code for name, code in _OPCODES if name.startswith("CALL") and "INTRINSIC" not in name}
_LOOPS = {name: code for name, code in _OPCODES if "JUMP_BACKWARD" in name or name == "JUMP_ABSOLUTE"}
_CHECKED |= {code for name, code in _LOOPS.items() if "NO_INTERRUPT" not in name}


_UNCHECKED: set[int] = set()
"""Before these Python 3.10 does not look."""
if sys.version_info < (3, 11):
    _UNCHECKED = {code for name, code in _OPCODES if name in ("SETUP_FINALLY", "SETUP_WITH")}

_ALSO_IN_STORMS = (LookupError,) if sys.version_info >= (3, 11) else (LookupError, SystemError)
_AT_MOST = 4
"""Signals in one run of a storm."""
_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGVTALRM, signal.SIGPROF)
"""Signals at one point."""


class Interrupt(Exception):
    """As a worker's soft time limit raises it."""


def is_inside(frame: FrameType | None) -> bool:
    """Whether this frame was called by what is interrupted: signals that come later raise nothing."""
    while frame is not None and frame.f_code is not World.protect.__code__:
        frame = frame.f_back
    return frame is not None


def interrupt(_number: int, frame: FrameType | None) -> None:
    """A signal's handler."""
    if is_inside(frame):
        raise Interrupt


class Injector:
    """Raises at one point. As a trace function it gets the frame that it interrupts, as a signal's handler does."""

    def __init__(self, at: int, at_once: int = 1) -> None:
        self.points = 0
        self.where = "nowhere"
        self._at = at
        self._at_once = at_once
        self._last: dict[FrameType, int] = {}
        self._code: dict[CodeType, bytes] = {}

    def trace(self, frame: FrameType, event: str, arg: object) -> Any:
        """Follow the frames of Verity and of what carries its requests, opcode by opcode."""
        code = frame.f_code
        if not any(part in code.co_filename for part in _TRACED):
            return None
        if event == "call":
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            if not code.co_flags & inspect.CO_GENERATOR:  # one that is closed is entered, too, without that look
                self._meet(frame)
        elif event == "opcode":
            if code not in self._code:
                self._code[code] = code.co_code
            last, self._last[frame] = self._last.get(frame), frame.f_lasti
            # An interrupt comes as a part of the call; a trace function can only raise after it.
            if last is not None and self._is_checked(code, last, frame.f_lasti) and _caught(code, last, frame.f_lasti):
                self._meet(frame)
        elif event == "return":
            self._last.pop(frame, None)
        return self.trace

    def _is_checked(self, code: CodeType, last: int, following: int) -> bool:
        opcodes = self._code[code]
        return opcodes[last] in _CHECKED and opcodes[following] not in _UNCHECKED

    def _meet(self, frame: FrameType) -> None:
        self.points += 1
        if self.points == self._at:
            sys.settrace(None)
            self.where = f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}"
            if self._at_once > 1:
                list(map(interrupt_main, _SIGNALS[: self._at_once]))  # in C, so that Python looks after the last one
            raise Interrupt


@lru_cache(maxsize=4096)
def _caught(code: CodeType, called_at: int, raised_at: int) -> bool:
    """Whether both places have the same handlers."""
    read_table: Any = getattr(dis, "_parse_exception_table", None)  # not before Python 3.11
    table = [] if read_table is None else read_table(code)
    return all((each.start <= called_at < each.end) == (each.start <= raised_at < each.end) for each in table)


class World:
    """A ledger, the client that is interrupted, and what was acted."""

    def __init__(self, client: SyncVerityClient, other: SyncVerityClient) -> None:
        self.client = client
        self.other = other
        self.acts: dict[str, int] = {}
        self.abandoned: dict[str, datetime] = {}
        self.problems: list[str] = []

    def act(self, key: str, *, fails: bool) -> str:
        """The effect itself."""
        self.acts[key] = self.acts.get(key, 0) + 1
        if fails:
            raise LookupError(key)
        return key

    def protect(self, key: str, *, fails: bool) -> object:
        """What is interrupted."""
        return self.client.protect(
            key,
            act=lambda: self.act(key, fails=fails),
            observe=lambda: None,
            lease_duration_ms=5000,
            policy=EffectPolicy(observe_when="always", settle_s=0),
        )

    def status(self, key: str) -> str:
        """What the ledger has of it."""
        try:
            return str(self.other.effects.get(key).status)
        except VerityApiError as error:
            if error.status_code != 404:
                raise
            return "NONE"

    def check(
        self, key: str, where: str, outcome: object, *, fails: bool, is_result_lost: bool, is_storm: bool = False
    ) -> None:
        """See the module's docstring."""
        acted, status = self.acts.get(key, 0), self.status(key)
        not_acted = ("NONE", "RUNNING", "IDLE", "EXPIRED")
        expected = {0: not_acted, 1: ("FAILED",) if fails else ("COMMITTED",)}.get(acted, ())
        if is_result_lost:
            expected = (*expected, "RUNNING", "EXPIRED")
        if status not in expected:
            self.problems.append(f"{key}: acted {acted} times, and the ledger has {status}, after {where}")
        # In storms, signals meet Python's own traceback module, too, which swallows whatever comes up in parts of it.
        # Python 3.10 itself may raise "returned a result with an exception set" in place of what came up.
        if not isinstance(outcome, Interrupt) and not (is_storm and isinstance(outcome, _ALSO_IN_STORMS)):
            self.problems.append(f"{key}: the interrupt was lost, and {outcome!r} came out, after {where}")
        if status in ("RUNNING", "IDLE", "EXPIRED"):
            self.abandoned[key] = datetime.now(timezone.utc)
        self.goes_on(key, where, fails=fails)

    def goes_on(self, key: str, where: str, *, fails: bool) -> None:
        """The same client goes on: with another key, and with this one."""
        assert self.client.protect(f"{key}-after", act=lambda: 7) == 7
        with suppress(LeaseConflictError, EffectPreviouslyFailedError, OutcomeUnknownError, LookupError):
            self.client.protect(key, act=lambda: self.act(key, fails=fails), on_conflict="throw")
        if self.acts.get(key, 0) > 1:
            self.problems.append(f"{key}: acted twice, after {where}")

    def check_that_nothing_is_renewed(self) -> None:
        """Of the calls that an interrupt ended."""
        time.sleep(RENEWED_AFTER_S + 1)
        for key, ended_at in self.abandoned.items():
            for event in self.other.effects.events(key):
                if event.type == "LEASE_RENEWED" and (_moment(event.at) - ended_at).total_seconds() > 0.2:
                    self.problems.append(f"{key}: renewed at {event.at}, after its call had ended at {ended_at}")


def _moment(text: str | None) -> datetime:
    return datetime.fromisoformat((text or "").replace("Z", "+00:00"))


@contextmanager
def world(kind: str) -> Iterator[World]:
    """A world on an embedded or a served ledger."""
    with tempfile.TemporaryDirectory() as scratch, ServedLedger() as served:
        url, key = (served.base_url, served.create_key()) if kind == "served" else (f"sqlite:///{scratch}/v.db", None)
        with (
            SyncVerityClient(url, key, "n", renew_at_fraction=0.3) as client,
            SyncVerityClient(url, key, "n") as other,
        ):
            client.protect("first", act=lambda: 1)  # what is made once is made
            yield World(client, other)


def at_every_step(each: World, every: int, first: int, at_once: int, *, fails: bool) -> int:
    """The number of runs."""
    runs = 0
    while True:
        faulthandler.dump_traceback_later(HUNG_AFTER_S, exit=True)
        injector = Injector(first + runs * every, at_once)
        key = f"step-{fails}-{at_once}-{first + runs * every}"
        outcome: object
        sys.settrace(injector.trace)
        try:
            outcome = each.protect(key, fails=fails)
        except BaseException as error:  # noqa: BLE001 - it is the outcome
            outcome = error
        finally:
            sys.settrace(None)
        if injector.where == "nowhere":
            return runs
        runs += 1
        # Python 3.10 alone looks between a function's return and the use of what it returned.
        is_result_lost = injector.where.endswith("calls.py") or injector.where.endswith(" call")
        several = at_once > 1
        each.check(
            key,
            f"{at_once} at {injector.where}",
            outcome,
            fails=fails,
            is_result_lost=is_result_lost or several,
            is_storm=several,
        )


def in_storms(each: World, count: int) -> None:
    """Signals at random moments, several in each run."""
    raised = 0

    def interrupt_soon_again(_number: int, frame: FrameType | None) -> None:
        nonlocal raised
        if raised < _AT_MOST and is_inside(frame):
            raised += 1
            signal.setitimer(signal.ITIMER_REAL, random.choice((10e-6, 50e-6, 1e-3)))
            raise Interrupt

    before = signal.signal(signal.SIGALRM, interrupt_soon_again)
    for number in range(count):
        faulthandler.dump_traceback_later(HUNG_AFTER_S, exit=True)
        fails, key, raised = number % 4 == 3, f"storm-{number}", 0
        outcome: object = None
        try:
            signal.setitimer(signal.ITIMER_REAL, random.random() * 5e-3 + 1e-5)
            outcome = each.protect(key, fails=fails)
        except BaseException as error:  # noqa: BLE001 - it is the outcome
            outcome = error
        if raised:
            each.check(key, f"{raised} signals", outcome, fails=fails, is_result_lost=True, is_storm=True)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    """1 if anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ledger", choices=("embedded", "served"), default="embedded")
    parser.add_argument("--every", type=int, default=1, help="take every so many points only")
    parser.add_argument(
        "--at-once", type=int, choices=range(1, len(_SIGNALS) + 1), default=1, help="signals at a point"
    )
    parser.add_argument("--storms", type=int, default=200, help="runs with real signals")
    arguments = parser.parse_args()
    for number in _SIGNALS:
        signal.signal(number, interrupt)
    with world(arguments.ledger) as each:
        for fails in (False, True):
            runs = at_every_step(
                each, arguments.every, 1 + random.randrange(arguments.every), arguments.at_once, fails=fails
            )
            _say(f"{arguments.ledger}, act {'fails' if fails else 'works'}: {runs} points")
        in_storms(each, arguments.storms)
        _say(f"{arguments.storms} storms, {len(each.abandoned)} leases abandoned")
        each.check_that_nothing_is_renewed()
        faulthandler.cancel_dump_traceback_later()
        _say("\n".join(each.problems[:50]))
        return 1 if each.problems else 0


if __name__ == "__main__":
    sys.exit(main())
