"""What the ledger's answers mean: from (operation, status, body) to a value or an error.

The client must handle answers that it does not know. Only this module reads errors from raw answers, whatever their
body is: `{"error": {...}}`, `{"error": "text"}`, HTML from a proxy, or nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Any

from verity._operations import Operation
from verity.errors import LeaseConflictError, VerityApiError, VerityConnectionError, VerityError

Asked = Mapping[str, Any]
"""What a request is about, under the API's names: its `namespace`, `effectKey`, `fenceToken` or `effectId`."""

NOTHING_IN_PARTICULAR: Asked = MappingProxyType({})

TRANSIENT_STATUSES = frozenset({408, 425, 429})
GRANTED = "granted"
CACHED_COMPLETED = "cached_completed"
CACHED_FAILED = "cached_failed"
LISTS = frozenset(
    {
        Operation.LIST_EFFECTS,
        Operation.LIST_EFFECT_EVENTS,
        Operation.LIST_NAMESPACES,
        Operation.LIST_WORKFLOWS,
        Operation.LIST_CASES,
        Operation.LIST_RUNS,
    }
)

_WORDS = {
    Operation.LEASE_EFFECT: {GRANTED, CACHED_COMPLETED, CACHED_FAILED},
    Operation.COMMIT_EFFECT: {"accepted", "already_committed"},
    Operation.FAIL_EFFECT: {"recorded", "already_failed"},
    Operation.RENEW_EFFECT: {"renewed"},
    Operation.RELEASE_EFFECT: {"released", "already_released"},
    Operation.REPORT_OBSERVE: {"reported"},
    Operation.RESET_EFFECT: {"reset", "already_reset"},
    Operation.RESOLVE_EFFECT: {"resolved", "already_committed"},
}
"""The `status` words of each operation's answers. A newer ledger may add words, but none of another operation."""
_CHANGES = frozenset(_WORDS) - {Operation.LEASE_EFFECT, Operation.REPORT_OBSERVE}
_ADMINISTRATION = frozenset({Operation.RESET_EFFECT, Operation.RESOLVE_EFFECT})
_LOOKUPS = frozenset({Operation.GET_EFFECT, Operation.GET_EFFECT_BY_ID})
_ALL_WORDS = frozenset().union(*_WORDS.values())

_NEVER = frozenset({"effect_finished", "effect_not_found", "effect_purged", "invalid_request", "payload_too_large"})

_MAX_MESSAGE_CHARS = 300
_MAX_CAUSES = 8
_API_KEY = re.compile(r"vt_(live|test)_[A-Za-z0-9_\-]+")
_NOT_PRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]+")

_ADVICE = {
    "stale_fence": "Another holder may have acted since; look the effect up before acting on it again.",
    "effect_finished": "The effect is already finished; request a lease to read its outcome.",
    "effect_not_found": "Check the namespace, the effect key and the key's environment (live or test).",
    "effect_purged": "It was decided long ago; look its outcome up in the outside world. Never act on this key again.",
    "not_found": "Check base_url: it ends in /v1.",
    "unauthenticated": "Check the API key.",
    "forbidden": "The API key's role or its namespaces do not allow this.",
    "not_failed": "Only a failed or expired effect can be reset or resolved; look at its status.",
    "payload_too_large": "Send a smaller payload: at most 64 KB of compact JSON each.",
}
_CHANGED = "Nothing was changed. Look at the effect again, and decide anew."
_LIVE = "Wait until it is released or has expired; only a forced reset takes it away from its holder."


def is_transient(error: VerityError) -> bool:
    """Whether the same request may be resent: there was no answer, or it was 408, 425, 429 or any 5xx."""
    if isinstance(error, VerityApiError):
        return error.status_code in TRANSIENT_STATUSES or error.status_code >= 500
    return isinstance(error, VerityConnectionError)


