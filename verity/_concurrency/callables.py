"""The user's functions: their types, and the checks of a function and of what it returns."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from functools import partial
from types import FunctionType
from typing import Any, TypeVar

from verity.errors import VerityValidationError

T = TypeVar("T")

AsyncFunction = Callable[..., Awaitable[T]]
AsyncThunk = Callable[[], Awaitable[T]]
AsyncAct = Callable[[], Awaitable[T]] | Callable[[], T]
SyncFunction = Callable[..., T]
SyncThunk = Callable[[], T]
SyncAct = Callable[[], T]


def is_async_callable(fn: object) -> bool:
    """Whether calling `fn` returns a coroutine, as far as its definition tells."""
    fn = _unwrapped(fn)
    flags = _code_flags(fn)
    if flags is not None:
        return bool(flags & inspect.CO_COROUTINE)
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(type(fn), "__call__", None))  # noqa: B004 - the method itself is wanted


def _unwrapped(fn: object) -> object:
    while isinstance(fn, partial):
        fn = fn.func
    return fn


def _code_flags(fn: object) -> int | None:
    """The code flags of a plain function. Reading them is ten times as fast as `inspect`, with the same answer.

    None where `inspect` must decide: for other callables, and for a function with attributes, since
    `inspect.markcoroutinefunction` sets one.
    """
    return fn.__code__.co_flags if type(fn) is FunctionType and not fn.__dict__ else None


def async_check_callable(name: str, fn: object) -> None:
    """Refuse a coroutine object, any other non-callable and a generator function, before anything is sent.

    Raises:
        VerityValidationError: names the parameter.
    """
    if not callable(fn):
        raise _not_callable(name, fn, "an async or a sync function without arguments")
    _refuse_arguments(name, fn)
    _refuse_generator(name, fn)


def sync_check_callable(name: str, fn: object) -> None:
    """As `async_check_callable`; also refuses a coroutine function, which the sync client can't await."""
    if is_async_callable(fn):
        raise VerityValidationError(
            f"{name} is an async function, but this is the sync client: pass a plain function, or use VerityClient.",
            parameter=name,
        )
    if not callable(fn):
        raise _not_callable(name, fn, "a function without arguments")
    _refuse_arguments(name, fn)
    _refuse_generator(name, fn)


def _not_callable(name: str, value: object, takes: str) -> VerityValidationError:
    if inspect.iscoroutine(value):
        value.close()  # otherwise Python warns that it was never awaited
        problem = f"{name} is a coroutine object: pass the function itself ({name}=fn, not {name}=fn())."
    else:
        problem = f"{name} must be {takes}, not {type(value).__name__}."
    return VerityValidationError(problem, parameter=name)


def _refuse_arguments(name: str, fn: object) -> None:
    """Refuse a plain function that needs arguments: Python would refuse the call, after the lease was granted."""
    if type(fn) is not FunctionType:
        return
    code = fn.__code__
    if code.co_argcount > len(fn.__defaults__ or ()) or code.co_kwonlyargcount > len(fn.__kwdefaults__ or ()):
        raise VerityValidationError(
            f"{name} needs arguments, and is called without any: pass lambda: {fn.__name__}(…), or functools.partial.",
            parameter=name,
        )


def _refuse_generator(name: str, fn: object) -> None:
    """Refuse a generator function: a call of it runs none of its code, and looks like success."""
    fn = _unwrapped(fn)
    flags = _code_flags(fn)
    if flags is not None and not flags & (inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR):
        return
    functions = (fn, getattr(type(fn), "__call__", None))  # noqa: B004 - the method itself is wanted
    if any(inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each) for each in functions):
        raise VerityValidationError(
            f"{name} is a generator function: return its result, without yield.", parameter=name
        )


async def async_settled(name: str, value: Any) -> Any:  # noqa: ARG001 - the twin needs the name
    """Return the value; an awaitable is awaited first."""
    return await value if inspect.isawaitable(value) else value


def sync_settled(name: str, value: Any) -> Any:
    """Return the value; an awaitable is refused, because the sync client can't await it.

    Raises:
        VerityValidationError: the value is an awaitable.
    """
    if not inspect.isawaitable(value):
        return value
    if inspect.iscoroutine(value):
        value.close()
    raise VerityValidationError(
        f"{name} returned an awaitable, but this is the sync client: pass a plain function, or use VerityClient. "
        "No result was recorded.",
        parameter=name,
    )
