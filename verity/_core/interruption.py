"""Interrupts: exceptions that a signal handler raises, or another thread injects, between any two steps of a call.

Python runs signal handlers in the main thread, between two steps of the code that runs there. An exception of the
handler (Ctrl-C, a worker's soft time limit, an alarm) is raised at that point. `PyThreadState_SetAsyncExc` does the
same to any thread. Such an exception, of whatever class, says nothing about the outcome of the interrupted call.

The traceback shows that a handler raised an exception: Python calls a handler with the frame that it interrupted.
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
    """The exception of a signal handler: the error itself, or a cause that a transport wrapped in it; else None.

    Args:
        error: the exception that a call raised.
        outer: the exception that was being handled before that call began. It is in the error's context, too.
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
    """Whether a signal handler raised the exception."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        if _is_handler(trace.tb_next.tb_frame, trace.tb_frame):
            return True
        trace = trace.tb_next
    return False


def _is_handler(frame: FrameType, interrupted: FrameType) -> bool:
    """Whether the frame is a signal handler's: Python passes it the frame that it interrupted."""
    return any(value is interrupted for value in _arguments(frame))


def _arguments(frame: FrameType) -> Iterator[Any]:
    code = frame.f_code
    count = code.co_argcount + code.co_kwonlyargcount
    for name in code.co_varnames[:count]:
        yield frame.f_locals.get(name)
    if code.co_flags & inspect.CO_VARARGS:
        yield from frame.f_locals.get(code.co_varnames[count]) or ()


def is_interrupt(error: BaseException) -> bool:
    """Whether the exception says nothing about an outcome: a signal handler's, a cancellation or a request to exit."""
    return is_from_handler(error) if isinstance(error, Exception) else not isinstance(error, GeneratorExit)


def has_run(fn: object, here: TracebackType | None) -> bool:
    """Whether `fn` was running when an exception was raised, as far as the traceback tells.

    It was not running if an interrupt came at its entry, before its first step, or if Python refused its arguments.

    Args:
        fn: the function that was called.
        here: the exception's traceback, beginning at the frame that called `fn`.
    """
    below = None if here is None else here.tb_next
    while here is not None and below is not None and below.tb_frame is here.tb_frame:
        below = below.tb_next  # on Python 3.10 this frame occurs twice if a trace function (a debugger's) raised
    if here is None or below is None:  # a function written in C has no frame
        return not _is_python(fn)
    if _is_handler(below.tb_frame, here.tb_frame):
        return False
    return not _ended_at_entry(below)


def has_stepped(awaited: object, trace: TracebackType | None) -> bool:
    """Whether a coroutine had begun when an exception was raised: the twin of `has_run`.

    Args:
        awaited: the awaitable. One that is no coroutine is assumed to have run.
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
    return code[trace.tb_lasti] == _RESUME and not code[trace.tb_lasti + 1] & 3  # not 0: a RESUME after a `yield`
