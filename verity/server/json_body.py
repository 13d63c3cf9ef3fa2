"""Parses a request body as a JSON object, strictly: it refuses what two parsers could read differently."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from verity._ledger.raw_json import Members, dump, scan_object

MAX_DEPTH = 201
"""A payload's 200 levels, and the object around it."""


class BadBody(ValueError):
    """The body is not a strict JSON object. The message says why and quotes nothing of the body."""


def read_object(body: bytes, max_depth: int = MAX_DEPTH) -> Members:
    """Parse the body.

    Raises:
        BadBody: it is empty, not UTF-8, not JSON, not an object, too deep, or has a name twice.
    """
    try:
        members = scan_object(body.decode(), _scan_strictly)
        if b"\\u" in body:
            # An escaped lone surrogate is valid JSON, but it can't be stored or sent as UTF-8: encode() refuses it.
            dump(members.values).encode()
    except (ValueError, StopIteration, IndexError, RecursionError) as error:
        raise _explain(body, error, max_depth) from None
    if body.count(b"{") + body.count(b"[") > max_depth and _depth(members.values) > max_depth:
        raise _too_deep(max_depth)
    return members


def _explain(body: bytes, error: Exception, max_depth: int) -> BadBody:
    """Why the body could not be read."""
    if isinstance(error, BadBody):
        return error
    for kind, why in _REASONS.items():
        if isinstance(error, kind):
            return BadBody(why)
    try:
        json.loads(body.decode())
    except RecursionError:
        return _too_deep(max_depth)
    except ValueError:
        return BadBody("must be JSON" if body else "a JSON object is required")
    return BadBody("must be a JSON object")


_REASONS = {
    UnicodeDecodeError: "must be UTF-8",
    UnicodeEncodeError: "has a lone surrogate, which is not Unicode text",
}


def _too_deep(max_depth: int) -> BadBody:
    return BadBody(f"is nested deeper than {max_depth} levels")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise BadBody("has an object with the same name twice")
    return members


def _refuse_constant(_name: str) -> NoReturn:
    raise BadBody("has NaN or Infinity, which JSON does not have")


def _depth(value: Any) -> int:
    """How many containers are inside each other. Not recursive, since the value may be too deep for recursion."""
    depth, level = 0, [value]
    while level:
        level = [item for item in level if isinstance(item, (dict, list))]
        depth += bool(level)
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
    return depth


_scan_strictly = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant).scan_once  # type: ignore[attr-defined]  # public in all but the stubs
