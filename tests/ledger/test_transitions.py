"""Every cell of the table, written out once more by hand."""

from __future__ import annotations

import random

import pytest

from verity._ledger.commands import (
    REPORTS_AMONG,
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
)
from verity._ledger.effect import (
    Effect,
    Event,
    EventType,
    Labels,
    Payload,
    State,
    agrees_with_its_events,
    fold,
    format_effect_id,
    parse_effect_id,
)
from verity._ledger.outages import Outage
from verity._ledger.transitions import MAX_REPORTS, TABLE, apply

NOW = 1_000_000
RESULT = Payload('{"id":1}', "sha-result")
OTHER = Payload('{"id":2}', "sha-other")
ERROR = Payload('"declined"', "sha-error")


class Story:
    """Brings an effect into a state by real commands."""

    def __init__(self) -> None:
        self.now = NOW
        self.effect: Effect | None = None
        self.events: list[Event] = []
        self.tokens = 0
        self.outages: list[Outage] = []

    def send(self, command: Command) -> Decision:
        self.tokens += 1
        context = Context(
            "n", "k", self.now, lambda: 7, lambda: f"t{self.tokens}", self.count_reports, self.find_outages
        )
        decision = apply(self.effect, command, context)
        if decision.events:
            self.effect = decision.effect
            self.events += decision.events
            assert self.effect is not None
            assert agrees_with_its_events(self.effect, self.events)
        return decision

    def find_outages(self) -> list[Outage]:
        assert self.effect is not None
        settles = self.effect.settles_at is not None and self.effect.updated_at < self.effect.settles_at
        assert settles or self.effect.state(self.now) is State.EXPIRED, "nothing else pays for it"
        return self.outages

    def count_reports(self) -> int:
        assert self.effect is not None
        kinds = (EventType.OBSERVE_HIT, EventType.OBSERVE_MISS)
        return sum(event.type in kinds and event.fence == self.effect.fence for event in self.events[-REPORTS_AMONG:])

    def pair(self) -> tuple[int, str]:
        assert self.effect is not None
        return self.effect.fence, self.effect.lease_token or "none"


def in_state(state: State) -> Story:
    story = Story()
    if state is not State.NONE:
        story.send(Lease(30_000, "request-1", Labels(agent_id="a", run_id="r")))
    if state is State.EXPIRED:
        story.now += 30_000
    if state is State.RELEASED:
        story.send(Release(*story.pair(), settle_ms=60_000))
        story.now += 60_000
    if state is State.COMMITTED:
        story.send(Commit(*story.pair(), RESULT))
    if state in (State.FAILED, State.IDLE):
        story.send(Fail(*story.pair(), ERROR))
    if state is State.IDLE:
        story.send(Reset("admin", "again"))
    assert (story.effect.state(story.now) if story.effect else State.NONE) is state
    return story


ALL = tuple(State)
# command -> what it answers in NONE, IDLE, RUNNING, EXPIRED, COMMITTED, FAILED, RELEASED (the order of State).
# ! is a refusal.
EXPECTED = {
    Lease: "granted granted !lease_conflict granted cached_completed cached_failed granted",
    Commit: "!effect_not_found !stale_fence accepted accepted already_committed !effect_finished accepted",
    Fail: "!effect_not_found !stale_fence recorded recorded !effect_finished already_failed recorded",
    Renew: "!effect_not_found !stale_fence renewed renewed !effect_finished !effect_finished !stale_fence",
    Release: "!effect_not_found !stale_fence released released !effect_finished !effect_finished already_released",
    ReportObserve: "!effect_not_found !stale_fence reported reported reported reported reported",
    Reset: "!effect_not_found already_reset !lease_conflict reset !effect_finished reset reset",
    Resolve: "!effect_not_found !not_failed !lease_conflict resolved already_committed resolved resolved",
}
NEXT = {
    "granted": "RUNNING",
    "accepted": "COMMITTED",
    "recorded": "FAILED",
    "reset": "IDLE",
    "resolved": "COMMITTED",
}


def _command(kind: type[Command], story: Story) -> Command:
    pair = story.pair() if story.effect else (1, "t")
    commands: dict[type[Command], Command] = {
        Lease: Lease(30_000, "request-2"),
        Commit: Commit(*pair, RESULT),
        Fail: Fail(*pair, ERROR),
        Renew: Renew(*pair, 60_000),
        Release: Release(*pair),
        ReportObserve: ReportObserve(*pair, True, 5),
        Reset: Reset("admin", None),
        Resolve: Resolve(RESULT, "admin", None),
    }
    return commands[kind]


