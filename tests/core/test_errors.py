"""The errors are part of the API: one tree, documented attributes, portable."""

from __future__ import annotations

import copy
import pickle
import threading
from typing import Any

import pytest

import verity
from verity import (
    ActNotStartedError,
    CommitUncertainError,
    EffectPreviouslyFailedError,
    LeaseConflictError,
    NotExecuted,
    ObserveFailedError,
    OutcomeUnknown,
    OutcomeUnknownError,
    VerityApiError,
    VerityConfigError,
    VerityConnectionError,
    VerityError,
    VerityValidationError,
)

COMMON: dict[str, Any] = {"effect_key": "refund:1", "request_id": "req_1"}
API: dict[str, Any] = {
    "status_code": 409,
    "code": "lease_conflict",
    "details": {"leaseExpiresAt": "2026-01-31T12:00:00Z"},
    "retry_after_s": 1.0,
}
ERRORS = [
    VerityError("what happened", **COMMON),
    VerityConfigError("what happened", parameter="base_url", **COMMON),
    VerityValidationError("what happened", parameter="result.a", **COMMON),
    VerityConnectionError("what happened", **COMMON),
    VerityApiError("what happened", **API, **COMMON),
    LeaseConflictError("what happened", lease_expires_at="2026-01-31T12:00:00Z", **API, **COMMON),
    ActNotStartedError("what happened", **COMMON),
    EffectPreviouslyFailedError("what happened", cached_error={"message": "declined"}, **COMMON),
    ObserveFailedError("what happened", observe_error=ValueError("x"), **COMMON),
    OutcomeUnknownError("what happened", fence_token=3, **COMMON),
    NotExecuted("what happened", **COMMON),
    OutcomeUnknown("what happened", **COMMON),
    CommitUncertainError(
        "what happened", result={"id": 1}, commit_error=VerityConnectionError("lost"), spooled=True, **COMMON
    ),
]


def _comparable(error: BaseException) -> dict[str, Any]:
    return {
        name: (type(value), value.args) if isinstance(value, BaseException) else value
        for name, value in vars(error).items()
    }


def test_every_public_error_is_in_the_list() -> None:
    public = {getattr(verity, name) for name in verity.__all__}
    public = {each for each in public if isinstance(each, type) and issubclass(each, Exception)}
    assert {type(error) for error in ERRORS} == public
    assert all(isinstance(error, VerityError) for error in ERRORS)
    assert issubclass(LeaseConflictError, VerityApiError)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("how", ["pickle", "copy", "deepcopy"])
def test_an_error_travels_with_all_attributes(error: VerityError, how: str) -> None:
    ways = {"pickle": lambda e: pickle.loads(pickle.dumps(e)), "copy": copy.copy, "deepcopy": copy.deepcopy}
    twin = ways[how](error)
    assert type(twin) is type(error)
    assert twin is not error
    assert str(twin) == "what happened"
    assert (twin.effect_key, twin.request_id) == ("refund:1", "req_1")
    assert _comparable(twin) == _comparable(error)


def test_a_result_that_cannot_travel_does_not_keep_the_error_from_travelling() -> None:
    lock = threading.Lock()
    error = CommitUncertainError("m", result=lock, commit_error=VerityError("e"), effect_key="k")
    away = pickle.loads(pickle.dumps(error))
    assert away.result == "<lock, which cannot be pickled>"
    assert (away.effect_key, str(away.commit_error)) == ("k", "e")
    assert copy.deepcopy(error).result is lock
    assert copy.copy(error).result is lock
    observed = ObserveFailedError("m", observe_error=ValueError(lock))
    assert copy.copy(observed).observe_error is observed.observe_error


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_no_payload_is_shown(error: VerityError) -> None:
    assert repr(error) == f"{type(error).__name__}('what happened')"


def test_an_error_needs_no_arguments() -> None:
    for error in ERRORS:
        assert type(error)().effect_key is None


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    assert verity.errors.__doc__
    for error in ERRORS:
        assert type(error).__name__ in verity.errors.__doc__
