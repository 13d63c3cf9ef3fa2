"""The transition table against a naive model, whose rules are written from the wire contract's prose.

The model is a plain dict. It knows nothing of the table: it says what the contract says.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from verity._ledger.commands import (
    Command,
    Commit,
    Context,
    Decision,
    Fail,
    Lease,
    Release,
    Renew,
    ReportObserve,
    Reset,
    Resolve,
)
from verity._ledger.effect import Effect, Event, EventType, Payload, agrees_with_its_events
from verity._ledger.transitions import apply

DURATIONS = st.sampled_from([5_000, 30_000, 120_000])
KEYS = st.sampled_from([None, "one", "two"])
PAYLOADS = st.sampled_from([Payload('{"a":1}', "sha-a"), Payload("null", "sha-null")])


class Life(RuleBasedStateMachine):
    """One effect, any commands, any pauses."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000_000
        self.tokens = 0
        self.effect: Effect | None = None
        self.events: list[Event] = []
        self.history: list[tuple[int, str]] = [(99, "never granted")]
        self.fences: list[int] = []
        # The model.
        self.state = "NONE"
        self.fence = 0
        self.token: str | None = None
        self.expires_at = 0
        self.duration = 0
        self.request_key: str | None = None
        self.result: str | None = None
        self.told = ""
        self.settles_at: int | None = None
        self.doubt_since: int | None = None
        self.retries = self.grants = 0

    def send(self, command: Command) -> Decision:
        """Apply a command to the real table."""

        def new_token() -> str:
            self.tokens += 1
            return f"token-{self.tokens}"

        context = Context("payments", "k", self.now, lambda: 7, new_token)
        decision = apply(self.effect, command, context)
        assert decision == apply(self.effect, command, context._replace(new_token=lambda: f"token-{self.tokens}"))
        if decision.events:
            self.effect = decision.effect
            self.events += decision.events
        else:
            assert decision.effect == self.effect, "a change without an event"
        return decision

    def live(self) -> bool:
        return self.state == "RUNNING" and self.settles_at is None and self.now < self.expires_at

    def pairs(self) -> st.SearchStrategy[tuple[int, str]]:
        return st.sampled_from(self.history)

    def is_current(self, pair: tuple[int, str]) -> bool:
        return pair == (self.fence, self.token)

    @rule(pause=st.sampled_from([0, 1, 4_999, 5_000, 30_000, 200_000]))
    def wait(self, pause: int) -> None:
        self.now += pause

    @rule(duration=DURATIONS, key=KEYS)
    def lease(self, duration: int, key: str | None) -> None:
        reply = self.send(Lease(duration, key)).reply
        if self.state == "COMMITTED":
            assert reply.word == "cached_completed"
        elif self.state == "FAILED":
            assert reply.word == "cached_failed"
        elif self.state == "RUNNING" and key is not None and key == self.request_key:
            assert reply.word == "granted"
            if not self.live():
                self.expires_at = self.now + self.duration
        elif self.live() or (self.settles_at is not None and self.now < self.settles_at):
            assert (reply.word, reply.refused) == ("lease_conflict", True)
        else:
            assert reply.word == "granted"
            assert self.effect is not None
            prior = {"NONE": "none", "IDLE": self.told, "RUNNING": "expired"}[self.state]
            assert self.effect.prior_state == prior
            assert self.effect.fence == self.fence + 1
            self.doubt_since = min(self.expires_at, self.now) if prior == "expired" else None
            self.settles_at, self.told, self.grants = None, prior, self.grants + 1
            self.state, self.fence, self.token = "RUNNING", self.fence + 1, self.effect.lease_token
            self.expires_at, self.duration, self.request_key = self.now + duration, duration, key
            assert self.token is not None
            assert (self.fence, self.token) not in self.history
            self.history.append((self.fence, self.token))

    def refused_before_the_state_counts(self, decision: Decision, pair: tuple[int, str]) -> bool:
        """What every call with tokens has in common."""
        if self.state == "NONE":
            assert decision.reply.word == "effect_not_found"
            return True
        if not self.is_current(pair):
            assert decision.reply.word == "stale_fence"
            assert decision.reply.refused
            return True
        return False

    @rule(data=st.data(), result=PAYLOADS, source=st.sampled_from(["acted", "observed"]))
    def commit(self, data: st.DataObject, result: Payload, source: str) -> None:
        pair = data.draw(self.pairs())
        decision = self.send(Commit(*pair, result, source))
        if self.refused_before_the_state_counts(decision, pair):
            return
        if self.state == "RUNNING":
            assert decision.reply.word == "accepted", "late or not: nobody else was granted"
            self.state, self.result = "COMMITTED", result.sha256
        elif self.state == "COMMITTED":
            assert decision.reply.word == "already_committed"
        elif self.state == "IDLE":
            assert decision.reply.word == "stale_fence"
        else:
            assert decision.reply.word == "effect_finished"

    @rule(data=st.data(), error=PAYLOADS)
    def fail(self, data: st.DataObject, error: Payload) -> None:
        pair = data.draw(self.pairs())
        decision = self.send(Fail(*pair, error))
        if self.refused_before_the_state_counts(decision, pair):
            return
        if self.state == "RUNNING":
            assert decision.reply.word == "recorded"
            self.state = "FAILED"
        elif self.state == "FAILED":
            assert decision.reply.word == "already_failed"
        elif self.state == "IDLE":
            assert decision.reply.word == "stale_fence"
        else:
            assert decision.reply.word == "effect_finished"

    @rule(data=st.data(), extension=st.none() | DURATIONS)
    def renew(self, data: st.DataObject, extension: int | None) -> None:
        pair = data.draw(self.pairs())
        decision = self.send(Renew(*pair, extension))
        if self.refused_before_the_state_counts(decision, pair):
            return
        if self.state == "RUNNING" and self.settles_at is not None:
            assert decision.reply.word == "stale_fence", "nobody holds the lease"
        elif self.state == "RUNNING":
            assert decision.reply.word == "renewed"
            asked = extension or self.duration
            gain = self.now + asked - self.expires_at
            if gain > 0:
                self.expires_at = self.now + asked + (asked // 4 if gain < asked // 4 else 0)
        elif self.state == "IDLE":
            assert decision.reply.word == "stale_fence"
        else:
            assert decision.reply.word == "effect_finished"

    @rule(data=st.data(), acted=st.sampled_from(["no", "unknown"]), settle_ms=st.sampled_from([0, 5_000, 30_000]))
    def release(self, data: st.DataObject, acted: str, settle_ms: int) -> None:
        pair = data.draw(self.pairs())
        decision = self.send(Release(*pair, acted, settle_ms))
        if self.refused_before_the_state_counts(decision, pair):
            return
        if self.state == "IDLE" or (self.state == "RUNNING" and self.settles_at is not None):
            assert decision.reply.word == "already_released", "the first one counts"
        elif self.state == "RUNNING":
            assert decision.reply.word == "released"
            self.request_key = None
            if acted == "no" and self.doubt_since is None:
                self.state = "IDLE"
            elif acted == "no":
                self.expires_at, self.settles_at = self.doubt_since or 0, self.now
            else:
                self.expires_at, self.settles_at = min(self.expires_at, self.now), self.now + settle_ms
        else:
            assert decision.reply.word == "effect_finished"

    @rule(data=st.data(), hit=st.booleans())
    def report(self, data: st.DataObject, hit: bool) -> None:
        pair = data.draw(self.pairs())
        decision = self.send(ReportObserve(*pair, hit, 3))
        if self.refused_before_the_state_counts(decision, pair):
            return
        if self.state == "IDLE":
            assert decision.reply.word == "stale_fence"
        else:
            assert decision.reply.word == "reported"
            assert decision.events[0].type is (EventType.OBSERVE_HIT if hit else EventType.OBSERVE_MISS)

    @rule(mode=st.sampled_from(["verify", "retry"]), force=st.booleans(), saw=st.none() | st.integers(-2, 0))
    def reset(self, mode: str, force: bool, saw: int | None) -> None:
        expected = None if saw is None else self.fence + saw
        reply = self.send(Reset("admin", "because", mode, force, expected)).reply
        told = {"verify": "expired", "retry": "reset"}[mode]
        is_reset = self.state == "IDLE" and self.token is None and told == self.told
        if self.state != "NONE" and saw is not None and saw < (-1 if is_reset else 0):
            assert (reply.word, reply.refused) == ("stale_fence", True)
            return
        if reply.word == "reset" and mode == "retry":
            self.retries, self.settles_at = self.retries + 1, None
        if self.state == "IDLE":
            assert reply.word == ("already_reset" if is_reset else "reset")
            self.told, self.token = told, None
        elif self.state == "FAILED" or (self.state == "RUNNING" and (force or not self.live())):
            assert reply.word == "reset"
            self.fence += self.state == "RUNNING"
            self.state, self.token, self.request_key, self.told = "IDLE", None, None, told
        else:
            words = {"NONE": "effect_not_found", "RUNNING": "lease_conflict", "COMMITTED": "effect_finished"}
            assert reply.word == words[self.state]
            assert reply.refused

    @rule(result=PAYLOADS, saw=st.none() | st.integers(-2, 0))
    def resolve(self, result: Payload, saw: int | None) -> None:
        expected = None if saw is None else self.fence + saw
        reply = self.send(Resolve(result, "admin", "found it", expected)).reply
        is_same = self.state == "COMMITTED" and result.sha256 == self.result
        if self.state != "NONE" and saw not in (None, 0) and not is_same:
            assert (reply.word, reply.refused) == ("stale_fence", True)
        elif self.state == "FAILED" or (self.state == "RUNNING" and not self.live()):
            assert reply.word == "resolved"
            self.state, self.fence, self.token, self.result = "COMMITTED", self.fence + 1, None, result.sha256
        elif self.state == "COMMITTED":
            assert reply.word == ("already_committed" if result.sha256 == self.result else "effect_finished")
        else:
            words = {"NONE": "effect_not_found", "IDLE": "not_failed", "RUNNING": "lease_conflict"}
            assert reply.word == words[self.state]

    # -- what holds at all times --

    @precondition(lambda self: self.effect is not None)
    @invariant()
    def the_row_is_what_the_model_says(self) -> None:
        effect: Any = self.effect
        assert effect.status == self.state
        assert (effect.fence, effect.lease_token) == (self.fence, self.token)
        assert effect.lease_expires_at == self.expires_at
        assert effect.result_sha256 == self.result
        assert (effect.settles_at, effect.retries, effect.attempt) == (self.settles_at, self.retries, self.grants)

    @precondition(lambda self: self.effect is not None)
    @invariant()
    def the_events_tell_the_row(self) -> None:
        effect: Any = self.effect
        assert agrees_with_its_events(effect, self.events)
        assert effect.event_count == len(self.events)
        assert [event.at for event in self.events] == sorted(event.at for event in self.events)

    @invariant()
    def the_fence_only_rises(self) -> None:
        self.fences.append(self.effect.fence if self.effect else 0)
        assert self.fences == sorted(self.fences)

    @invariant()
    def one_commit_at_most(self) -> None:
        kinds = [event.type for event in self.events]
        assert kinds.count(EventType.COMMITTED) + kinds.count(EventType.RESOLVED) <= 1
        if EventType.COMMITTED in kinds:
            last = kinds.index(EventType.COMMITTED)
            assert set(kinds[last + 1 :]) <= {EventType.OBSERVE_HIT, EventType.OBSERVE_MISS}


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
