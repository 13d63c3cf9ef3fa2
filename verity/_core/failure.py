"""The record of a failure: how an exception of `act` is described in the ledger."""

from __future__ import annotations

import traceback
from typing import Any

from verity._core.interruption import is_from_handler

_MAX_NAME_CHARS = 200
_MAX_MESSAGE_CHARS = 2_000
_MAX_STACK_CHARS = 8_000
"""In the worst case (6 bytes for an escaped character), all three parts stay below the payload limit of 64 KB."""


def describe_failure(error: BaseException) -> dict[str, Any]:
    """Return `{"name", "message", "stack"}`, cut to fit into a payload, even if the exception's own code raises."""
    return {
        "name": _fit(type(error).__qualname__, _MAX_NAME_CHARS),
        "message": _fit(_message_of(error), _MAX_MESSAGE_CHARS),
        "stack": _fit_end(_stack_of(error), _MAX_STACK_CHARS),
    }


def _message_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:  # __str__ is the user's code and may raise anything
        if is_from_handler(broken):
            raise
        return f"<{type(error).__qualname__}.__str__ raised {type(broken).__qualname__}>"


def _stack_of(error: BaseException) -> str:
    try:
        return "".join(traceback.format_tb(error.__traceback__))
    except Exception as broken:  # a source line may be gone or unreadable; the failure still counts
        if is_from_handler(broken):
            raise
        return ""


def _fit(text: str, limit: int) -> str:
    text = str.encode(text, "utf-8", "replace").decode()  # `str.encode`: a subclass of str may have its own
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _fit_end(text: str, limit: int) -> str:
    """Cut the beginning: the end of a stack shows where the exception was raised."""
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= limit else "…" + text[-(limit - 1) :]


def add_note(error: BaseException, note: str) -> None:
    """As `error.add_note(note)` (PEP 678). It also works on Python 3.10, where the note is kept but not printed."""
    try:
        error.__notes__ = [*getattr(error, "__notes__", []), note]  # type: ignore[attr-defined]  # typed from 3.11 on
    except Exception as broken:  # an exception with slots, or with a `__setattr__` of its own, may refuse a note
        if is_from_handler(broken):
            raise
