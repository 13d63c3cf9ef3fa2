"""Checks of request bodies before they are sent. A body is a typed value or a camelCase mapping."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from verity._core import payload
from verity._core.keys import check_effect_key, check_optional_label
from verity._core.text import read_choice, read_int, read_text
from verity._limits import MAX_LEASE_DURATION_MS, MAX_SETTLE_MS, MIN_LEASE_DURATION_MS
from verity.errors import VerityValidationError
from verity.values import (
    CommitRequestBody,
    FailRequestBody,
    LeaseRequestBody,
    ReleaseRequestBody,
    RenewRequestBody,
    ReportObserveBody,
    RequestBody,
)

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
    ReleaseRequestBody: (*_TOKENS, "acted"),
    ReportObserveBody: (*_TOKENS, "hit"),
}


def to_wire(body: RequestBody | Mapping[str, Any], kind: type[RequestBody]) -> dict[str, Any]:
    """Return the camelCase object to send. Its names and numbers are exact `str` and `int` objects.

    Raises:
        VerityValidationError: a field is missing, of the wrong type, or outside its limits; the error names it.
    """
    if isinstance(body, kind):
        wire = body.to_wire()
    elif isinstance(body, Mapping):
        wire = {_read_name(name): value for name, value in body.items()}
    else:
        raise VerityValidationError(
            f"body must be a {kind.__name__} or a mapping with camelCase names, not {type(body).__name__}.",
            parameter="body",
        )
    for name in _REQUIRED[kind]:
        if name not in wire:
            raise _missing(name, wire)
    wire["effectKey"] = check_effect_key(wire["effectKey"])
    for name, parameter in _LABELS.items():
        if name in wire:
            wire[name] = check_optional_label(parameter, wire[name])
    for name, parameter in _DURATIONS.items():
        if name in wire:
            wire[name] = check_duration_ms(parameter, wire[name])
    for name, parameter in _PAYLOADS.items():
        if name in wire:
            payload.encode(wire[name], parameter)
    _check_rest(wire)
    _check_release(wire)
    return wire


def check_duration_ms(parameter: str, value: object) -> int:
    """Return a lease duration in milliseconds, or raise VerityValidationError."""
    duration_ms = read_int(value)
    if duration_ms is None or not MIN_LEASE_DURATION_MS <= duration_ms <= MAX_LEASE_DURATION_MS:
        shown = value if isinstance(value, (bool, float)) else type(value).__name__
        raise VerityValidationError(
            f"{parameter} must be a whole number of milliseconds from {MIN_LEASE_DURATION_MS:,} to "
            f"{MAX_LEASE_DURATION_MS:,}, not {shown if duration_ms is None else duration_ms}.",
            parameter=parameter,
        )
    return duration_ms


def _check_rest(wire: dict[str, Any]) -> None:
    if "fenceToken" in wire:
        wire["fenceToken"] = fence_token = read_int(wire["fenceToken"])
        if fence_token is None or fence_token < 1:
            raise _wrong("fence_token", "a whole number of at least 1: the lease's fenceToken")
    if "leaseToken" in wire:
        wire["leaseToken"] = lease_token = read_text(wire["leaseToken"])
        if not lease_token or "\0" in lease_token:
            raise _wrong("lease_token", "the lease's leaseToken, a non-empty string without NUL")
    if "hit" in wire and not isinstance(wire["hit"], bool):
        raise _wrong("hit", "True or False")
    if "durationMs" in wire:
        wire["durationMs"] = duration_ms = read_int(wire["durationMs"])
        if duration_ms is None or duration_ms < 0:
            raise _wrong("duration_ms", "a whole number of milliseconds, 0 or more")
    if "source" in wire:
        wire["source"] = read_choice(wire["source"], ("acted", "observed"))
        if wire["source"] is None:
            raise _wrong("source", '"acted" or "observed"')


def _check_release(wire: dict[str, Any]) -> None:
    if "acted" in wire:
        wire["acted"] = read_choice(wire["acted"], ("no", "unknown"))
        if wire["acted"] is None:
            raise _wrong("acted", '"no" or "unknown"')
    if "settleMs" in wire:
        wire["settleMs"] = settle_ms = read_int(wire["settleMs"])
        if settle_ms is None or not 0 <= settle_ms <= MAX_SETTLE_MS:
            raise _wrong("settle_ms", f"a whole number of milliseconds from 0 to {MAX_SETTLE_MS:,}")


def _read_name(name: object) -> str:
    text = read_text(name)
    if text is None:
        raise _wrong("body", f"a mapping whose names are strings, not {type(name).__name__}")
    return text


def _missing(name: str, wire: Mapping[str, Any]) -> VerityValidationError:
    snake = "".join(f"_{char.lower()}" if char.isupper() else char for char in name)
    hint = f" A mapping uses camelCase names: write {name!r}, not {snake!r}." if snake in wire and snake != name else ""
    return VerityValidationError(f"{name} is missing from the body.{hint}", parameter=snake)


def _wrong(parameter: str, takes: str) -> VerityValidationError:
    return VerityValidationError(f"{parameter} must be {takes}.", parameter=parameter)
