"""The transition table: state x command -> effect, events, reply.

The SQLite store decides every call by this table. So does the PostgreSQL store on its slow path. On its fast path two
SQL statements make the two most frequent decisions without the table: the first grant of an effect, and the commit of a
current lease. `tests/ledger/test_paths.py` proves that both paths and both stores give the answers, rows and events of
the table.

Why nothing acts twice:

1. A grant raises the fence by one and makes a new lease token. At most one pair (fence, token) is current. Only one
   lease request gets a pair. If its answer is lost, the same request with the same Idempotency-Key is resent, and gets
   the same pair again.
2. Commit, fail, renew and release are a compare-and-set on the pair, not on the clock. A holder whose lease has expired
   may still commit as long as no other grant was made: its outcome is true. After another grant its pair is old, and
   the answer is `stale_fence`. This check comes before all others, so an old holder learns nothing else.
3. COMMITTED never changes. FAILED changes by reset and resolve only. Both delete the token, so the old pair is never
   current again. A reset of a RUNNING, EXPIRED or RELEASED effect, and every resolve, also raises the fence.
4. A wrong clock can make a grant too early or too late. It can't make two pairs current.
5. A commit or fail that is resent with the same pair changes nothing and is answered with success. Its payload is not
   compared: the first one counts.

A holder may release its lease before it expires. If it has not acted, the effect becomes what the grant found: IDLE
with the grant's prior state, or, if an earlier holder may have acted, RELEASED with the expiry of that holder's lease,
so that the effect is listed as EXPIRED and can be resolved. If the holder itself may have acted, the effect becomes
RELEASED, and nobody is granted before the settle time has passed, because what was sent may still take effect. The next
grant is told `expired`. The pair of a released lease stays in the row, so that a release that is resent is recognized,
and the holder may still commit or fail a RELEASED effect: its outcome is true. It can't renew the lease, because nobody
holds it. A release drops the Idempotency-Key, so that the lease request, if it is resent, is no repeat of the grant.

An admin's reset or resolve may name the fence that the admin saw. With another fence it is refused: the effect was
granted since, or another admin changed it. The same change, sent again, is success.

If a lease request is resent (same Idempotency-Key) after its lease has expired, it gets the same grant with a new
expiry, like a renewal. No other grant was made, and the sender can't have acted, because it never got the answer.

A holder can't fill the audit trail. A client renews a lease when at least a quarter of it has passed. An earlier
renewal extends the lease by a quarter more than it asked for. The renewals after it change nothing as long as the lease
lasts for as long as they ask. So `renewed` always means that the lease lasts at least as long as was asked for. A
client sends one report of an observation for each grant; at most `MAX_REPORTS` are recorded.

Time in which no holder could renew does not count against a lease. If a lease expired in an outage of the ledger,
nobody takes it over, resets or resolves it before the end of the time that `outages.py` gives to its holder (its
grace). A forced reset is the exception. Everything that the holder sends is decided as always. Nor does this time count
as settle time: if the clock jumped over it, what was sent may still take effect.

A purged effect has lost its payloads and its audit trail, and nothing else. It is never granted again; a lease request
is answered with `effect_purged`. A commit or fail that is resent is still answered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from verity._ledger.administration import (
    repeat_or_stale,
    reset,
    reset_again,
    reset_expired,
    reset_if_forced,
    resolve,
    resolve_expired,
    same_result_or_finished,
)
from verity._ledger.commands import (
    Command,
    Commit,
    Context,
    Decision,
    Fail,
    Lease,
    Release,
    Renew,
    Reply,
    ReportObserve,
    Reset,
    Resolve,
    refuse,
    refuse_in_grace,
    refuse_unsettled,
)
from verity._ledger.effect import Effect, Event, EventType, State, Status

Rule = Callable[[Any, Any, Context], Decision]

MAX_REPORTS = 8
"""The most reports of one grant that are recorded. More than one, since a client resends a report without an answer."""
_DENSE = 4
"""A renewal is early if it extends the lease by less than its extension divided by this."""


def apply(effect: Effect | None, command: Command, context: Context) -> Decision:
    """Decide a command. Pure: the same arguments give the same decision.

    Args:
        effect: the effect before the command; None: there is none.
        command: what to do.
        context: the time and new values.
    """
    state = State.NONE if effect is None else effect.state(context.now)
    if (
        effect is not None
        and isinstance(command, (Commit, Fail, Renew, Release, ReportObserve))
        and (command.fence, command.lease_token) != (effect.fence, effect.lease_token)
    ):
        return refuse(effect, "stale_fence")
    if (
        effect is not None
        and effect.purged_at is not None
        and isinstance(command, (Lease, ReportObserve, Reset, Resolve))
    ):
        return refuse(effect, "effect_purged")
    if (
        effect is not None
        and isinstance(command, (Reset, Resolve))
        and command.expected_fence not in (None, effect.fence)
    ):
        return repeat_or_stale(effect, command)
    return TABLE[type(command)][state](effect, command, context)


def _refusal(code: str) -> Rule:
    return lambda effect, _command, _context: refuse(effect, code)


def _unchanged(word: str) -> Rule:
    return lambda effect, _command, _context: Decision(effect, (), Reply(word))


def _event(
    kind: EventType, effect: Effect, context: Context, detail: dict[str, Any] | None = None, run_id: str | None = None
) -> Event:
    """An event of the current grant. `run_id`: the call's own run, if it names one."""
    labels = effect.labels
    return Event(kind, context.now, effect.fence, labels.agent_id, run_id or labels.run_id, detail or {})


