"""Payloads: any JSON value of at most 64 KB as compact UTF-8 JSON, which is the same after a round trip.

`json.dumps` alone accepts too much: it turns the key 1 into "1", allows NaN, and fails late on surrogates. A value that
is accepted here is exactly the value that every later caller gets back.
"""

from __future__ import annotations

import json
import math
from contextlib import suppress
from typing import Any

from verity._core.interruption import is_from_handler
from verity._core.text import read_text
from verity._limits import MAX_PAYLOAD_BYTES
from verity.errors import VerityValidationError

MAX_DEPTH = 200
"""Levels of nesting that every JSON parser on the way accepts. Deeper values are refused before they are sent."""

# One encoder: `json.dumps` with arguments makes a new one for each call.
_dump = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_PLAIN_NAMES = {str}
_ATOMS = (str, int, type(None))  # bool is an int; a float must be checked for NaN


def encode_json(value: Any) -> bytes:
    """The compact UTF-8 JSON of a value that is already checked."""
    return _dump(value).encode()


def round_trip(value: Any, parameter: str, *, max_bytes: float = MAX_PAYLOAD_BYTES) -> Any:
    """Return the value as every later caller will read it.

    `(1, 2)` becomes `[1, 2]`. An object that is not JSON but has a method `to_dict`, as objects of Stripe's SDK have,
    becomes the result of that method.

    Raises:
        VerityValidationError: it is not JSON, too deep, or over `max_bytes`; the error's `parameter` names the part.
    """
    if value is None or value is True or value is False:
        return value
    with suppress(VerityValidationError):
        return json.loads(encode(value, parameter, max_bytes=max_bytes))
    return json.loads(encode(_with_dicts(value, parameter), parameter, max_bytes=max_bytes))


def encode(value: Any, parameter: str, *, max_bytes: float = MAX_PAYLOAD_BYTES) -> str:
    """Return the compact JSON text of a payload.

    Raises:
        VerityValidationError: it is not JSON, too deep, or over `max_bytes`; the error's `parameter` names the part.
    """
    try:
        _check(value, parameter, 0)
        text = _dump(value)
        size = len(text.encode())
    except VerityValidationError:
        raise
    except UnicodeEncodeError:
        raise _refuse(parameter, "contains a lone surrogate, which UTF-8 cannot carry") from None
    except RecursionError:
        raise _too_deep(parameter) from None
    except Exception as error:  # code of the user's own types runs here and may raise anything
        if is_from_handler(error):
            raise
        raise _unreadable(parameter, error) from error
    if size > max_bytes:
        raise _refuse(
            parameter,
            f"has {size:,} bytes as compact UTF-8 JSON; at most {max_bytes:,} are allowed. "
            "Store the large part elsewhere and keep a reference here",
        )
    return text


def _check(value: Any, path: str, depth: int) -> None:
    """Refuse any part of the value that `json.dumps` would change or wrongly accept. `path` names the part."""
    if isinstance(value, _ATOMS):
        return
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _refuse(path, f"is {value!r}, which JSON does not have")
        return
    if depth >= MAX_DEPTH:
        raise _refuse(path.partition(".")[0].partition("[")[0], f"is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, dict):
        if not _PLAIN_NAMES.issuperset(map(type, value)):
            _check_names(value, path)
        for key, item in value.items():
            if not isinstance(item, _ATOMS):
                _check(item, _path_of(path, read_text(key) or ""), depth + 1)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            if not isinstance(item, _ATOMS):
                _check(item, f"{path}[{index}]", depth + 1)
    else:
        raise _refuse(
            path,
            f"is of type {type(value).__qualname__}, which is not JSON. Use dicts, lists, strings, numbers, "
            "booleans or None (for example the fields that you need from it)",
        )


def _check_names(value: dict[Any, Any], path: str) -> None:
    """Refuse keys that are no strings, and two keys with the same characters.

    A dict can have two such keys if they are of a subclass of `str` that compares in its own way.
    """
    names = set()
    for key in value:
        name = read_text(key)
        if name is None:
            raise _refuse(path, f"has a key of type {type(key).__name__}; JSON keys are strings")
        if name in names:
            raise _refuse(_path_of(path, name), "is there twice: two keys have the same characters")
        names.add(name)


def _path_of(path: str, key: str) -> str:
    return f"{path}.{key}" if key.isidentifier() else f"{path}[{len(key)}-char key]"


def _with_dicts(value: Any, parameter: str) -> Any:
    """A copy in which each object with a method `to_dict` is replaced by that method's result."""

    def copy(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: copy(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [copy(item) for item in value]
        to_dict = getattr(type(value), "to_dict", None)
        return copy(to_dict(value)) if callable(to_dict) else value

    try:
        return copy(value)
    except RecursionError:
        raise _too_deep(parameter) from None
    except Exception as error:
        if is_from_handler(error):
            raise
        raise _unreadable(parameter, error) from error


def _refuse(parameter: str, problem: str) -> VerityValidationError:
    if len(parameter) > 200:
        parameter = parameter[:200] + "…"
    return VerityValidationError(f"{parameter} {problem}.", parameter=parameter)


def _too_deep(parameter: str) -> VerityValidationError:
    return _refuse(parameter, f"is nested deeper than {MAX_DEPTH} levels or contains itself")


def _unreadable(parameter: str, error: Exception) -> VerityValidationError:
    return _refuse(parameter, f"could not be read as JSON ({type(error).__name__})")
