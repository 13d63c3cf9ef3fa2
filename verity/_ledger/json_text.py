"""JSON without loss: the exact text of an object's members, and text spliced back into an answer.

A payload is stored as the text that was sent, not as what Python's floats and ints make of it: `1.10`, `1e400` and
any escape come back as they went in. The standard library's own scanner finds where each value ends.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from verity._ledger.effect import Payload

MAX_PAYLOAD_BYTES = 65_536

_WHITESPACE = re.compile(r"[ \t\n\r]*")
_scan_value = json.JSONDecoder().scan_once  # type: ignore[attr-defined]  # public in all but the stubs


class NotJson(ValueError):
    """The text is not a JSON object."""


class Member(NamedTuple):
    """One member of an object: its value, and its text."""

    value: Any
    text: str


def read_members(body: bytes) -> dict[str, Member]:
    """The members of the JSON object that `body` is.

    Raises:
        NotJson: it is not UTF-8, not JSON, not an object, or nested too deeply.
    """
    try:
        return dict(scan_members(body.decode()))
    except (ValueError, StopIteration, IndexError, RecursionError) as error:
        raise NotJson("the body is not a JSON object in UTF-8") from error


def scan_members(
    text: str, scan_value: Callable[[str, int], tuple[Any, int]] = _scan_value
) -> list[tuple[str, Member]]:
    """The members of an object in their order, one name perhaps twice.

    Raises:
        NotJson, ValueError, StopIteration, IndexError: it is no JSON object; which of them depends on where it ends.
    """
    members: list[tuple[str, Member]] = []
    at = _after(text, _skip(text, 0), "{")
    if text[at] == "}":
        at += 1
    else:
        while True:
            if text[at] != '"':
                raise NotJson("a member's name was expected")
            name, at = scan_value(text, at)
            start = _after(text, _skip(text, at), ":")
            value, at = scan_value(text, start)
            members.append((name, Member(value, text[start:at])))
            at = _skip(text, at)
            if text[at] == "}":
                at += 1
                break
            at = _after(text, at, ",")
    if at != len(text) and _end(_WHITESPACE.match(text, at)) != len(text):
        raise NotJson("there is more after the object")
    return members


def _after(text: str, at: int, char: str) -> int:
    """The place of the next value after `char`, which must stand at `at`."""
    if text[at] != char:
        raise NotJson(f"{char!r} was expected")
    return _skip(text, at + 1)


def _skip(text: str, at: int) -> int:
    """The place of what comes next that is no white space; mostly it is here."""
    return at if text[at] not in " \t\n\r" else _end(_WHITESPACE.match(text, at))


def _end(match: re.Match[str] | None) -> int:
    return match.end() if match else 0  # the pattern matches the empty string, too


def to_payload(member: Member) -> Payload | None:
    """The payload, or None where it is over 64 KB as compact UTF-8 JSON."""
    encoded = member.text.encode()
    if len(encoded) > MAX_PAYLOAD_BYTES and len(dump(member.value).encode()) > MAX_PAYLOAD_BYTES:
        return None
    return Payload(member.text, hashlib.sha256(encoded).hexdigest())


class Raw(str):
    """JSON text that goes into an answer as it is."""

    __slots__ = ()


_SPLICED = frozenset({Raw, dict, list})

dump = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
"""Compact JSON. One encoder: `json.dumps` with arguments makes a new one for each call."""


def dump_fields(fields: dict[str, Any]) -> bytes:
    """A JSON object whose `Raw` values (also those of nested objects and lists) go in as they are."""
    return _splice(fields).encode("utf-8", "surrogatepass")


def _splice(value: Any) -> str:
    if isinstance(value, dict):
        if _SPLICED.isdisjoint(map(type, value.values())):
            return dump(value)
        return "{" + ",".join([f"{dump(name)}:{_splice(item)}" for name, item in value.items()]) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_splice, value)) + "]"
    return value if isinstance(value, Raw) else dump(value)
