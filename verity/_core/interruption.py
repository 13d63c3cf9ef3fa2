"""What interrupts a call: an exception that a signal's handler, or another thread, raises between any two of its steps.

Python runs a signal's handler in the main thread, between two steps of whatever runs there, and what the handler raises
comes up at that place: Ctrl-C, a worker's soft time limit, an alarm. `PyThreadState_SetAsyncExc` does the same to any
thread. Such an exception says nothing of the call that it met, whatever its class is. What a handler raised is known by
its traceback: Python calls a handler with the frame that it interrupted.
"""

from __future__ import annotations

import inspect
import opcode
from collections.abc import Iterator
from functools import partial
from types import FrameType, TracebackType
from typing import Any

_MAX_CAUSES = 16
_RESUME = opcode.opmap.get("RESUME")


def raised_by_handler(error: BaseException, outer: BaseException | None) -> BaseException | None:
    """What a signal's handler raised: this error or the one that it stands for, as a transport's own may; else None.

    Args:
        error: what came out of a call.
        outer: the exception that was being handled before that call began; it is in the error's context, too.
    """
    raised: BaseException | None = error
    for _ in range(_MAX_CAUSES):
        if raised is None or raised is outer:
            return None
        if is_from_handler(raised):
            return raised
        raised = raised.__context__ if raised.__cause__ is None else raised.__cause__
    return None


def is_from_handler(error: BaseException) -> bool:
    """Whether a signal's handler raised it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        if _is_handler(trace.tb_next.tb_frame, trace.tb_frame):
            return True
        trace = trace.tb_next
    return False


def _is_handler(frame: FrameType, interrupted: FrameType) -> bool:
    """Whether this frame is a signal handler's: Python calls it with the frame that it interrupted."""
    return any(value is interrupted for value in _arguments(frame))


def _arguments(frame: FrameType) -> Iterator[Any]:
    code = frame.f_code
    count = code.co_argcount + code.co_kwonlyargcount
    for name in code.co_varnames[:count]:
        yield frame.f_locals.get(name)
    if code.co_flags & inspect.CO_VARARGS:
        yield from frame.f_locals.get(code.co_varnames[count]) or ()


def is_interrupt(error: BaseException) -> bool:
    """Whether it tells of no outcome: a signal's handler raised it, or a cancellation, or a request to exit."""
    return is_from_handler(error) if isinstance(error, Exception) else not isinstance(error, GeneratorExit)


def has_run(fn: object, here: TracebackType | None) -> bool:
    """Whether `fn` was running when an exception was raised, as far as can be told.

    It was not where the exception came up at its entry, before its first step, nor where its arguments were refused.

    Args:
        fn: what was called.
        here: the exception's traceback, from where `fn` was called.
    """
    below = None if here is None else here.tb_next
    while here is not None and below is not None and below.tb_frame is here.tb_frame:
        below = below.tb_next  # Python 3.10 has this frame twice, where a trace function raised: a debugger's, to quit
    if here is None or below is None:  # a function of C's leaves no frame
        return not _is_python(fn)
    if _is_handler(below.tb_frame, here.tb_frame):
        return False
    return not _ended_at_entry(below)


def has_stepped(awaited: object, trace: TracebackType | None) -> bool:
    """Whether a coroutine was running, or had been, when an exception was raised: the twin of `has_run`.

    Args:
        awaited: what was awaited. What is no coroutine is taken to have run.
        trace: the exception's traceback.
    """
    if not inspect.iscoroutine(awaited):
        return True
    if inspect.getcoroutinestate(awaited) == inspect.CORO_CREATED:
        return False
    while trace is not None and trace.tb_frame.f_code is not awaited.cr_code:
        trace = trace.tb_next
    return trace is None or not _ended_at_entry(trace)


def _ended_at_entry(trace: TracebackType) -> bool:
    below = trace.tb_next
    return _is_at_entry(trace) and (below is None or _is_handler(below.tb_frame, trace.tb_frame))


def _is_python(fn: object) -> bool:
    while isinstance(fn, partial):
        fn = fn.func
    return hasattr(fn, "__code__") or hasattr(getattr(type(fn), "__call__", None), "__code__")  # noqa: B004 - its code


def _is_at_entry(trace: TracebackType) -> bool:
    if _RESUME is None:  # pragma: no cover - before Python 3.11
        return trace.tb_lasti < 0
    code = trace.tb_frame.f_code.co_code
    return code[trace.tb_lasti] == _RESUME and not code[trace.tb_lasti + 1] & 3  # the others are after a `yield`