def why_no_answer(error: BaseException) -> str:
    """The exception's class, and the message of the system or TLS: a wrong host, a refused connection, a certificate.

    Nothing else of the exception is included: a transport may quote a header, with the API key.
    """
    cause: BaseException | None = error
    for _ in range(_MAX_CAUSES):
        if isinstance(cause, OSError) and cause.strerror:
            return f"{type(error).__name__}: {_clean(cause.strerror)}"
        if cause is None:
            break
        cause = cause.__context__ if cause.__cause__ is None else cause.__cause__
    return type(error).__name__


def is_away(error: VerityError) -> bool:
    """Whether the error says that the ledger is away: no answer, or a 5xx. A 4xx is an answer."""
    is_refusal = isinstance(error, VerityApiError) and error.status_code < 500
    return isinstance(error, (VerityApiError, VerityConnectionError)) and not is_refusal


def why_never(error: VerityError) -> str | None:
    """The code of an answer to a commit after which its result can never be committed; None: it may be yet.

    Only the ledger's own codes count: a proxy without a route answers 404 for a while. `stale_fence` does not count:
    the holder that was granted the effect since may give it back, or not finish.
    """
    return error.code if isinstance(error, VerityApiError) and error.code in _NEVER else None


def is_in_doubt(prior_state: str | None) -> bool:
    """Whether an earlier holder may have acted, by what a grant says. A word that the client does not know says so."""
    return prior_state not in ("none", "reset")


def is_definite_loss(error: VerityError) -> bool:
    """Whether the error of a renewal proves that the client has lost the lease.

    A 404 or 410 without a code is not the ledger's: a proxy has no route to it for a while.
    """
    if not isinstance(error, VerityApiError):
        return False
    return error.status_code == 409 or (error.status_code in (404, 410) and error.code is not None)


def is_finished(error: VerityError) -> bool:
    """Whether the ledger says that the holder of this same lease has finished the effect."""
    return isinstance(error, VerityApiError) and error.code == "effect_finished"


def read_reply(
    operation: Operation, status: int, headers: Mapping[str, str], content: bytes, asked: Asked
) -> dict[str, Any]:
    """Return the JSON object of a successful answer.

    Raises:
        VerityConnectionError: the answer is for another request, such as a proxy's second copy of an earlier answer.
            The outcome of this request is unknown.
        LeaseConflictError: 409 to a lease request, or to a reset or resolve while a lease is live.
        VerityApiError: any other error, or a success that can't be understood: a page that a proxy made up confirms
            nothing.
    """
    effect_key: str | None = asked.get("effectKey")
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        body = None
    if _is_of_another(operation, status, body, asked):
        about = f" of effect {effect_key!r}" if effect_key else ""
        raise VerityConnectionError(
            f"{operation}{about} got the answer to another request: whether the ledger carried it out is unknown.",
            effect_key=effect_key,
        )
    if not 200 <= status < 300:
        raise _read_problem(operation, status, headers, body, effect_key)
    if not isinstance(body, dict) or not _is_understood(operation, body):
        raise VerityApiError(
            f"The ledger's answer to {operation} (HTTP {status}) cannot be understood; "
            "check that base_url leads to a Verity ledger.",
            status_code=status,
            code="invalid_response",
            effect_key=effect_key,
            request_id=read_request_id(headers, body),
        )
    return body


def _is_of_another(operation: Operation, status: int, body: Any, asked: Asked) -> bool:
    """Whether an answer or a problem names another operation or effect. One that names none is accepted."""
    if 200 <= status < 300:
        said, word = body, body.get("status") if isinstance(body, dict) else None
        if operation in _WORDS and isinstance(word, str) and word in _ALL_WORDS and word not in _WORDS[operation]:
            return True
    else:
        said = _error_parts(body)[2]
    if isinstance(said, dict):
        for name, value in asked.items():
            if name in said and said[name] != value:
                return True
    return False


