"""JSON without loss: reads the exact text of an object's members, and writes such text into an answer.

A payload is stored as the text that was sent, not as parsed values. So `1.10`, `1e400` and escapes come back unchanged.
The standard library's scanner finds the end of each value.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from verity._ledger.effect import Payload
from verity._limits import MAX_PAYLOAD_BYTES

_LONG = 4096
"""In characters. In a longer text a member is found by a scan of all members, not by a search for its name."""
_WHITESPACE = re.compile(r"[ \t\n\r]*")
_scan_value = json.JSONDecoder().scan_once  # type: ignore[attr-defined]  # public in all but the stubs


class NotJson(ValueError):
    """The text is not a JSON object."""


class Members:
    """The members of a JSON object.

    Attributes:
        values: the parsed values by name. If a name occurs more than once, its last value.
    """

    __slots__ = ("_text", "values")

    def __init__(self, text: str, values: dict[str, Any]) -> None:
        self.values = values
        self._text = text

    def __repr__(self) -> str:
        return f"<Members, {len(self.values)} of them>"

    def text_of(self, name: str) -> str:
        """The text of a member's value. Raises KeyError if there is no such member."""
        text, quoted = self._text, f'"{name}"'
        if name not in self.values:
            raise KeyError(name)
        if len(text) > _LONG or "\\" in text or text.count(quoted) != 1:
            return dict(_scan_members(text))[name]
        # Without escapes a name can be written in one way only. It occurs once, so this is the member's name.
        start = _after(text, text.index(quoted) + len(quoted))
        return text[start : _scan_value(text, start)[1]]


def read_members(body: bytes) -> Members:
    """The members of a JSON object in UTF-8.

    Raises:
        NotJson: the body is not UTF-8, not JSON, not an object, or nested too deeply.
    """
    try:
        return scan_object(body.decode())
    except (ValueError, StopIteration, IndexError, RecursionError) as error:
        raise NotJson("the body is not a JSON object in UTF-8") from error


def scan_object(text: str, scan_value: Callable[[str, int], tuple[Any, int]] = _scan_value) -> Members:
    """The members of a JSON object.

    Raises:
        NotJson, ValueError, StopIteration, IndexError: the text is not a JSON object. Where it breaks decides which.
    """
    start = _skip(text, 0)
    if text[start] != "{":
        raise NotJson("an object was expected")
    values, end = scan_value(text, start)
    if end != len(text) and _end(_WHITESPACE.match(text, end)) != len(text):
        raise NotJson("there is more text after the object")
    return Members(text, values)


def _scan_members(text: str) -> Iterator[tuple[str, str]]:
    """The names and texts of an object's members. The object must be valid and not empty."""
    at = _after(text, 0)
    while True:
        name, at = _scan_value(text, at)
        start = _after(text, at)
        _, at = _scan_value(text, start)
        yield name, text[start:at]
        at = _skip(text, at)
        if text[at] == "}":
            return
        at = _after(text, at)


def _after(text: str, at: int) -> int:
    """Skip white space, one character (a brace, colon or comma) and white space; returns the new position."""
    return _skip(text, _skip(text, at) + 1)


def _skip(text: str, at: int) -> int:
    """Skip white space, if there is any; returns the new position."""
    return at if text[at] not in " \t\n\r" else _end(_WHITESPACE.match(text, at))


def _end(match: re.Match[str] | None) -> int:
    return match.end() if match else 0  # the pattern matches the empty string, too


def to_payload(text: str, value: Any) -> Payload | None:
    """The payload of a member; None: it is over 65,536 bytes as compact UTF-8 JSON."""
    encoded = text.encode()
    if len(encoded) > MAX_PAYLOAD_BYTES and len(dump(value).encode()) > MAX_PAYLOAD_BYTES:
        return None
    return Payload(text, hashlib.sha256(encoded).hexdigest())


class Raw(str):
    """JSON text that is written into an answer unchanged."""

    __slots__ = ()


dump = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
"""Writes compact JSON. `json.dumps` with arguments would make a new encoder for each call."""
_quote: Callable[[str], str] = json.encoder.encode_basestring


def dump_fields(fields: dict[str, Any]) -> bytes:
    """Write a JSON object. `Raw` values, also in nested objects and lists, are written unchanged."""
    return dump_object(fields).encode("utf-8", "surrogatepass")


def dump_object(fields: dict[str, Any]) -> str:
    """As `dump_fields`, but returns text."""
    return (
        "{"
        + ",".join([f"{_quote(name)}:{_WRITERS.get(type(value), dump)(value)}" for name, value in fields.items()])
        + "}"
    )


def _dump_list(values: list[Any]) -> str:
    return "[" + ",".join([_WRITERS.get(type(value), dump)(value) for value in values]) + "]"


_WRITERS: dict[type, Callable[[Any], str]] = {
    Raw: str,
    str: _quote,
    int: int.__repr__,
    dict: dump_object,
    list: _dump_list,
}
"""The writer of each type. For a few short fields this costs a fraction of an encoder's call."""
