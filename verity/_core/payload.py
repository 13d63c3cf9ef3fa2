"""Payloads: any JSON value, at most 64 KB of compact UTF-8 JSON, the same after a round trip.

`json.dumps` alone is too kind for money: it turns the key 1 into "1", lets NaN through, and fails late on
surrogates. What is accepted here is exactly what every later caller gets back.
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
"""Nesting that every JSON parser in the path takes; deeper values are refused before they are sent."""

# One encoder: `json.dumps` with arguments makes a new one for each call.
_dump = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_PLAIN_NAMES = {str}
_ATOMS = (str, int, type(None))  # bool is an int; a float needs a look for NaN


def encode_json(value: Any) -> bytes:
    """Compact UTF-8 JSON of a value that was checked before."""
    return _dump(value).encode()


def round_trip(value: Any, parameter: str) -> Any:
    """Return the value as every later caller will read it: `(1, 2)` comes back as `[1, 2]`, and an object that is no
    JSON, but has a method `to_dict`, as those of Stripe's SDK have, as what that returns.

    Raises:
        VerityValidationError: it is not JSON, too deep, or over 64 KB; `parameter` names the place.
    """
    if value is None or value is True or value is False:
        return value
    with suppress(VerityValidationError):
        return json.loads(encode(value, parameter))
    return json.loads(encode(_with_dicts(value, parameter), parameter))


def encode(value: Any, parameter: str) -> str:
    """The compact JSON text of a payload.

    Raises:
        VerityValidationError: it is not JSON, too deep, or over 64 KB; `parameter` names the place.
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
    if size > MAX_PAYLOAD_BYTES:
        raise _refuse(
            parameter,
            f"has {size:,} bytes as compact UTF-8 JSON; at most {MAX_PAYLOAD_BYTES:,} are allowed. "
            "Store the large part elsewhere and keep a reference here",
        )
    return text


def _check(value: Any, place: str, depth: int) -> None:
    """Walk the value for what json.dumps would change or accept silently."""
    if isinstance(value, _ATOMS):
        return
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _refuse(place, f"is {value!r}, which JSON does not have")
        return
    if depth >= MAX_DEPTH:
        raise _refuse(place.partition(".")[0].partition("[")[0], f"is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, dict):
        if not _PLAIN_NAMES.issuperset(map(type, value)):
            _check_names(value, place)
        for key, item in value.items():
            if not isinstance(item, _ATOMS):
                _check(item, _place_in(place, read_text(key) or ""), depth + 1)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            if not isinstance(item, _ATOMS):
                _check(item, f"{place}[{index}]", depth + 1)
    else:
        raise _refuse(
            place,
            f"is of type {type(value).__qualname__}, which is not JSON. Use dicts, lists, strings, numbers, "
            "booleans or None (for example the fields that you need from it)",
        )


def _check_names(value: dict[Any, Any], place: str) -> None:
    """Strings of the user's own travel as their characters, whatever they compare as: two may have the same."""
    names = set()
    for key in value:
        name = read_text(key)
        if name is None:
            raise _refuse(place, f"has a key of type {type(key).__name__}; JSON keys are strings")
        if name in names:
            raise _refuse(_place_in(place, name), "is there twice: two keys have the same characters")
        names.add(name)


def _place_in(place: str, key: str) -> str:
    return f"{place}.{key}" if key.isidentifier() else f"{place}[{len(key)}-char key]"


def _with_dicts(value: Any, parameter: str) -> Any:
    """A copy with what `to_dict` returns in the place of objects that have it."""

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
