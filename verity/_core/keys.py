"""Effect keys, namespaces and labels: what may travel in a path or as a name. What is returned is an exact `str`."""

from __future__ import annotations

import re

from verity._core.text import find_flaw, read_text
from verity._limits import MAX_EFFECT_KEY_CHARS, MAX_LABEL_CHARS, MAX_NAMESPACE_CHARS
from verity.errors import VerityConfigError, VerityError, VerityValidationError

_CONTROL_OR_SURROGATE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_SURROGATE_OR_NUL = re.compile(r"[\x00\ud800-\udfff]")


def check_effect_key(effect_key: object) -> str:
    """Return the key, or raise VerityValidationError that says what is wrong with it."""
    return _check_text("effect_key", effect_key, MAX_EFFECT_KEY_CHARS, VerityValidationError)


def check_label(name: str, value: object) -> str:
    """Return a name that must be there, such as `case_id`, or raise VerityValidationError that says what is wrong."""
    return _check_text(name, value, MAX_LABEL_CHARS, VerityValidationError)


def check_optional_label(
    name: str,
    value: object,
    *,
    error: type[VerityConfigError | VerityValidationError] = VerityValidationError,
    max_chars: int = MAX_LABEL_CHARS,
) -> str | None:
    """Check a human-readable name such as `agent_id`; None means absent."""
    return None if value is None else _check_text(name, value, max_chars, error)


def check_namespace(namespace: object) -> str:
    """Return the namespace of effects that are about to happen.

    Raises:
        VerityConfigError: as `check_stored_namespace`; or it has characters that nobody can see, such as a line end
            from a file. With them it is another namespace, where nothing has happened yet.
    """
    text = check_stored_namespace(namespace)
    flaw = find_flaw(text)
    if flaw is not None:
        raise VerityConfigError(f"namespace {flaw}: remove it.", parameter="namespace")
    return text


def check_stored_namespace(namespace: object) -> str:
    """Return the namespace of effects that a ledger may have, if it stays inside its place in the URL's path.

    A dot segment would be resolved away, and many proxies decode `%2F` before they route: either would
    send the call, with its key, to another path.

    Raises:
        VerityConfigError: the namespace is empty, too long, or would leave its path.
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
    """The key that travels: `effect_key`, or `effect_key:key_suffix`."""
    key, suffix = check_effect_key(effect_key), check_key_suffix(key_suffix)
    return key if suffix is None else check_effect_key(f"{key}:{suffix}")


def check_key_suffix(key_suffix: object) -> str | None:
    """Return what is appended to a key; None means nothing."""
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
