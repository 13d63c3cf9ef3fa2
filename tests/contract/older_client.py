"""A program for the client of an older version: `python older_client.py VERITY_DIRECTORY BASE_URL API_KEY`.

It uses only what that version had, and prints what came of each call as one JSON object.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from pathlib import Path
from typing import Any

import verity
from verity import ConflictRetryConfig, EffectPreviouslyFailedError, LeaseResponse, SyncVerityClient

_PATIENT = ConflictRetryConfig(max_attempts=100, initial_delay_s=0.05, max_delay_s=1.0)


class Calls:
    """One client, and what its calls did."""

    def __init__(self, client: SyncVerityClient) -> None:
        self._client = client
        self.acts: list[str] = []
        self.prior_states: dict[str, str | None] = {}

    def call(self, key: str, observe: Any = None) -> Any:
        """Protect an effect that is named by what happens to it."""

        def act() -> str:
            self.acts.append(key)
            return f"acted on {key}"

        def remember(lease: LeaseResponse) -> None:
            self.prior_states[key] = lease.prior_state

        return self._client.protect(key, act=act, observe=observe, on_lease=remember)

    def fail(self, key: str) -> str:
        """How an effect ends that fails, and is called again."""

        def decline() -> None:
            raise LookupError("card expired")

        with contextlib.suppress(LookupError):
            self._client.protect(key, act=decline)
        try:
            self.call(key)
        except EffectPreviouslyFailedError as error:
            return type(error).__name__
        return "acted"


def main() -> None:
    directory, base_url, api_key = sys.argv[1:]
    assert Path(verity.__file__).is_relative_to(directory), verity.__file__
    with SyncVerityClient(base_url, api_key, "payments", conflict_retry=_PATIENT) as client:
        calls = Calls(client)
        results = {
            "new": [calls.call("new"), calls.call("new")],
            "failing": calls.fail("failing"),
            "in doubt, and it happened": calls.call("in doubt, and it happened", observe=lambda: "observed"),
            "in doubt, and it did not": calls.call("in doubt, and it did not", observe=lambda: None),
        }
        together: list[Any] = []
        threads = [threading.Thread(target=lambda: together.append(calls.call("together"))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        results["together"] = together
    print(json.dumps({"results": results, "acts": sorted(calls.acts), "priorStates": calls.prior_states}))  # noqa: T201


if __name__ == "__main__":
    main()
