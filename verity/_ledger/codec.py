"""Decodes a request's body into a command, and encodes a decision as an answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from verity._attempt_key import make_attempt_key
from verity._ledger import commands
from verity._ledger.calls import Answer, Environment, Request
from verity._ledger.commands import Command, Decision
from verity._ledger.effect import Effect, Labels, Payload, format_effect_id
from verity._ledger.problems import Problem, answer_problem
from verity._ledger.raw_json import Members, NotJson, Raw, dump_fields, read_members, to_payload
from verity._ledger.shown import LABELS, format_time
from verity._limits import DEFAULT_LEASE_DURATION_MS, DEFAULT_SETTLE_MS
from verity._operations import Operation


def read_namespace(request: Request) -> str | None:
    """The namespace that a call names; None: it names none.

    Only this function enforces an API key's binding to namespaces. Stores get a namespace from here only. A call
    without a namespace is kept inside the scope by the conditions of its query; see `_store/view.py`.

    Raises:
        Problem: 403, the API key is not bound to the namespace.
    """
    namespace = request.namespace if request.namespace is not None else request.query.get("namespace")
    allowed = request.scope.namespaces
    if namespace is not None and allowed is not None and namespace not in allowed:
        raise Problem(403, "forbidden", "This API key is not bound to this namespace.")
    return namespace


def need_namespace(request: Request) -> str:
    """The namespace of a call that must name one.

    Raises:
        Problem: 400, the call names none; 403 as in `read_namespace`.
    """
    namespace = read_namespace(request)
    if not namespace:
        raise Problem(400, "invalid_request", "This call needs a namespace.")
    return namespace


class EffectCall(NamedTuple):
    """A decoded effect call."""

    request: Request
    environment: Environment
    namespace: str
    key: str
    command: Command


def read_call(request: Request) -> EffectCall:
    """Decode an effect call, inside its scope.

    Raises:
        Problem: 400, 403 or 413.
    """
    namespace = need_namespace(request)
    key, command = read_command(request)
    return EffectCall(request, request.scope.environment, namespace, key, command)


def read_command(request: Request) -> tuple[str, Command]:
    """The effect key and the command of an effect call.

    The server validates bodies against openapi.yaml before this. The bodies of an embedded ledger come from our own
    client. So this function's messages about mistakes are short.

    Raises:
        Problem: 400 or 413.
    """
    try:
        members = read_members(request.body) if request.members is None else request.members
        key = _get(members, "effectKey", str)
        if not key or key is _ABSENT:
            raise KeyError("effectKey")
        return key, _READERS[request.operation](members, request)
    except NotJson as error:
        raise Problem(400, "invalid_request", str(error)) from None
    except KeyError as error:
        message = f"{error.args[0]} is missing, of the wrong type, or has a NUL character"
        raise Problem(
            400, "invalid_request", message, details=[{"path": f"/{error.args[0]}", "message": message}]
        ) from None


_ABSENT: Any = None


def _get(members: Members, name: str, kind: type) -> Any:
    value = members.values.get(name)
    if value is None:
        return _ABSENT
    if kind is int and isinstance(value, float) and value.is_integer():  # JSON has one type of numbers: 1.0 is 1
        return int(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise KeyError(name)
    if isinstance(value, str) and "\0" in value:
        raise KeyError(name)
    return value


def _need(members: Members, name: str, kind: type) -> Any:
    value = _get(members, name, kind)
    if value is _ABSENT:
        raise KeyError(name)
    return value


def _payload(members: Members, name: str) -> Payload | None:
    if name not in members.values:
        return None
    payload = to_payload(members.text_of(name), members.values[name])
    if payload is None:
        raise Problem(413, "payload_too_large", f"{name} is over 65,536 bytes as compact UTF-8 JSON")
    return payload


def _need_payload(members: Members, name: str) -> Payload:
    payload = _payload(members, name)
    if payload is None:
        raise KeyError(name)
    return payload


def _tokens(members: Members) -> tuple[int, str]:
    return _need(members, "fenceToken", int), _need(members, "leaseToken", str)


_LABELS_IN_BODY = LABELS[:-1]  # the trace parent comes in a header


def _lease(members: Members, request: Request) -> Command:
    return commands.Lease(
        lease_duration_ms=_get(members, "leaseDurationMs", int) or DEFAULT_LEASE_DURATION_MS,
        idempotency_key=request.idempotency_key,
        labels=Labels._make([*[_get(members, name, str) for name in _LABELS_IN_BODY], request.trace_parent]),
        input=_payload(members, "inputJson"),
    )


def _commit(members: Members, _request: Request) -> Command:
    return commands.Commit(
        *_tokens(members),
        _need_payload(members, "result"),
        _get(members, "source", str) or "acted",
        _get(members, "runId", str),
    )


def _fail(members: Members, _request: Request) -> Command:
    return commands.Fail(
        *_tokens(members),
        _need_payload(members, "error"),
        _get(members, "source", str) or "acted",
        _get(members, "runId", str),
    )


def _renew(members: Members, _request: Request) -> Command:
    return commands.Renew(*_tokens(members), _get(members, "extensionMs", int))


def _release(members: Members, _request: Request) -> Command:
    acted = _get(members, "acted", str)
    if acted not in ("no", "unknown"):
        raise KeyError("acted")
    settle_ms = _get(members, "settleMs", int)
    return commands.Release(*_tokens(members), acted, DEFAULT_SETTLE_MS if settle_ms is None else settle_ms)


def _report(members: Members, _request: Request) -> Command:
    return commands.ReportObserve(*_tokens(members), _need(members, "hit", bool), _get(members, "durationMs", int))


def _reset(members: Members, request: Request) -> Command:
    mode = _get(members, "mode", str) or "verify"
    if mode not in ("verify", "retry"):
        raise KeyError("mode")
    return commands.Reset(
        request.scope.actor,
        _get(members, "reason", str),
        mode,
        bool(_get(members, "force", bool)),
        _get(members, "expectedFence", int),
    )


def _resolve(members: Members, request: Request) -> Command:
    return commands.Resolve(
        _need_payload(members, "result"),
        request.scope.actor,
        _get(members, "reason", str),
        _get(members, "expectedFence", int),
    )


_READERS: dict[Operation, Callable[[Members, Request], Command]] = {
    Operation.LEASE_EFFECT: _lease,
    Operation.COMMIT_EFFECT: _commit,
    Operation.FAIL_EFFECT: _fail,
    Operation.RENEW_EFFECT: _renew,
    Operation.RELEASE_EFFECT: _release,
    Operation.REPORT_OBSERVE: _report,
    Operation.RESET_EFFECT: _reset,
    Operation.RESOLVE_EFFECT: _resolve,
}
EFFECT_OPERATIONS = frozenset(_READERS)

GRACE = "grace"
"""The detail of the outcome of a call that is refused because of an outage."""

_MESSAGES = {
    "accepted": "The result is recorded.",
    "already_committed": "This result was recorded before.",
    "recorded": "The failure is recorded.",
    "already_failed": "This failure was recorded before.",
}


def answer_decision(call: EffectCall, decision: Decision, now: int) -> Answer:
    """The answer to an effect call that the table has decided or refused.

    Every answer names its effect, because a client rejects an answer about another effect.
    """
    effect, reply = decision.effect, decision.reply
    if reply.refused or effect is None:
        problem = _refusal(reply.word, effect, call, now)
        return _answer_in_grace(problem, call) if reply.in_grace else answer_problem(problem, call.request.request_id)
    operation = call.request.operation
    if operation is Operation.LEASE_EFFECT:
        if reply.word == "granted":
            return answer_grant(
                call,
                effect.id,
                effect.fence,
                effect.lease_token or "",
                effect.lease_expires_at,
                effect.prior_state,
                attempt=effect.attempt,
                retries=effect.retries,
            )
        return _answer_with_outcome(effect, reply.word)
    if operation in (Operation.COMMIT_EFFECT, Operation.FAIL_EFFECT):
        return answer_recorded(call, reply.word, effect.id, effect.fence, effect.source or "")
    fields: dict[str, Any] = {
        "status": reply.word,
        "effectId": effect.effect_id,
        "namespace": call.namespace,
        "effectKey": call.key,
        "fenceToken": effect.fence,
    }
    if operation is Operation.RENEW_EFFECT:
        fields["leaseExpiresAt"] = format_time(effect.lease_expires_at)
    elif operation is Operation.RELEASE_EFFECT and effect.settles_after(now):
        fields["settlesAt"] = format_time(effect.settles_at or now)
    command = call.command
    detail = command.acted if isinstance(command, commands.Release) else effect.source or ""
    return Answer(200, dump_fields(fields), outcome=(reply.word, detail))


def answer_grant(
    call: EffectCall,
    effect_id: int,
    fence: int,
    lease_token: str,
    lease_expires_at: int,
    prior_state: str,
    *,
    attempt: int = 1,
    retries: int = 0,
) -> Answer:
    """The answer to a granted lease request."""
    fields = {
        "status": "granted",
        "effectId": format_effect_id(effect_id),
        "namespace": call.namespace,
        "effectKey": call.key,
        "fenceToken": fence,
        "leaseToken": lease_token,
        "leaseExpiresAt": format_time(lease_expires_at),
        "priorState": prior_state,
        "attemptKey": make_attempt_key(call.environment, call.namespace, call.key, retries),
        "attempt": attempt,
    }
    return Answer(200, dump_fields(fields), outcome=("granted", prior_state))


def answer_recorded(call: EffectCall, word: str, effect_id: int, fence: int, source: str) -> Answer:
    """The answer to a commit or fail that was accepted, now or before."""
    fields = {
        "status": word,
        "effectId": format_effect_id(effect_id),
        "namespace": call.namespace,
        "effectKey": call.key,
        "fenceToken": fence,
        "message": _MESSAGES[word],
    }
    return Answer(200, dump_fields(fields), outcome=(word, source))


def _answer_with_outcome(effect: Effect, word: str) -> Answer:
    """The answer to a lease request on an effect that is COMMITTED or FAILED: its outcome."""
    fields: dict[str, Any] = {
        "status": word,
        "effectId": effect.effect_id,
        "namespace": effect.namespace,
        "effectKey": effect.key,
        "fenceToken": effect.fence,
        "leaseToken": None,
    }
    if word == "cached_completed":
        fields["cachedResult"] = Raw(effect.result_text or "null")
    else:
        fields["cachedError"] = Raw(effect.error_text or "null")
    return Answer(200, dump_fields(fields), outcome=(word, effect.source or ""))


def _refusal(code: str, effect: Effect | None, call: EffectCall, now: int) -> Problem:
    name = f"effect {call.key!r}"
    asked: dict[str, Any] = {"namespace": call.namespace, "effectKey": call.key}
    if (fence := getattr(call.command, "fence", None)) is not None:
        asked["fenceToken"] = fence
    if code == "effect_not_found" or effect is None:
        return Problem(404, "effect_not_found", f"There is no {name} in this namespace.", details=asked)
    if code == "lease_conflict":
        message = f"The lease on {name} is live; try again when it is released or has expired."
        free_at = effect.lease_expires_at
        if effect.settles_after(now):
            message = (
                f"A holder released {name} and may have acted. Nobody is granted before what it sent has settled; "
                "try again then."
            )
            free_at = effect.settles_at or now
        return Problem(
            409,
            code,
            message,
            details={**asked, "leaseExpiresAt": format_time(free_at)},
            # Most holders finish long before their lease expires, so callers that wait are told to retry soon.
            retry_after_s=1,
        )
    if code == "effect_purged":
        return Problem(
            410,
            code,
            f"The {name} is {effect.status}, and its payloads and audit trail were purged; it is never granted again.",
            details={**asked, "status": effect.status, "purgedAt": format_time(effect.purged_at or now)},
        )
    if code == "stale_fence" and (expected := getattr(call.command, "expected_fence", None)) is not None:
        message = f"The {name} changed since it had fence {expected}: it has fence {effect.fence} now."
        return Problem(409, code, message, details={**asked, "expectedFence": expected})
    messages = {
        "stale_fence": f"This lease on {name} is not current: it was released, granted again, reset or resolved.",
        "effect_finished": f"The {name} is {effect.status} already, which this call cannot change.",
        "not_failed": f"The {name} has not failed; it is {effect.shown_status(now)}.",
    }
    return Problem(409, code, messages[code], details=asked)


def _answer_in_grace(problem: Problem, call: EffectCall) -> Answer:
    """The answer to a call that is refused because of an outage; see `outages.py`."""
    problem.message = (
        f"The lease on effect {call.key!r} expired while no holder could renew it, because the ledger was away or its "
        "clock jumped forward. Its holder still has time to renew it; try again later."
    )
    problem.details["grace"] = True
    return replace(answer_problem(problem, call.request.request_id), outcome=(problem.code, GRACE))
