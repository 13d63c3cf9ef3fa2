"""Text and numbers from outside: made plain once, at the border, and searched for characters that nobody can see.

A subclass of `str` or `int` may print, compare and hash as something else: `f"{Kind.REFUND}"` of a `class Kind(str,
Enum)` is "refund" on Python 3.10 and "Kind.REFUND" on 3.11. So nothing but an exact `str` or `int` gets further in.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import TypeVar, cast

Word = TypeVar("Word", bound=str)

_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp", "Zs"})
"""Control and format characters, lone surrogates, separators."""
_JOINERS = "\u200c\u200d"
"""Scripts such as Persian need them, between two letters."""
_CONTROLS = {"\0": "nul", "\t": "tab", "\n": "line feed", "\r": "carriage return"}


def read_text(value: object) -> str | None:
    """The characters of a string as an exact `str`, whatever its class makes of them; None where it is no string."""
    if type(value) is str:
        return value
    # Not isinstance(): a stand-in that only says that it is a string has no characters.
    return str.__str__(cast("str", value)) if issubclass(type(value), str) else None


def read_int(value: object) -> int | None:
    """A whole number as an exact `int`; None where it is none. A bool is not a number here."""
    if type(value) is int:
        return value
    is_number = issubclass(type(value), int) and type(value) is not bool
    return int.__index__(cast("int", value)) if is_number else None


def read_choice(value: object, choices: Iterable[Word]) -> Word | None:
    """One of the words that are allowed, as an exact `str`; None where it is none of them."""
    text = read_text(value)
    for word in choices:
        if word == text:
            return word
    return None


def find_flaw(text: str) -> str | None:
    """What is wrong with a setting as text, such as "ends with U+000D (carriage return)"; None where nothing is.

    Files of environment variables, secrets and web pages bring along what a person does not see. With it a setting is
    another one: the name of another file, for example. The text itself is never part of what is told.
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
    """Such as `U+00A0 (no-break space)`."""
    name = _CONTROLS.get(char) or unicodedata.name(char, "a control character").lower()
    return f"U+{ord(char):04X} ({name})"


def _is_hidden(char: str) -> bool:
    return char != " " and unicodedata.category(char) in _HIDDEN_CATEGORIES


def _is_quoted(text: str) -> bool:
    """Whether quotation marks of a shell or a file have become a part of it."""
    first, last = text[0], text[-1]
    return '"' in (first, last) or (first == last and first in "'`")
