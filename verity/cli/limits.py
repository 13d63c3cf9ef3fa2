"""The options of `verity serve` that set limits. Each is a field of `ServerSettings`, with the field's default."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from verity.server.json_body import MAX_DEPTH
from verity.server.settings import ServerSettings

_Command = TypeVar("_Command", bound=Callable[..., Any])

_SECONDS = click.FloatRange(min=0.1)
_LIMITS: dict[str, tuple[click.IntRange | click.FloatRange, str]] = {
    # A commit whose result is 64 KB must fit: its act is done.
    "max_body_bytes": (click.IntRange(131_072, 16_777_216), "A request body over it is refused (413)."),
    "max_body_depth": (click.IntRange(10, MAX_DEPTH), "A request body that is nested deeper is refused (400)."),
    "rate_limit": (click.IntRange(min=0), "Requests a second of one API key on this node; 0 is no limit (429)."),
    "header_timeout": (_SECONDS, "How many seconds a request's header may take."),
    "body_timeout": (_SECONDS, "How many seconds its body may take after that."),
    "read_timeout": (_SECONDS, "How many seconds a client may leave an answer unread."),
    "max_waits": (click.IntRange(min=0), "How many lease requests may wait for another holder; others get a 409."),
    "max_searches": (
        click.IntRange(min=1),
        "How many lists and counts of one API key may be under way on this node (429).",
    ),
    "search_timeout": (_SECONDS, "How many seconds a list or a count may take (503)."),
    "max_batch": (click.IntRange(1, 1000), "How many calls go to storage together; 1 switches group commit off."),
    "database_timeout": (_SECONDS, "How many seconds PostgreSQL may take for a statement (503)."),
    "max_connections": (
        click.IntRange(min=1),
        "How many connections may be open (503); half of them for one API key (429).",
    ),
    "max_unread_bytes": (
        click.IntRange(min=4_194_304),
        "How many bytes of answers may wait for clients that do not read; a quarter for one API key.",
    ),
}


def limit_options(command: _Command) -> _Command:
    """Add them; the command gets them as keyword arguments."""
    for name, (kind, text) in reversed(_LIMITS.items()):
        command = click.option(
            f"--{name.replace('_', '-')}",
            type=kind,
            default=getattr(ServerSettings(), _field(name)),
            show_default=True,
            envvar=f"VERITY_{name.upper()}",
            show_envvar=True,
            help=text,
        )(command)
    return command


def to_settings(options: dict[str, Any]) -> dict[str, Any]:
    """The options as fields of `ServerSettings`."""
    return {_field(name): value for name, value in options.items()}


def _field(name: str) -> str:
    return f"{name}_s" if name.endswith("_timeout") else name
