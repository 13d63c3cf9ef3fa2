"""Options that several commands share, and parsers of their values."""

from __future__ import annotations

import re
from collections.abc import Callable

import click

_UNIT_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_DURATION = re.compile(r"([1-9][0-9]{0,5})([smhdw])")
_LONGEST_MS = 36_500 * _UNIT_MS["d"]
"""A hundred years: a time so far from now is still a valid date."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")


def read_duration(_context: click.Context, _option: click.Parameter, value: str | None) -> int | None:
    """An option's callback: a duration such as `90d` (a whole number and a unit) in milliseconds."""
    if value is None:
        return None
    duration_ms = parse_duration(value)
    if duration_ms is None:
        raise click.BadParameter("write a whole number and a unit (s, m, h, d or w), such as 90d; at most 36500d.")
    return duration_ms


def parse_duration(text: str) -> int | None:
    """A duration in milliseconds; None if it is not a duration, or longer than a hundred years."""
    match = _DURATION.fullmatch(text)
    duration_ms = int(match[1]) * _UNIT_MS[match[2]] if match else None
    return None if duration_ms is None or duration_ms > _LONGEST_MS else duration_ms


def read_namespace(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    """An option's callback: a namespace that a ledger may already have."""
    from verity._core.keys import check_stored_namespace

    return None if value is None else _check_namespace(value, check_stored_namespace)


def read_namespaces(_context: click.Context, _option: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """The callback of an option that may be repeated: namespaces for new effects."""
    from verity._core.keys import check_namespace

    return tuple(_check_namespace(each, check_namespace) for each in values)


def _check_namespace(namespace: str, check: Callable[[str], str]) -> str:
    from verity.errors import VerityConfigError

    try:
        return check(namespace)
    except VerityConfigError as error:
        raise click.BadParameter(str(error)) from None


def parse_address(text: str) -> tuple[str, int] | None:
    """A host and a port from `HOST:PORT`, with an IPv6 host in brackets; None if the text is not one."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:\[\]]+)):([0-9]{1,5})", text)
    return None if match is None or int(match[3]) > 65_535 else (match[1] or match[2], int(match[3]))
