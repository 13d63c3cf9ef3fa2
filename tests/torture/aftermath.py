"""The person who settles what was left open, as an operator does: look at the world, then resolve or reset.

Nobody is asked twice about an effect, and none is lost: afterwards, each effect is committed, and has been acted on.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.torture.history import ASKED, BEGUN, LEASED, OVER
from tests.torture.notes import Notes
from tests.torture.plan import ASSUMED_DELAY_S
from tests.torture.records import read_undecided
from verity import LeaseConflictError, LeaseResponse, SyncVerityClient, VerityApiError, VerityConnectionError

PERSON = "person"
_LOOK_AGAIN_S = 0.2
_OF_THE_LEDGER = (LeaseConflictError, VerityConnectionError)


class Person:
    """Settles the effects that no client may go on with.

    Args:
        database: where the rows are; the list comes from there.
        client: an admin's.
        notes: a worker's, for acts of this person.
        ask: sends the world a line, and returns its answer.
        world_log: all acts.

    Attributes:
        decided: how many effects were resolved, reset, or just done, by what.
    """

    def __init__(
        self, database: str, client: SyncVerityClient, notes: Notes, ask: Callable[[str], str], world_log: Path
    ) -> None:
        self._database = database
        self._client = client
        self._notes = notes
        self._ask = ask
        self._world_log = world_log
        self.decided: Counter[str] = Counter()

    def settle(self, go_on: Callable[[], None]) -> None:
        """Return once every effect is committed.

        Args:
            go_on: called again and again; raises if there is no more time.
        """
        time.sleep(ASSUMED_DELAY_S)  # whatever was under way has landed
        while keys := read_undecided(self._database):
            acts = self._acts()
            for key in keys:
                try:
                    self._settle(key, acts.get(key))
                except _OF_THE_LEDGER:
                    pass  # a lease that still lives, or a node that is not back yet: asked again below
                except VerityApiError as error:
                    if error.status_code != 503:
                        raise
            go_on()
            time.sleep(_LOOK_AGAIN_S)

    def _settle(self, key: str, act: str | None) -> None:
        seen = self._client.effects.get(key)
        if act is not None:
            result = {"id": act, "by": PERSON}
            self._client.effects.resolve(key, result, reason="it is in the world", expected_fence=seen.fence_token)
            self.decided["resolved: it had happened"] += 1
            self._notes.note(-1, key, result)
            return
        if seen.status != "IDLE":
            self._client.effects.reset(
                key, mode="retry", reason="it is not in the world", expected_fence=seen.fence_token
            )
        self._protect(key)
        self.decided["reset and done: it had not happened"] += 1

    def _protect(self, key: str) -> None:
        fence = 0

        def remember(lease: LeaseResponse) -> None:
            nonlocal fence
            fence = int(lease.fence_token or 0)
            self._notes.mark(-1, LEASED, key, fence)

        def act() -> Any:
            self._notes.mark(-1, BEGUN, key, fence)
            return {"id": self._ask(f"act {key} {fence} -"), "by": PERSON}

        self._notes.mark(-1, ASKED, key, 0)
        result = self._client.protect(key, act=act, on_lease=remember, on_conflict="throw")
        self._notes.mark(-1, OVER, key, fence)
        self._notes.note(-1, key, result)

    def _acts(self) -> dict[str, str]:
        acts: dict[str, str] = {}
        for line in self._world_log.read_text().splitlines():
            key, _, act, *_ = line.split()
            acts.setdefault(key, act)
        return acts
