"""Effect keys, namespaces and labels: what may travel in a path or as a name."""

from __future__ import annotations

import re

from verity.errors import VerityConfigError, VerityError, VerityValidationError

MAX_EFFECT_KEY_CHARS = 1024
MAX_NAMESPACE_CHARS = 128
MAX_LABEL_CHARS = 256

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
    """Return the namespace if it stays inside its place in the URL's path.

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
    key = check_effect_key(effect_key)
    if key_suffix is None:
        return key
    return check_effect_key(
        f"{key}:{_check_text('key_suffix', key_suffix, MAX_EFFECT_KEY_CHARS, VerityValidationError)}"
    )


def _check_text(name: str, value: object, max_chars: int, error: type[VerityError]) -> str:
    if not isinstance(value, str):
        problem = f"{name} must be a string, not {type(value).__name__}."
    elif not value:
        problem = f"{name} must not be empty."
    elif len(value) > max_chars:
        problem = f"{name} has {len(value):,} characters; at most {max_chars:,} are allowed."
    elif _SURROGATE_OR_NUL.search(value):
        problem = f"{name} contains a NUL character or a lone surrogate, which no ledger takes."
    else:
        return value
    raise error(problem, parameter=name)  # type: ignore[call-arg]  # both classes take `parameter`
