"""Converts text and numbers from callers to exact `str` and `int` objects, and finds invisible characters.

A subclass of `str` or `int` may print, compare and hash differently: `f"{Kind.REFUND}"` of a `class Kind(str, Enum)` is
"refund" on Python 3.10 and "Kind.REFUND" on 3.11. So the client converts each value once, where it comes in.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable
from typing import TypeVar, cast

Word = TypeVar("Word", bound=str)

_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp", "Zs"})
"""Unicode categories: control and format characters, lone surrogates, separators."""
_JOINERS = "\u200c\u200d"
"""Zero-width joiners. Scripts such as Persian need them between two letters."""
_CONTROLS = {"\0": "nul", "\t": "tab", "\n": "line feed", "\r": "carriage return"}


def read_text(value: object) -> str | None:
    """The characters of a string as an exact `str`, ignoring methods of its class; None if it is no string."""
    if type(value) is str:
        return value
    # Not isinstance(): an object can claim to be a string by its `__class__`, and has no characters.
    return str.__str__(cast("str", value)) if issubclass(type(value), str) else None


def is_number(value: object) -> bool:
    """Whether the value is a finite int or float. A bool is not a number here."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def read_int(value: object) -> int | None:
    """A whole number as an exact `int`; None if it is none. A bool is not accepted as a number."""
    if type(value) is int:
        return value
    is_whole = issubclass(type(value), int) and type(value) is not bool
    return int.__index__(cast("int", value)) if is_whole else None


def read_choice(value: object, choices: Iterable[Word]) -> Word | None:
    """The allowed word that equals the value, as an exact `str`; None if there is none."""
    text = read_text(value)
    for word in choices:
        if word == text:
            return word
    return None


def find_flaw(text: str) -> str | None:
    """The flaw of a setting's text, such as "ends with U+000D (carriage return)"; None if it has none.

    Text that is copied from files of environment variables, secrets or web pages can have invisible characters. They
    change the setting: it names another file, for example. The flaw never quotes the text itself.
    """
    if not text or (text.isprintable() and text.strip() == text and not _is_quoted(text)):
        return None
    for char, where in ((text[-1], "ends"), (text[0], "begins")):
        if char in _JOINERS or _is_hidden(char) or char == " ":
            return f"{where} with {name_character(char)}"
    for position, char in enumerate(text, 1):
        if _is_hidden(char) and char not in _JOINERS:
            return f"has {name_character(char)} at position {position} of {len(text)}"
    return "begins or ends with a quotation mark" if _is_quoted(text) else None


def name_character(char: str) -> str:
    """The code point and name of a character, such as `U+00A0 (no-break space)`."""
    name = _CONTROLS.get(char) or unicodedata.name(char, "a control character").lower()
    return f"U+{ord(char):04X} ({name})"


def _is_hidden(char: str) -> bool:
    return char != " " and unicodedata.category(char) in _HIDDEN_CATEGORIES


def _is_quoted(text: str) -> bool:
    """Whether quotation marks of a shell or a file have become part of the text."""
    first, last = text[0], text[-1]
    return '"' in (first, last) or (first == last and first in "'`")