# --- lease ---


def _grant(prior_state: str) -> Rule:
    def rule(effect: Effect | None, command: Lease, context: Context) -> Decision:
        now = context.now
        expires_at = now + command.lease_duration_ms
        fence = 1 if effect is None else effect.fence + 1
        granted = Event(
            EventType.LEASE_GRANTED,
            now,
            fence,
            command.labels.agent_id,
            command.labels.run_id,
            {"priorState": prior_state, "leaseDurationMs": command.lease_duration_ms, "leaseExpiresAt": expires_at},
        )
        events: tuple[Event, ...] = (granted,)
        if effect is not None and effect.state(now) is State.EXPIRED:
            events = (_event(EventType.LEASE_EXPIRED, effect, context), granted)
        after = Effect(
            id=context.new_id() if effect is None else effect.id,
            namespace=context.namespace,
            key=context.key,
            status=Status.RUNNING.value,
            fence=fence,
            lease_token=context.new_token(),
            lease_expires_at=expires_at,
            lease_duration_ms=command.lease_duration_ms,
            idempotency_key=command.idempotency_key,
            prior_state=prior_state,
            labels=command.labels,
            input_text=command.input.text if command.input else None,
            input_sha256=command.input.sha256 if command.input else None,
            result_text=None,
            result_sha256=None,
            error_text=None,
            error_sha256=None,
            source=None,
            event_count=(0 if effect is None else effect.event_count) + len(events),
            created_at=now if effect is None else effect.created_at,
            updated_at=now,
            purged_at=None,
            settles_at=None,
            # Not in the future, as the expiry of an effect that failed early and was reset with mode `verify` may be.
            doubt_since=min(effect.lease_expires_at, now) if effect is not None and prior_state == "expired" else None,
            retries=0 if effect is None else effect.retries,
            attempt=1 if effect is None else effect.attempt + 1,
        )
        return Decision(after, events, Reply("granted"))

    return rule


def _grant_once_settled(effect: Effect, command: Lease, context: Context) -> Decision:
    prior_state = effect.prior_state if effect.status == Status.IDLE else "expired"
    return refuse_unsettled(effect, context) or _grant(prior_state)(effect, command, context)


def _repeat_or_conflict(effect: Effect, command: Lease, _context: Context) -> Decision:
    if _is_same_request(effect, command):
        return Decision(effect, (), Reply("granted"))
    return refuse(effect, "lease_conflict")


def _repeat_or_take_over(effect: Effect, command: Lease, context: Context) -> Decision:
    if _is_same_request(effect, command):
        return _extend(effect, effect.lease_duration_ms, context, "granted")
    return refuse_in_grace(effect, context) or _grant("expired")(effect, command, context)


def _is_same_request(effect: Effect, command: Lease) -> bool:
    return command.idempotency_key is not None and command.idempotency_key == effect.idempotency_key


# --- commit, fail, renew, release, report: the pair is current ---


def commit_detail(command: Commit) -> dict[str, Any]:
    """The detail of a commit's event."""
    return {"source": command.source, "resultSha256": command.result.sha256}


def _commit(effect: Effect, command: Commit, context: Context) -> Decision:
    detail = commit_detail(command)
    event = _event(EventType.COMMITTED, effect, context, detail, command.run_id)
    after = effect._replace(
        status=Status.COMMITTED.value,
        result_text=command.result.text,
        result_sha256=command.result.sha256,
        source=command.source,
        event_count=effect.event_count + 1,
        updated_at=context.now,
    )
    return Decision(after, (event,), Reply("accepted"))


def _fail(effect: Effect, command: Fail, context: Context) -> Decision:
    detail = {"source": command.source, "errorSha256": command.error.sha256}
    event = _event(EventType.FAILED, effect, context, detail, command.run_id)
    after = effect._replace(
        status=Status.FAILED.value,
        error_text=command.error.text,
        error_sha256=command.error.sha256,
        source=command.source,
        event_count=effect.event_count + 1,
        updated_at=context.now,
    )
    return Decision(after, (event,), Reply("recorded"))


def _renew(effect: Effect, command: Renew, context: Context) -> Decision:
    return _extend(effect, command.extension_ms or effect.lease_duration_ms, context, "renewed")


