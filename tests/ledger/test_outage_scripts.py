"""A holder that renews when it can keeps its lease, whatever the clock and the node do; a rival gets it soon after."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ledger.test_heartbeat import Machine
from verity._ledger.outages import LONGEST_PAUSE_MS

STEP_MS = 250
LEASE_MS = 5_000
RENEWS_AFTER_MS = 3_250
RETRIES_AFTER_MS = 500
EVENTS = st.one_of(
    st.tuples(st.just("run"), st.sampled_from([250, 1_000, 3_000, 5_000, 12_000])),
    st.tuples(st.just("jump"), st.sampled_from([-100_000, -3_000, -400, 300, 900, 1_100, 2_000, 6_000, 100_000])),
    st.tuples(st.just("away"), st.sampled_from([2_000, 4_000, 7_000, 60_000])),
)


class Story:
    """A holder that renews as a client does, and a rival that asks for its lease in every step.

    The pauses of a node are outages. Several short ones in a row, which are none, may take a lease away.
    """

    def __init__(self, *, served: bool) -> None:
        self.machine = Machine(None)
        self._served = served
        self._node = self.machine.start_process(is_node=served)
        self._lease = self._node.call("lease_effect", {"effectKey": "k", "leaseDurationMs": LEASE_MS})
        self._renew_at = self.machine.steady() + RENEWS_AFTER_MS

    def run(self, ms: int) -> None:
        """Time passes."""
        for _ in range(ms // STEP_MS):
            self.machine.advance(STEP_MS)
            self._ask()
            if self.machine.steady() >= self._renew_at:
                self._node.call("renew_effect", self._node.call.tokens(self._lease))
                self._renew_at = self.machine.steady() + RENEWS_AFTER_MS

    def jump(self, ms: int) -> None:
        """The wall clock is set, and the rival comes first."""
        self.machine.jump(ms)
        self._ask()

    def away(self, ms: int) -> None:
        """The node is frozen, and the rival comes first when it is back. Only a node can be away."""
        if self._served:
            self.machine.advance(ms)
            self._ask()
            self._renew_at = max(self._renew_at, self.machine.steady() + RETRIES_AFTER_MS)

    def end(self) -> None:
        """The holder has died."""
        rest_ms = max(self._node.remaining_ms(), LEASE_MS)
        for _ in range(rest_ms // STEP_MS + 1):
            self.machine.advance(STEP_MS)
            if self._served:
                self._node.store.beat()
        assert self._node.lease() == "granted", "a dead holder keeps its effect for no longer than a lease"

    def _ask(self) -> None:
        assert self._node.lease() != "granted", "the holder is alive"
        if self._served:
            self._node.store.beat()


@pytest.mark.parametrize("served", [False, True], ids=["embedded", "served"])
def test_a_holder_that_renews_when_it_can_keeps_its_lease(served: bool) -> None:
    assert RENEWS_AFTER_MS + LONGEST_PAUSE_MS < LEASE_MS, "what is no outage takes no lease away"

    @settings(max_examples=settings().max_examples // 2, deadline=None)
    @given(st.lists(EVENTS, max_size=12))
    def check(events: list[tuple[str, int]]) -> None:
        story = Story(served=served)
        for name, ms in events:
            getattr(story, name)(ms)
        story.end()
        story.machine.stores[0].close()

    check()
