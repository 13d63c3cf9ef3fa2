"""A request body as a JSON object, strictly: what two parsers could read differently is refused."""

from __future__ import annotations

import json
from typing import Any, NoReturn

MAX_DEPTH = 201
"""A payload's 200 levels, and the object around it."""


class BadBody(ValueError):
    """The body is not such an object; the message says why, without a word of what was sent."""


def read_object(body: bytes, max_depth: int = MAX_DEPTH) -> dict[str, Any]:
    """Parse the body.

    Raises:
        BadBody: it is empty, not UTF-8, not JSON, not an object, too deep, or has a name twice.
    """
    if not body:
        raise BadBody("a JSON object is required")
    try:
        value = _decoder.decode(body.decode())
        if b"\\u" in body:
            # An escaped lone surrogate is JSON, and still no text that could be stored or sent on as UTF-8.
            json.dumps(value, ensure_ascii=False).encode()
    except BadBody:
        raise
    except UnicodeDecodeError:
        raise BadBody("must be UTF-8") from None
    except UnicodeEncodeError:
        raise BadBody("has a lone surrogate, which is not Unicode text") from None
    except RecursionError:
        raise _too_deep(max_depth) from None
    except ValueError:
        raise BadBody("must be JSON") from None
    if not isinstance(value, dict):
        raise BadBody("must be a JSON object")
    if body.count(b"{") + body.count(b"[") > max_depth and _depth(value) > max_depth:
        raise _too_deep(max_depth)
    return value


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
    """How many containers are inside each other. Not recursive: the depth is what is in doubt."""
    depth, level = 0, [value]
    while level:
        level = [item for item in level if isinstance(item, (dict, list))]
        depth += bool(level)
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
    return depth


_decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)
