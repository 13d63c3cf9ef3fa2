"""The test bench of the client: a served ledger, a transport with faults, virtual time and a counted outside world."""

from __future__ import annotations

from typing import Any

import httpx

from tests.helpers._async.faulty_transport import AsyncFaultyTransport
from tests.helpers._async.virtual_runtime import AsyncVirtualRuntime
from tests.helpers.served_ledger import ServedLedger, TestClock
from verity import ConflictRetryConfig, VerityClient


class AsyncWorld:
    """A client, its network, its time, and an outside world in which effects are counted."""

    def __init__(
        self,
        key: str,
        ledger: ServedLedger,
        clock: TestClock,
        runtime: AsyncVirtualRuntime,
        network: AsyncFaultyTransport,
        api_key: str,
    ) -> None:
        self.key = key
        self.ledger = ledger
        self.clock = clock
        self.runtime = runtime
        self.network = network
        self.api_key = api_key
        self.acts: list[str] = []
        self._clients: list[VerityClient] = []
        self.client = self.new_client()

    def new_client(self, **settings: Any) -> VerityClient:
        """Another client on the same network, closed with the test."""
        arguments = {
            "base_url": self.ledger.base_url,
            "api_key": self.api_key,
            "namespace": "payments",
            "transport": self.network,
            "_runtime": self.runtime,
            "conflict_retry": ConflictRetryConfig(wait=False),  # the ledger would hold requests in real time
        }
        client = VerityClient(**{**arguments, **settings})
        self._clients.append(client)
        return client

    async def act(self) -> dict[str, str]:
        """The effect itself."""
        self.acts.append(self.key)
        return {"refund": f"re_{len(self.acts)}"}

    async def find(self) -> dict[str, str] | None:
        """What `observe` finds of it in the outside world."""
        return {"refund": "re_1"} if self.acts else None

    async def crash_after_act(self, key: str | None = None) -> None:
        """A predecessor takes the lease, acts, and dies before it commits; its lease expires."""
        await self.client.request_lease("payments", {"effectKey": key or self.key, "leaseDurationMs": 5000})
        await self.act()
        self.clock.advance(5000)

    async def leave_in_doubt(self, key: str | None = None) -> None:
        """A predecessor takes the lease and dies; its lease expires. None of it is among what the network sent."""
        async with httpx.AsyncClient(headers={"Authorization": f"Bearer {self.api_key}"}) as http:
            body = {"effectKey": key or self.key, "leaseDurationMs": 5000}
            answer = await http.post(f"{self.ledger.base_url}/effects/payments/lease", json=body)
        assert answer.status_code == 200, answer.text
        self.clock.advance(5000)

    async def read(self, path: str, **query: str) -> Any:
        """Ask the ledger itself."""
        async with httpx.AsyncClient(headers={"Authorization": f"Bearer {self.api_key}"}) as http:
            answer = await http.get(f"{self.ledger.base_url}/effects/payments/{path}", params=query)
        return answer.json()

    async def effect(self) -> Any:
        """The effect as the ledger has it."""
        return await self.read("effect", effectKey=self.key)

    async def events(self) -> list[str]:
        """The types of the effect's audit events."""
        page = await self.read("events", effectKey=self.key)
        return [event["type"] for event in page["items"]]

    async def reset(self, *, force: bool = False, mode: str = "verify") -> None:
        """An admin lets the effect be tried again; with force, also from under a live lease."""
        async with httpx.AsyncClient(headers={"Authorization": f"Bearer {self.api_key}"}) as http:
            answer = await http.post(
                f"{self.ledger.base_url}/effects/payments/reset",
                json={"effectKey": self.key, "force": force, "mode": mode},
            )
        assert answer.status_code == 200, answer.text

    async def close(self) -> None:
        for client in self._clients:
            await client.close()