@pytest.mark.parametrize("kind", list(EXPECTED), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("state", ALL, ids=lambda state: state.name)
def test_a_cell(kind: type[Command], state: State) -> None:
    word = EXPECTED[kind].split()[ALL.index(state)]
    story = in_state(state)
    before, events = story.effect, len(story.events)
    decision = story.send(_command(kind, story))
    assert ("!" * decision.reply.refused) + decision.reply.word == word
    if word.startswith(("!", "already", "cached")):
        assert decision.effect == before
        assert not decision.events
        return
    assert len(story.events) > events
    after = decision.effect
    assert after is not None
    assert after.status == NEXT.get(word, before.status if before else "")
    rises = word in ("granted", "resolved") or (word == "reset" and state in (State.EXPIRED, State.RELEASED))
    assert after.fence == (before.fence if before else 0) + rises
    assert after.created_at == (before.created_at if before else story.now)


def test_the_table_has_every_cell() -> None:
    assert set(TABLE) == set(EXPECTED)
    for row in TABLE.values():
        assert set(row) == set(State)


@pytest.mark.parametrize("kind", [Commit, Fail, Renew, Release, ReportObserve], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("state", ALL[1:], ids=lambda state: state.name)
@pytest.mark.parametrize("wrong", ["fence", "token", "both"])
def test_a_wrong_pair_is_stale_whatever_the_state(kind: type[Command], state: State, wrong: str) -> None:
    story = in_state(state)
    fence, token = story.pair()
    command = _command(kind, story)._replace(  # type: ignore[call-arg]  # these five have tokens
        fence=fence + 1 if wrong != "token" else fence, lease_token="x" if wrong != "fence" else token
    )
    decision = story.send(command)
    assert (decision.reply.word, decision.reply.refused) == ("stale_fence", True)
    assert not decision.events


def test_the_same_request_gets_the_same_grant() -> None:
    story = in_state(State.RUNNING)
    first = story.effect
    story.now += 1_000
    again = story.send(Lease(60_000, "request-1"))
    assert again.reply.word == "granted"
    assert again.effect == first
    assert not again.events


def test_the_same_request_after_its_lease_ran_out_gets_its_grant_with_a_new_expiry() -> None:
    story = in_state(State.EXPIRED)
    first = story.effect
    assert first is not None
    again = story.send(Lease(60_000, "request-1"))
    assert again.effect == first._replace(lease_expires_at=story.now + 30_000, event_count=2, updated_at=story.now)
    assert [event.type for event in again.events] == [EventType.LEASE_RENEWED]


def test_requests_without_a_key_are_never_the_same() -> None:
    story = Story()
    story.send(Lease())
    assert story.send(Lease()).reply.word == "lease_conflict"


def test_a_take_over_tells_whose_lease_ran_out() -> None:
    story = in_state(State.EXPIRED)
    decision = story.send(Lease(5_000, "request-2", Labels(agent_id="b")))
    expired, granted = decision.events
    assert (expired.type, expired.fence, expired.agent_id) == (EventType.LEASE_EXPIRED, 1, "a")
    assert (granted.type, granted.fence, granted.agent_id) == (EventType.LEASE_GRANTED, 2, "b")
    assert granted.detail["priorState"] == "expired"


def test_a_zombie_is_refused_after_a_take_over_a_reset_and_a_resolve() -> None:
    for state, then in ((State.EXPIRED, Lease()), (State.FAILED, Reset()), (State.EXPIRED, Resolve(RESULT))):
        story = in_state(state)
        old = story.pair()
        story.send(then)
        assert story.send(Commit(*old, OTHER)).reply.word == "stale_fence"


@pytest.mark.parametrize(("mode", "prior"), [("verify", "expired"), ("retry", "reset")])
@pytest.mark.parametrize("state", [State.FAILED, State.EXPIRED, State.RUNNING], ids=lambda state: state.name)
def test_a_reset_decides_what_the_next_holder_is_told(state: State, mode: str, prior: str) -> None:
    story = in_state(state)
    old = story.pair()
    assert story.send(Reset("admin", "why", mode, force=True)).reply.word == "reset"
    assert story.events[-1].detail == {
        "actor": "admin",
        "reason": "why",
        "mode": mode,
        "forced": state is State.RUNNING or None,
        "expectedFence": None,
    }
    assert story.send(Commit(*old, OTHER)).reply.word == "stale_fence"
    granted = story.send(Lease())
    assert granted.effect is not None
    assert granted.effect.prior_state == prior
    assert granted.effect.fence == old[0] + (1 if state is State.FAILED else 2)
    assert [event.type for event in granted.events] == [EventType.LEASE_GRANTED]


def test_a_reset_can_be_given_another_mode_before_the_next_grant() -> None:
    story = in_state(State.IDLE)
    assert story.send(Reset(mode="verify")).reply.word == "already_reset"
    assert story.send(Reset(mode="retry")).reply.word == "reset"
    assert story.send(Reset(mode="retry")).reply.word == "already_reset"
    assert story.effect is not None
    assert (story.effect.prior_state, story.effect.fence) == ("reset", 1)


@pytest.mark.parametrize("state", [State.COMMITTED, State.FAILED], ids=lambda state: state.name)
def test_a_purged_effect_is_never_granted_and_never_changes(state: State) -> None:
    story = in_state(state)
    assert story.effect is not None
    story.effect = story.effect._replace(result_text=None, error_text=None, input_text=None, purged_at=story.now)
    report = ReportObserve(*story.pair(), True)
    for command in (Lease(), report, Reset(), Reset(force=True, mode="retry"), Resolve(RESULT)):
        decision = story.send(command)
        assert (decision.reply.word, decision.reply.refused, decision.events) == ("effect_purged", True, ())
    again = story.send(Commit(*story.pair(), RESULT))
    assert again.reply.word == ("already_committed" if state is State.COMMITTED else "effect_finished")
    assert not again.events


def test_a_renewal_never_shortens() -> None:
    story = in_state(State.RUNNING)
    assert story.effect is not None
    before = story.effect.lease_expires_at
    story.send(Renew(*story.pair(), 5_000))
    assert story.effect.lease_expires_at == before


def test_whoever_is_told_renewed_has_what_it_asked_for() -> None:
    """However often it asks, and for whatever: its client counts on it, and nobody is granted before."""
    story, rng = in_state(State.RUNNING), random.Random(1)
    for _ in range(3_000):
        story.now += rng.choice([0, 1, 100, 2_000])
        extension = rng.choice([5_000, 5_001, 30_000, 60_000, 120_000])
        assert story.send(Renew(*story.pair(), extension)).reply.word == "renewed"
        assert story.effect is not None
        assert story.now + extension <= story.effect.lease_expires_at <= story.now + 150_000


def test_renewals_that_come_often_do_not_fill_the_trail() -> None:
    story = in_state(State.RUNNING)
    for _ in range(300):
        story.now += 10
        story.send(Renew(*story.pair()))
    assert len(story.events) == 2, "3 seconds of a lease of 30"
    story.now += 3_600_000
    for _ in range(10_000):
        story.now += 30
        story.send(Renew(*story.pair(), 30_000))
    assert len(story.events) < 3 + 300_000 / 7_500 + 2


@pytest.mark.parametrize("fraction", [0.3, 0.5, 0.9])
@pytest.mark.parametrize("duration_ms", [5_000, 120_000])
def test_each_of_a_clients_renewals_is_in_the_trail(fraction: float, duration_ms: int) -> None:
    story = Story()
    story.send(Lease(duration_ms))
    for number in range(50):
        story.now += round(duration_ms * fraction)
        story.send(Renew(*story.pair(), duration_ms))
        assert len(story.events) == number + 2
        assert story.effect is not None
        assert story.effect.lease_expires_at == story.now + duration_ms


@pytest.mark.parametrize("state", [State.RUNNING, State.COMMITTED])
def test_a_grants_reports_do_not_fill_the_trail(state: State) -> None:
    story = in_state(state)
    before = len(story.events)
    for number in range(300):
        assert story.send(ReportObserve(*story.pair(), number % 2 == 0)).reply.word == "reported"
    assert len(story.events) == before + MAX_REPORTS


def test_the_next_grants_reports_are_recorded() -> None:
    story = in_state(State.RUNNING)
    for _ in range(2):
        for _ in range(MAX_REPORTS + 1):
            story.send(ReportObserve(*story.pair(), False))
        story.now += 30_000
        story.send(Lease(30_000))
    assert sum(event.type is EventType.OBSERVE_MISS for event in story.events) == 2 * MAX_REPORTS


def test_resolving_once_more_with_another_result_is_refused() -> None:
    story = in_state(State.FAILED)
    story.send(Resolve(RESULT, "admin"))
    assert story.send(Resolve(RESULT)).reply.word == "already_committed"
    assert story.send(Resolve(OTHER)).reply.word == "effect_finished"
    assert story.effect is not None
    assert (story.effect.result_text, story.effect.source) == (RESULT.text, "resolved")


def test_the_fold_notices_a_row_that_lies() -> None:
    story = in_state(State.COMMITTED)
    assert story.effect is not None
    for lie in (
        story.effect._replace(fence=2),
        story.effect._replace(status="FAILED"),
        story.effect._replace(result_sha256="x"),
        story.effect._replace(event_count=3),
        story.effect._replace(lease_expires_at=1),
    ):
        assert not agrees_with_its_events(lie, story.events)
    assert fold([]).status == "IDLE"


def test_no_repr_shows_a_payload_or_a_token() -> None:
    story = in_state(State.COMMITTED)
    assert "id" not in repr(RESULT)
    assert repr(story.effect) == "<Effect eff_0000000000000007 COMMITTED fence=1>"


@pytest.mark.parametrize("number", [0, 7, 2**63 - 1])
def test_an_id_reads_back(number: int) -> None:
    assert parse_effect_id(format_effect_id(number)) == number


@pytest.mark.parametrize(
    "text",
    [
        "",
        "eff_",
        "eff_7",
        "eff_000000000000000G",
        "EFF_0000000000000007",
        "eff_ffffffffffffffff",
        "eff_+00000000000007",
    ],
)
def test_what_is_no_id_is_none(text: str) -> None:
    assert parse_effect_id(text) is None


def test_an_effect_in_doubt_that_a_holder_gives_back_needs_a_person_after_a_reset_as_well() -> None:
    story = in_state(State.IDLE)  # failed, and reset with mode `verify`
    story.send(Lease(30_000, "request-2"))
    story.send(Release(*story.pair(), "no"))
    assert story.effect is not None
    assert story.effect.shown_status(story.now) == "EXPIRED"
    assert story.effect.lease_expires_at <= story.now
    assert story.send(Resolve(RESULT, "admin", None)).reply.word == "resolved"


def in_grace() -> Story:
    """The lease expired in an outage, in which it had 20 of its 30 seconds left. The grace ends 20 seconds after it."""
    story = in_state(State.EXPIRED)
    story.now = NOW + 100_000
    story.outages = [Outage(NOW + 10_000, story.now)]
    return story


@pytest.mark.parametrize("kind", [Lease, Reset, Resolve], ids=lambda kind: kind.__name__)
def test_nobody_takes_a_lease_away_that_expired_in_an_outage_before_its_holder_had_its_time(
    kind: type[Command],
) -> None:
    story = in_grace()
    before = story.effect
    assert before is not None
    for pause in (0, 19_999):
        story.now = NOW + 100_000 + pause
        decision = story.send(_command(kind, story))
        assert decision.reply == Reply("lease_conflict", refused=True, in_grace=True)
        assert decision.effect == before._replace(lease_expires_at=NOW + 120_000), "what the answer tells"
        assert decision.events == ()
    story.now += 1
    assert not story.send(_command(kind, story)).reply.refused


@pytest.mark.parametrize("kind", [Commit, Fail, Renew, ReportObserve], ids=lambda kind: kind.__name__)
def test_a_holder_does_in_its_grace_what_it_always_may(kind: type[Command]) -> None:
    story = in_grace()
    assert story.send(_command(kind, story)).reply.word == EXPECTED[kind].split()[ALL.index(State.EXPIRED)]


def test_a_holder_that_renewed_in_its_grace_has_a_lease_as_any_other() -> None:
    story = in_grace()
    story.send(Renew(*story.pair(), 5_000))
    story.now += 5_000
    assert story.send(Lease()).reply.word == "granted"


def test_the_same_request_gets_its_grant_in_its_grace() -> None:
    story = in_grace()
    assert story.send(Lease(30_000, "request-1")).reply.word == "granted"
    assert story.effect is not None
    assert (story.effect.fence, story.effect.lease_expires_at) == (1, story.now + 30_000)


def test_a_forced_reset_ends_the_grace_and_says_that_it_was_forced() -> None:
    story = in_grace()
    decision = story.send(Reset("admin", None, force=True))
    assert decision.reply.word == "reset"
    assert decision.events[0].detail["forced"] is True
    story = in_state(State.EXPIRED)
    assert story.send(Reset("admin", None, force=True)).events[0].detail["forced"] is None