def _extend(effect: Effect, extension_ms: int, context: Context, word: str) -> Decision:
    wanted = context.now + extension_ms
    gain_ms = wanted - effect.lease_expires_at
    if gain_ms <= 0:  # the lease lasts that long already; a renewal never shortens it
        return Decision(effect, (), Reply(word))
    ahead_ms = extension_ms // _DENSE
    expires_at = wanted + ahead_ms if gain_ms < ahead_ms else wanted
    event = _event(EventType.LEASE_RENEWED, effect, context, {"leaseExpiresAt": expires_at})
    after = effect._replace(lease_expires_at=expires_at, event_count=effect.event_count + 1, updated_at=context.now)
    return Decision(after, (event,), Reply(word))


def _release(effect: Effect, command: Release, context: Context) -> Decision:
    now = context.now
    if command.acted == "no" and effect.doubt_since is None:
        detail: dict[str, Any] = {"acted": "no", "priorState": effect.prior_state}
        after = effect._replace(status=Status.IDLE.value)
    else:
        if command.acted == "no":  # as it was before the grant: an earlier holder may have acted
            expires_at, settle_ms = effect.doubt_since or now, 0
        else:
            expires_at, settle_ms = min(now, effect.lease_expires_at), command.settle_ms
        detail = {"acted": command.acted, "priorState": "expired", "settleMs": settle_ms}
        detail |= {"leaseExpiresAt": expires_at, "settlesAt": now + settle_ms}
        after = effect._replace(lease_expires_at=expires_at, settles_at=now + settle_ms)
    event = _event(EventType.LEASE_RELEASED, effect, context, detail)
    after = after._replace(idempotency_key=None, event_count=effect.event_count + 1, updated_at=now)
    return Decision(after, (event,), Reply("released"))


def _report(effect: Effect, command: ReportObserve, context: Context) -> Decision:
    # With fewer events there can't be that many reports, so they need not be counted.
    if effect.event_count > MAX_REPORTS and context.count_reports() >= MAX_REPORTS:
        return Decision(effect, (), Reply("reported"))
    kind = EventType.OBSERVE_HIT if command.hit else EventType.OBSERVE_MISS
    detail = {} if command.duration_ms is None else {"durationMs": command.duration_ms}
    event = _event(kind, effect, context, detail)
    after = effect._replace(event_count=effect.event_count + 1)
    return Decision(after, (event,), Reply("reported"))


_not_found = _refusal("effect_not_found")
_stale = _refusal("stale_fence")  # a release leaves its pair in the row, but nobody holds the lease
_finished = _refusal("effect_finished")
_conflict = _refusal("lease_conflict")
_not_failed = _refusal("not_failed")

TABLE: dict[type[Command], dict[State, Rule]] = {
    Lease: {
        State.NONE: _grant("none"),
        State.IDLE: _grant_once_settled,
        State.RUNNING: _repeat_or_conflict,
        State.EXPIRED: _repeat_or_take_over,
        State.COMMITTED: _unchanged("cached_completed"),
        State.FAILED: _unchanged("cached_failed"),
        State.RELEASED: _grant_once_settled,
    },
    Commit: {
        State.NONE: _not_found,
        State.IDLE: _stale,
        State.RUNNING: _commit,
        State.EXPIRED: _commit,
        State.COMMITTED: _unchanged("already_committed"),
        State.FAILED: _finished,
        State.RELEASED: _commit,
    },
    Fail: {
        State.NONE: _not_found,
        State.IDLE: _stale,
        State.RUNNING: _fail,
        State.EXPIRED: _fail,
        State.COMMITTED: _finished,
        State.FAILED: _unchanged("already_failed"),
        State.RELEASED: _fail,
    },
    Renew: {
        State.NONE: _not_found,
        State.IDLE: _stale,
        State.RUNNING: _renew,
        State.EXPIRED: _renew,
        State.COMMITTED: _finished,
        State.FAILED: _finished,
        State.RELEASED: _stale,
    },
    Release: {
        State.NONE: _not_found,
        State.IDLE: _unchanged("already_released"),
        State.RUNNING: _release,
        State.EXPIRED: _release,
        State.COMMITTED: _finished,
        State.FAILED: _finished,
        State.RELEASED: _unchanged("already_released"),
    },
    ReportObserve: {
        State.NONE: _not_found,
        State.IDLE: _stale,
        State.RUNNING: _report,
        State.EXPIRED: _report,
        State.COMMITTED: _report,
        State.FAILED: _report,
        State.RELEASED: _report,
    },
    Reset: {
        State.NONE: _not_found,
        State.IDLE: reset_again,
        State.RUNNING: reset_if_forced,
        State.EXPIRED: reset_expired,
        State.COMMITTED: _finished,
        State.FAILED: reset,
        State.RELEASED: reset,
    },
    Resolve: {
        State.NONE: _not_found,
        State.IDLE: _not_failed,
        State.RUNNING: _conflict,
        State.EXPIRED: resolve_expired,
        State.COMMITTED: same_result_or_finished,
        State.FAILED: resolve,
        State.RELEASED: resolve,
    },
}
