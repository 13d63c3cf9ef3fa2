"""Checks of effect keys, namespaces and labels before they are sent. All checks return exact `str` objects."""

from __future__ import annotations

import re

from verity._core.text import find_flaw, read_text
from verity._limits import MAX_EFFECT_KEY_CHARS, MAX_LABEL_CHARS, MAX_NAMESPACE_CHARS
from verity.errors import VerityConfigError, VerityError, VerityValidationError

_CONTROL_OR_SURROGATE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_SURROGATE_OR_NUL = re.compile(r"[\x00\ud800-\udfff]")


def check_effect_key(effect_key: object) -> str:
    """Return the effect key, or raise VerityValidationError that says what is wrong with it."""
    return _check_text("effect_key", effect_key, MAX_EFFECT_KEY_CHARS, VerityValidationError)


def check_label(name: str, value: object) -> str:
    """Return a required label, such as `case_id`, or raise VerityValidationError that says what is wrong with it."""
    return _check_text(name, value, MAX_LABEL_CHARS, VerityValidationError)


def check_optional_label(
    name: str,
    value: object,
    *,
    error: type[VerityConfigError | VerityValidationError] = VerityValidationError,
    max_chars: int = MAX_LABEL_CHARS,
) -> str | None:
    """Return an optional label, such as `agent_id`, or raise `error`. None means absent."""
    return None if value is None else _check_text(name, value, max_chars, error)


def check_namespace(namespace: object) -> str:
    """Return the namespace of effects that are about to be protected.

    Raises:
        VerityConfigError: as `check_stored_namespace`. Also: the namespace has invisible characters, such as a line
            end from a file. That is a different namespace, in which no effect has happened yet.
    """
    text = check_stored_namespace(namespace)
    flaw = find_flaw(text)
    if flaw is not None:
        raise VerityConfigError(f"namespace {flaw}: remove it.", parameter="namespace")
    return text


def check_stored_namespace(namespace: object) -> str:
    """Return the namespace of effects that may be in the ledger, if it is exactly one segment of the URL's path.

    HTTP clients remove dot segments, and many proxies decode `%2F` before they route. Either would send the request,
    with its API key, to another path.

    Raises:
        VerityConfigError: the namespace is empty, too long, or not one path segment.
    """
    text = _check_text("namespace", namespace, MAX_NAMESPACE_CHARS, VerityConfigError)
    if text in (".", "..") or "/" in text or "\\" in text or _CONTROL_OR_SURROGATE.search(text):
        raise VerityConfigError(
            'namespace must not be "." or "..", nor contain "/", "\\" or control characters: '
            "it is one segment of the URL's path.",
            parameter="namespace",
        )
    return text


def join_key(effect_key: object, key_suffix: object) -> str:
    """The effect key as it is sent: `effect_key`, or `effect_key:key_suffix`."""
    key, suffix = check_effect_key(effect_key), check_key_suffix(key_suffix)
    return key if suffix is None else check_effect_key(f"{key}:{suffix}")


def check_key_suffix(key_suffix: object) -> str | None:
    """Return the suffix of an effect key, or raise VerityValidationError. None means no suffix."""
    return check_optional_label("key_suffix", key_suffix, max_chars=MAX_EFFECT_KEY_CHARS)


def _check_text(name: str, value: object, max_chars: int, error: type[VerityError]) -> str:
    text = read_text(value)
    if text is None:
        problem = f"{name} must be a string, not {type(value).__name__}."
    elif not text:
        problem = f"{name} must not be empty."
    elif len(text) > max_chars:
        problem = f"{name} has {len(text):,} characters; at most {max_chars:,} are allowed."
    elif _SURROGATE_OR_NUL.search(text):
        problem = f"{name} contains a NUL character or a lone surrogate, which no ledger takes."
    else:
        return text
    raise error(problem, parameter=name)  # type: ignore[call-arg]  # both classes take `parameter`