def _is_understood(operation: Operation, body: dict[str, Any]) -> bool:
    status = body.get("status")
    if operation is Operation.LEASE_EFFECT:
        # Only known words are accepted: the client must not guess whether to act.
        if status == GRANTED:
            fence = body.get("fenceToken")
            return isinstance(fence, int) and not isinstance(fence, bool) and isinstance(body.get("leaseToken"), str)
        return (status == CACHED_COMPLETED and "cachedResult" in body) or status == CACHED_FAILED
    if operation in _CHANGES:
        # The 2xx means success, even with a status word that this client does not know.
        return isinstance(status, str)
    if operation in LISTS:
        items, cursor = body.get("items"), body.get("nextCursor")
        return (
            isinstance(items, list)
            and all(isinstance(item, dict) for item in items)
            and (cursor is None or isinstance(cursor, str))
        )
    if operation in _LOOKUPS:
        return isinstance(status, str) and isinstance(body.get("effectKey"), str)
    return True


def _read_problem(
    operation: Operation, status: int, headers: Mapping[str, str], body: Any, effect_key: str | None
) -> VerityApiError:
    code, message, details = _error_parts(body)
    context: dict[str, Any] = {
        "status_code": status,
        "code": code,
        "details": details,
        "retry_after_s": read_retry_after(headers.get("retry-after")),
        "effect_key": effect_key,
        "request_id": read_request_id(headers, body),
    }
    said = f"{code or 'error'}: {message}" if message else code or "no details"
    about = f" of effect {effect_key!r}" if effect_key else ""
    if status == 409 and (
        operation is Operation.LEASE_EFFECT or (operation in _ADMINISTRATION and code == "lease_conflict")
    ):
        expires = details.get("leaseExpiresAt") if isinstance(details, dict) else None
        advice = "Try again later." if operation is Operation.LEASE_EFFECT else _LIVE
        error: VerityApiError = LeaseConflictError(
            f"Effect {effect_key!r} is not free now (HTTP 409, {said}). {advice}",
            lease_expires_at=expires if isinstance(expires, str) else None,
            waited="wait" in headers.get("preference-applied", "").lower(),
            **context,
        )
    else:
        is_outdated = operation in _ADMINISTRATION and code == "stale_fence"
        advice = _CHANGED if is_outdated else _ADVICE.get(code or "", "")
        error = VerityApiError(
            f"{operation}{about} was answered with HTTP {status} ({said}). {advice}".rstrip(), **context
        )
    error.message = message or str(error)
    return error


def _error_parts(body: Any) -> tuple[str | None, str, Any]:
    """(code, message, details) of an error body of any shape."""
    if not isinstance(body, dict):
        return None, "", None
    error = body.get("error")
    if isinstance(error, dict):
        return _clean(error.get("code")) or None, _clean(error.get("message")), error.get("details")
    message = error if isinstance(error, str) else body.get("message") or body.get("detail")
    return _clean(body.get("code")) or None, _clean(message), body.get("details")


def _clean(message: Any) -> str:
    """A message from outside, made safe for one line of a log: short, printable, without an API key."""
    if not isinstance(message, str):
        return ""
    text = _API_KEY.sub(r"vt_\1_…", _NOT_PRINTABLE.sub(" ", message)).strip()
    return text if len(text) <= _MAX_MESSAGE_CHARS else text[: _MAX_MESSAGE_CHARS - 1] + "…"


def read_request_id(headers: Mapping[str, str], body: Any = None) -> str | None:
    """The ledger's id of the request: from the header, otherwise from the body of a problem."""
    found = headers.get("x-request-id") or (body.get("requestId") if isinstance(body, dict) else None)
    return found if isinstance(found, str) else None


def read_retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """The seconds of a `Retry-After` header (a delay or an HTTP date); None if it is absent or invalid."""
    if value is None:
        return None
    if re.fullmatch(r"\d{1,9}(\.\d+)?", value.strip(), re.ASCII):
        return float(value)
    at = read_http_date(value)
    return None if at is None else max(0.0, (at - (now or datetime.now(timezone.utc))).total_seconds())


def read_http_date(text: str) -> datetime | None:
    """The time of a header such as `Date`; UTC where it names no zone. None if it is invalid."""
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):  # the last one for a year that is far too large
        return None
    return at.replace(tzinfo=timezone.utc) if at.tzinfo is None else at
