"""Request bodies on their way to the wire: a typed body or a plain camelCase mapping, checked before it is sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from verity._core import payload
from verity._core.keys import check_effect_key, check_optional_label
from verity.errors import VerityValidationError
from verity.values import (
    CommitRequestBody,
    FailRequestBody,
    LeaseRequestBody,
    RenewRequestBody,
    ReportObserveBody,
    RequestBody,
)

MIN_LEASE_DURATION_MS = 5_000
MAX_LEASE_DURATION_MS = 120_000

_LABELS = {
    "effectName": "effect_name",
    "agentId": "agent_id",
    "workflowName": "workflow_name",
    "caseId": "case_id",
    "runId": "run_id",
}
_DURATIONS = {"leaseDurationMs": "lease_duration_ms", "extensionMs": "extension_ms"}
_PAYLOADS = {"inputJson": "input_json", "result": "result", "error": "error"}
_TOKENS = ("effectKey", "fenceToken", "leaseToken")
_REQUIRED: dict[type[RequestBody], tuple[str, ...]] = {
    LeaseRequestBody: ("effectKey",),
    CommitRequestBody: (*_TOKENS, "result"),
    FailRequestBody: (*_TOKENS, "error"),
    RenewRequestBody: _TOKENS,
    ReportObserveBody: (*_TOKENS, "hit"),
}


def to_wire(body: RequestBody | Mapping[str, Any], kind: type[RequestBody]) -> dict[str, Any]:
    """The camelCase object to send.

    Raises:
        VerityValidationError: names the field that is missing, of the wrong type, or outside its limits.
    """
    if isinstance(body, kind):
        wire = body.to_wire()
    elif isinstance(body, Mapping):
        wire = dict(body)
    else:
        raise VerityValidationError(
            f"body must be a {kind.__name__} or a mapping with camelCase names, not {type(body).__name__}.",
            parameter="body",
        )
    for name in _REQUIRED[kind]:
        if name not in wire:
            raise _missing(name, wire)
    check_effect_key(wire["effectKey"])
    for name, parameter in _LABELS.items():
        if name in wire:
            check_optional_label(parameter, wire[name])
    for name, parameter in _DURATIONS.items():
        if name in wire:
            check_duration_ms(parameter, wire[name])
    for name, parameter in _PAYLOADS.items():
        if name in wire:
            payload.encode(wire[name], parameter)
    _check_rest(wire)
    return wire


def check_duration_ms(parameter: str, value: object) -> None:
    """Raise VerityValidationError unless it is a lease duration in milliseconds."""
    if not _is_int(value) or not MIN_LEASE_DURATION_MS <= value <= MAX_LEASE_DURATION_MS:  # type: ignore[operator]  # an int by then
        shown = value if isinstance(value, (int, float)) else type(value).__name__
        raise VerityValidationError(
            f"{parameter} must be a whole number of milliseconds from {MIN_LEASE_DURATION_MS:,} to "
            f"{MAX_LEASE_DURATION_MS:,}, not {shown}.",
            parameter=parameter,
        )


def _check_rest(wire: dict[str, Any]) -> None:
    if "fenceToken" in wire and (not _is_int(wire["fenceToken"]) or wire["fenceToken"] < 1):
        raise _wrong("fence_token", "a whole number of at least 1: the lease's fenceToken")
    token = wire.get("leaseToken", "absent")
    if not isinstance(token, str) or not token or "\0" in token:
        raise _wrong("lease_token", "the lease's leaseToken, a non-empty string without NUL")
    if "hit" in wire and not isinstance(wire["hit"], bool):
        raise _wrong("hit", "True or False")
    if "durationMs" in wire and (not _is_int(wire["durationMs"]) or wire["durationMs"] < 0):
        raise _wrong("duration_ms", "a whole number of milliseconds, 0 or more")
    if wire.get("source", "acted") not in ("acted", "observed"):
        raise _wrong("source", '"acted" or "observed"')


def _missing(name: str, wire: Mapping[str, Any]) -> VerityValidationError:
    snake = "".join(f"_{char.lower()}" if char.isupper() else char for char in name)
    hint = f" A mapping uses camelCase names: write {name!r}, not {snake!r}." if snake in wire and snake != name else ""
    return VerityValidationError(f"{name} is missing from the body.{hint}", parameter=snake)


def _wrong(parameter: str, takes: str) -> VerityValidationError:
    return VerityValidationError(f"{parameter} must be {takes}.", parameter=parameter)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
