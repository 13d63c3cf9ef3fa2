# Made from verity/_async/options.py by scripts/mirror.py. Do not edit.
"""The options of `protect()`, written and checked once for the client's method and a run's.

Type checkers and editors read the options from here through `Unpack` (PEP 692). `inspect.signature` and `help()` read
the two methods, which spell the options out with their defaults. `test_options.py` compares all three places.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypedDict

from verity._concurrency import Inside, SyncAct, SyncCancellation, sync_check_callable
from verity._core.bodies import check_duration_ms
from verity._core.keys import check_namespace, check_optional_label, join_key
from verity._core.payload import encode
from verity._core.text import read_choice, read_text
from verity._limits import DEFAULT_LEASE_DURATION_MS
from verity._sync.effect import SyncEffect
from verity._tracing import EffectSpan
from verity.config import ON_CONFLICT, ClientSettings, ConflictRetryConfig, OnConflict
from verity.errors import VerityConfigError, VerityValidationError
from verity.policy import ON_OBSERVE_ERROR, EffectPolicy, OnObserveError, choose_policy
from verity.values import LeaseResponse

Observe = SyncAct[object]


class ProtectOptions(TypedDict, total=False):
    """What `protect()` takes besides the key and `act`. The docstring of `protect()` describes each option."""

    observe: Observe | None
    namespace: str | None
    effect_name: str | None
    agent_id: str | None
    lease_duration_ms: int | None
    input_json: Any
    on_conflict: OnConflict
    on_lease: Callable[[LeaseResponse], object] | None
    key_suffix: str | None
    on_observe_error: OnObserveError | None
    policy: EffectPolicy | None


def make_effect(
    effect_key: str,
    act: SyncAct[Any],
    options: ProtectOptions,
    *,
    wire_context: Mapping[str, str] | None,
    settings: ClientSettings,
    caller: object,
    clock: Callable[[], float],
) -> SyncEffect:
    """Check the arguments of a call of `protect()`, and fill in the client's defaults. Nothing is sent.

    Args:
        effect_key: the key, without its suffix.
        act: the caller's function.
        options: the other arguments.
        wire_context: the fields that a workflow's run adds to the lease request.
        settings: the client's.
        caller: the client's identity at the ledger.
        clock: the runtime's monotonic clock.

    Raises:
        VerityConfigError, VerityValidationError: names the argument that is wrong.
    """
    sync_check_callable("act", act)
    observe = options.get("observe")
    if observe is not None:
        sync_check_callable("observe", observe)
    on_lease = options.get("on_lease")
    if on_lease is not None and not callable(on_lease):
        raise _wrong("on_lease", "a function that takes the lease", on_lease)
    on_conflict = options.get("on_conflict")
    conflict_choice = read_choice(on_conflict, ON_CONFLICT)
    if conflict_choice is None:
        raise _wrong("on_conflict", '"retry" or "throw"', on_conflict)
    on_observe_error = options.get("on_observe_error")
    observe_choice = read_choice(on_observe_error, ON_OBSERVE_ERROR)
    if observe_choice is None and on_observe_error is not None:
        raise _wrong("on_observe_error", '"raise" or "act"', on_observe_error)
    policy = options.get("policy")
    if policy is not None and not isinstance(policy, EffectPolicy):
        raise _wrong("policy", "an EffectPolicy", policy)
    lease_duration_ms = options.get("lease_duration_ms")
    duration_ms = None if lease_duration_ms is None else check_duration_ms("lease_duration_ms", lease_duration_ms)
    input_json = options.get("input_json")
    if input_json is not None:
        encode(input_json, "input_json")
    name = check_optional_label("effect_name", options.get("effect_name"))
    optional = {
        "effectName": name,
        "agentId": check_optional_label("agent_id", options.get("agent_id")) or settings.agent_id,
        "leaseDurationMs": duration_ms,
        "inputJson": input_json,
        **(wire_context or {}),
    }
    lease_body: dict[str, Any] = {"effectKey": join_key(effect_key, options.get("key_suffix"))}
    lease_body.update((name, value) for name, value in optional.items() if value is not None)
    namespace = _read_namespace(options.get("namespace"), settings)
    inside = Inside(caller, namespace, lease_body["effectKey"], name)
    return SyncEffect(
        namespace=namespace,
        lease_body=lease_body,
        duration_ms=duration_ms or DEFAULT_LEASE_DURATION_MS,
        act=act,
        observe=observe,
        on_lease=on_lease,
        conflict_retry=settings.conflict_retry if conflict_choice == "retry" else ConflictRetryConfig(enabled=False),
        policy=choose_policy(settings.policy, policy, observe_choice),
        span=EffectSpan(namespace, name),
        inside=inside,
        cancellation=SyncCancellation(inside, clock),
    )


def _read_namespace(namespace: str | None, settings: ClientSettings) -> str:
    if namespace is not None:
        return check_namespace(namespace)
    if settings.namespace is None:
        raise VerityConfigError(
            "namespace is missing: pass namespace= to the client or to this call.", parameter="namespace"
        )
    return settings.namespace


def _wrong(parameter: str, takes: str, value: object) -> VerityValidationError:
    text = read_text(value)
    shown = type(value).__name__ if text is None else repr(text[:40])
    return VerityValidationError(f"{parameter} must be {takes}, not {shown}.", parameter=parameter)
