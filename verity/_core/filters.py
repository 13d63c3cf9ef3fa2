"""Checks of the arguments of searches, lookups, resets and resolves, before they are sent."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, get_args

from verity._core.keys import check_effect_key, check_optional_label
from verity._core.text import read_choice, read_int, read_text
from verity._limits import MAX_EFFECT_KEY_CHARS, MAX_PAGE_SIZE
from verity._rfc3339 import parse_time
from verity.errors import VerityValidationError
from verity.records import EffectStatus, ResetMode

MAX_REASON_CHARS = 1024
STATUSES: tuple[str, ...] = get_args(EffectStatus)
RESET_MODES: tuple[str, ...] = get_args(ResetMode)


def read_filters(
    *,
    status: object = None,
    search: object = None,
    workflow_name: object = None,
    case_id: object = None,
    run_id: object = None,
    agent_id: object = None,
    since: object = None,
    until: object = None,
) -> dict[str, Any]:
    """Return the filters that are set, under the names of the generated client.

    Raises:
        VerityValidationError: a filter has a wrong value; the error names the filter and what it takes.
    """
    known_status = read_choice(status, STATUSES)
    if status is not None and known_status is None:
        raise _wrong("status", f"one of {', '.join(STATUSES)}", status)
    filters: dict[str, Any] = {
        "status": known_status,
        "search": check_optional_label("search", search, max_chars=MAX_EFFECT_KEY_CHARS),
        "workflow_name": check_optional_label("workflow_name", workflow_name),
        "case_id": check_optional_label("case_id", case_id),
        "run_id": check_optional_label("run_id", run_id),
        "agent_id": check_optional_label("agent_id", agent_id),
        "since": read_time("since", since),
        "until": read_time("until", until),
    }
    return without_none(filters)


def read_time(name: str, value: object) -> str | None:
    """Convert a datetime or an RFC 3339 string to RFC 3339 in UTC. None means absent.

    Raises:
        VerityValidationError: it is no time, or has no offset from UTC: the ledger may be in another time zone.
    """
    if value is None:
        return None
    text = read_text(value)
    at = value if isinstance(value, datetime) else None if text is None else parse_time(text)
    if at is None:
        raise _wrong(name, 'a datetime, or a time in RFC 3339 such as "2026-01-31T12:00:00Z"', value)
    if at.utcoffset() is None:
        raise VerityValidationError(
            f"{name} is a datetime without a time zone; make it with one, such as datetime.now(timezone.utc).",
            parameter=name,
        )
    try:
        return at.astimezone(timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")
    except OverflowError:
        raise _wrong(name, "a moment within the years 1 to 9999 in UTC", value) from None


def check_page_size(page_size: object) -> int:
    """Return the number of items that a request asks for, or raise VerityValidationError."""
    size = read_int(page_size)
    if size is None or not 1 <= size <= MAX_PAGE_SIZE:
        raise _wrong("page_size", f"a whole number from 1 to {MAX_PAGE_SIZE}", page_size)
    return size


def check_cursor(cursor: object) -> str | None:
    """Return the cursor, or raise VerityValidationError if it can't be sent. Only the ledger reads its contents."""
    text = read_text(cursor)
    if cursor is not None and (text is None or not re.fullmatch(r"[!-~]{1,512}", text)):
        raise _wrong("cursor", "the next_cursor of a page", cursor)
    return text


def check_effect_id(effect_id: object) -> str:
    """Return the ledger's id of an effect, or raise VerityValidationError. The id is one segment of a path."""
    text = read_text(effect_id)
    if text is None or not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", text):
        raise _wrong("effect_id", "the effect_id of an effect, such as eff_0000000000000000", effect_id)
    return text


def read_reset(
    effect_key: object, mode: object, force: object, reason: object, expected_fence: object = None
) -> dict[str, Any]:
    """Return the body of a reset.

    Raises:
        VerityValidationError: an argument has a wrong value; the error names the argument and what it takes.
    """
    known_mode = read_choice(mode, RESET_MODES)
    if known_mode is None:
        raise _wrong("mode", '"verify" or "retry"', mode)
    if not isinstance(force, bool):
        raise _wrong("force", "True or False", force)
    body = {"effectKey": check_effect_key(effect_key), "mode": known_mode, "force": force or None}
    return without_none({**body, "reason": check_reason(reason), "expectedFence": check_fence(expected_fence)})


def check_fence(expected_fence: object) -> int | None:
    """Return the fence that an admin saw, or raise VerityValidationError. None means absent."""
    fence = read_int(expected_fence)
    if expected_fence is not None and (fence is None or fence < 1):
        raise _wrong("expected_fence", "the fence_token of the effect that you looked at", expected_fence)
    return fence


def check_reason(reason: object) -> str | None:
    """Return the reason of an admin's call, or raise VerityValidationError. None means absent."""
    return check_optional_label("reason", reason, max_chars=MAX_REASON_CHARS)


def without_none(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields whose values are not None."""
    return {name: value for name, value in fields.items() if value is not None}


def _wrong(parameter: str, takes: str, value: object) -> VerityValidationError:
    text = read_text(value)
    shown = type(value).__name__ if text is None else repr(text[:40])
    return VerityValidationError(f"{parameter} must be {takes}, not {shown}.", parameter=parameter)
