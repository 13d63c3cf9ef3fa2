"""The options of `verity serve` that set limits. Each sets a field of `ServerSettings` and has the field's default."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from verity.server.json_body import MAX_DEPTH
from verity.server.settings import ServerSettings

_Command = TypeVar("_Command", bound=Callable[..., Any])

_SECONDS = click.FloatRange(min=0.1)
_LIMITS: dict[str, tuple[click.IntRange | click.FloatRange, str]] = {
    # The minimum has room for a commit with a result of 64 KB: its act is done, so that it must not be refused.
    "max_body_bytes": (click.IntRange(131_072, 16_777_216), "Bytes of a request's body; larger ones get a 413."),
    "max_body_depth": (click.IntRange(10, MAX_DEPTH), "Nesting of a request's body; deeper ones get a 400."),
    "rate_limit": (
        click.IntRange(min=0),
        "Requests a second of one API key on this node; 0 is no limit; others get a 429.",
    ),
    "header_timeout": (_SECONDS, "Seconds that a request's header may take."),
    "body_timeout": (_SECONDS, "Seconds that a request's body may take after its header."),
    "read_timeout": (_SECONDS, "Seconds that a client may leave an answer unread."),
    "max_waits": (click.IntRange(min=0), "Lease requests that may wait for another holder; others get a 409."),
    "max_searches": (
        click.IntRange(min=1),
        "Lists and counts of one API key that may be under way on this node; others get a 429.",
    ),
    "search_timeout": (_SECONDS, "Seconds that a list or a count may take; then it gets a 503."),
    "max_batch": (click.IntRange(1, 1000), "Calls that go to the store together; 1 switches group commit off."),
    "database_timeout": (_SECONDS, "Seconds that PostgreSQL may take for a statement; then the call gets a 503."),
    "max_connections": (
        click.IntRange(min=1),
        "Connections that may be open (others get a 503); one API key may have half of them (429).",
    ),
    "max_unread_bytes": (
        click.IntRange(min=4_194_304),
        "Bytes of answers that may wait for clients that do not read; one API key may have a quarter.",
    ),
}


def limit_options(command: _Command) -> _Command:
    """Add the options; the command gets them as keyword arguments."""
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
