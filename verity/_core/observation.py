"""What `observe` said: nothing (None), something, or what could mean either."""

from __future__ import annotations

from typing import Any

from verity._core.interruption import is_from_handler
from verity.errors import ObserveFailedError, VerityValidationError
from verity.values import Found


def check_found(found: object, effect_key: str, request_id: str | None) -> None:
    """Refuse an empty value: `lambda: provider.list(…)` returns one where nothing has happened.

    Raises:
        ObserveFailedError: it is empty. Neither committing it nor acting is safe.
    """
    if found is None or isinstance(found, Found) or not _is_empty(found):
        return
    problem = (
        f"observe of effect {effect_key!r} returned an empty value ({type(found).__name__}), which does not tell "
        "whether the effect happened. Nothing was committed, and act did not run. Return None where it has not "
        "happened, and Found(value) where it has and its result is empty (`from verity import Found`)."
    )
    reason = VerityValidationError(problem, parameter="observe", effect_key=effect_key)
    raise ObserveFailedError(problem, effect_key=effect_key, request_id=request_id, observe_error=reason) from reason


def result_of(value: Any) -> Any:
    """What is committed: the value, out of a `Found` where it is in one."""
    while isinstance(value, Found):
        value = value.value
    return value


def _is_empty(found: object) -> bool:
    try:
        return not found
    except Exception as error:  # the user's type; a table of numbers, for one, refuses to be true or false
        if is_from_handler(error):
            raise
        return False
