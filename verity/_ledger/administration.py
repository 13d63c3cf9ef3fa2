"""The rules of the transition table for an admin's commands: reset and resolve."""

from __future__ import annotations

from verity._ledger.commands import Context, Decision, Reply, Reset, Resolve, refuse, refuse_in_grace
from verity._ledger.effect import Effect, Event, EventType, Status

_PRIOR_STATES = {"verify": "expired", "retry": "reset"}


def reset(effect: Effect, command: Reset, context: Context, *, is_forced: bool = False) -> Decision:
    """FAILED, EXPIRED, RELEASED or RUNNING -> IDLE."""
    # A holder may still be at work: raise the fence, so that its pair is recognized as old.
    fence = effect.fence + (effect.status == Status.RUNNING)
    detail = {
        "actor": command.actor,
        "reason": command.reason,
        "mode": command.mode,
        "forced": is_forced or None,
        "expectedFence": command.expected_fence,
    }
    after = effect._replace(
        status=Status.IDLE.value,
        fence=fence,
        lease_token=None,
        idempotency_key=None,
        prior_state=_PRIOR_STATES[command.mode],
        error_text=None,
        error_sha256=None,
        source=None,
        event_count=effect.event_count + 1,
        updated_at=context.now,
        settles_at=None if command.mode == "retry" else effect.settles_at,
        retries=effect.retries + (command.mode == "retry"),
    )
    return Decision(after, (Event(EventType.RESET, context.now, fence, detail=detail),), Reply("reset"))


def reset_again(effect: Effect, command: Reset, context: Context) -> Decision:
    """IDLE: another mode, or the next attempt key after a release, is a change. The same reset again is none."""
    if _is_reset(effect, command.mode):
        return Decision(effect, (), Reply("already_reset"))
    return reset(effect, command, context)


def _is_reset(effect: Effect, mode: str) -> bool:
    """Whether the latest change was a reset with this mode. A release, too, makes effects IDLE, but keeps the token."""
    return effect.status == Status.IDLE and effect.lease_token is None and effect.prior_state == _PRIOR_STATES[mode]


def reset_if_forced(effect: Effect, command: Reset, context: Context) -> Decision:
    """RUNNING: a live lease ends by force only."""
    return reset(effect, command, context, is_forced=True) if command.force else refuse(effect, "lease_conflict")


def reset_expired(effect: Effect, command: Reset, context: Context) -> Decision:
    """EXPIRED: also the grace after an outage ends by force only."""
    refusal = refuse_in_grace(effect, context)
    if refusal is not None and not command.force:
        return refusal
    return reset(effect, command, context, is_forced=refusal is not None)


def resolve(effect: Effect, command: Resolve, context: Context) -> Decision:
    """EXPIRED, RELEASED or FAILED -> COMMITTED."""
    fence = effect.fence + 1
    detail = {
        "source": "resolved",
        "resultSha256": command.result.sha256,
        "actor": command.actor,
        "reason": command.reason,
        "expectedFence": command.expected_fence,
    }
    after = effect._replace(
        status=Status.COMMITTED.value,
        fence=fence,
        lease_token=None,
        idempotency_key=None,
        result_text=command.result.text,
        result_sha256=command.result.sha256,
        source="resolved",
        event_count=effect.event_count + 1,
        updated_at=context.now,
    )
    return Decision(after, (Event(EventType.RESOLVED, context.now, fence, detail=detail),), Reply("resolved"))


def resolve_expired(effect: Effect, command: Resolve, context: Context) -> Decision:
    """EXPIRED: not in the grace after an outage."""
    return refuse_in_grace(effect, context) or resolve(effect, command, context)


def repeat_or_stale(effect: Effect, command: Reset | Resolve) -> Decision:
    """The effect has another fence than the admin saw. A reset or resolve raises it by one at most."""
    if isinstance(command, Resolve):
        if effect.result_sha256 == command.result.sha256:
            return Decision(effect, (), Reply("already_committed"))
    elif effect.fence - 1 == command.expected_fence and _is_reset(effect, command.mode):
        return Decision(effect, (), Reply("already_reset"))
    return refuse(effect, "stale_fence")


def same_result_or_finished(effect: Effect, command: Resolve, _context: Context) -> Decision:
    """COMMITTED: only the same result is a success."""
    if effect.result_sha256 == command.result.sha256:
        return Decision(effect, (), Reply("already_committed"))
    return refuse(effect, "effect_finished")
