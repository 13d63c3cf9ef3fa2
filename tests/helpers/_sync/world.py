# Made from tests/helpers/_async/world.py by scripts/mirror.py. Do not edit.
"""The test bench of the client: a served ledger, a transport with faults, virtual time and a counted outside world."""

from __future__ import annotations

from typing import Any

import httpx

from tests.helpers._sync.faulty_transport import SyncFaultyTransport
from tests.helpers._sync.virtual_runtime import SyncVirtualRuntime
from tests.helpers.served_ledger import ServedLedger, TestClock
from verity import ConflictRetryConfig, SyncVerityClient


class SyncWorld:
    """A client, its network, its time, and an outside world in which effects are counted."""

    def __init__(
        self,
        key: str,
        ledger: ServedLedger,
        clock: TestClock,
        runtime: SyncVirtualRuntime,
        network: SyncFaultyTransport,
        api_key: str,
    ) -> None:
        self.key = key
        self.ledger = ledger
        self.clock = clock
        self.runtime = runtime
        self.network = network
        self.api_key = api_key
        self.acts: list[str] = []
        self._clients: list[SyncVerityClient] = []
        self.client = self.new_client()

    def new_client(self, **settings: Any) -> SyncVerityClient:
        """Another client on the same network, closed with the test."""
        arguments = {
            "base_url": self.ledger.base_url,
            "api_key": self.api_key,
            "namespace": "payments",
            "transport": self.network,
            "_runtime": self.runtime,
            "conflict_retry": ConflictRetryConfig(wait=False),  # the ledger would hold requests in real time
        }
        client = SyncVerityClient(**{**arguments, **settings})
        self._clients.append(client)
        return client

    def act(self) -> dict[str, str]:
        """The effect itself."""
        self.acts.append(self.key)
        return {"refund": f"re_{len(self.acts)}"}

    def find(self) -> dict[str, str] | None:
        """What `observe` finds of it in the outside world."""
        return {"refund": "re_1"} if self.acts else None

    def crash_after_act(self, key: str | None = None) -> None:
        """A predecessor takes the lease, acts, and dies before it commits; its lease expires."""
        self.client.request_lease("payments", {"effectKey": key or self.key, "leaseDurationMs": 5000})
        self.act()
        self.clock.advance(5000)

    def leave_in_doubt(self, key: str | None = None) -> None:
        """A predecessor takes the lease and dies; its lease expires. None of it is among what the network sent."""
        with httpx.Client(headers={"Authorization": f"Bearer {self.api_key}"}) as http:
            body = {"effectKey": key or self.key, "leaseDurationMs": 5000}
            answer = http.post(f"{self.ledger.base_url}/effects/payments/lease", json=body)
        assert answer.status_code == 200, answer.text
        self.clock.advance(5000)

    def read(self, path: str, **query: str) -> Any:
        """Ask the ledger itself."""
        with httpx.Client(headers={"Authorization": f"Bearer {self.api_key}"}) as http:
            answer = http.get(f"{self.ledger.base_url}/effects/payments/{path}", params=query)
        return answer.json()

    def effect(self) -> Any:
        """The effect as the ledger has it."""
        return self.read("effect", effectKey=self.key)

    def events(self) -> list[str]:
        """The types of the effect's audit events."""
        page = self.read("events", effectKey=self.key)
        return [event["type"] for event in page["items"]]

    def reset(self, *, force: bool = False, mode: str = "verify") -> None:
        """An admin lets the effect be tried again; with force, also from under a live lease."""
        with httpx.Client(headers={"Authorization": f"Bearer {self.api_key}"}) as http:
            answer = http.post(
                f"{self.ledger.base_url}/effects/payments/reset",
                json={"effectKey": self.key, "force": force, "mode": mode},
            )
        assert answer.status_code == 200, answer.text

    def close(self) -> None:
        for client in self._clients:
            client.close()
