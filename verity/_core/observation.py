"""What the value of `observe` means: None, the effect has not happened; a value, it has; an empty value, unknown."""

from __future__ import annotations

from typing import Any

from verity._core.interruption import is_from_handler
from verity.errors import ObserveFailedError, VerityValidationError
from verity.values import Found


def check_found(found: object, effect_key: str, request_id: str | None) -> None:
    """Refuse an empty value, such as the empty list of `lambda: provider.list(…)` when nothing has happened.

    Raises:
        ObserveFailedError: the value is empty. Neither to commit it nor to act is safe.
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
    """The result to commit: the value, taken out of `Found` if it is wrapped in one."""
    while isinstance(value, Found):
        value = value.value
    return value


def _is_empty(found: object) -> bool:
    try:
        return not found
    except Exception as error:  # code of the user's type runs here: arrays of numbers refuse to be true or false
        if is_from_handler(error):
            raise
        return False
