"""Every recorded exchange: it follows the contract, the generated client reads and sends it, and it holds no secret."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from verity_api import AuthenticatedClient, models
from verity_api.api.effects import (
    commit_effect,
    fail_effect,
    lease_effect,
    release_effect,
    renew_effect,
    report_observe,
)

from tests.helpers import openapi
from tests.helpers.cassettes import BASE_URL, CASSETTES, OLDER, cassette

CALLS: dict[str, tuple[Any, str]] = {
    "lease": (lease_effect, "Lease"),
    "commit": (commit_effect, "Commit"),
    "fail": (fail_effect, "Fail"),
    "release": (release_effect, "Release"),
    "renew": (renew_effect, "Renew"),
    "report-observe": (report_observe, "ReportObserve"),
}
TAPES = sorted(CASSETTES.glob("*.yaml"))
OLDER_TAPES = sorted(OLDER.glob("*.yaml"))
by_tape = pytest.mark.parametrize("tape", [*TAPES, *OLDER_TAPES], ids=lambda tape: f"{tape.parent.name}-{tape.stem}")


def exchanges(tape: Path) -> list[tuple[str, str, Any, int, Any]]:
    """(namespace, call, request body, status, answer) of each."""
    found = []
    for each in yaml.safe_load(tape.read_text(encoding="utf-8"))["interactions"]:
        namespace, call = each["request"]["uri"].removeprefix(f"{BASE_URL}/effects/").split("/")
        status, answer = each["response"]["status"]["code"], json.loads(each["response"]["body"]["string"])
        found.append((namespace, call, json.loads(each["request"]["body"]), status, answer))
    return found


def test_every_call_of_the_clients_is_recorded() -> None:
    recorded = {(call, status) for tape in TAPES for _, call, _, status, _ in exchanges(tape)}
    assert {call for call, status in recorded if status == 200} == set(CALLS)
    assert {status for _, status in recorded} == {200, 404, 409}


@by_tape
def test_it_follows_the_contract(tape: Path) -> None:
    for _, call, request, status, answer in exchanges(tape):
        kind = CALLS[call][1]
        openapi.validate(f"#/components/schemas/{kind}Request", request)
        openapi.validate(f"#/components/schemas/{kind}Reply" if status == 200 else PROBLEM, answer)


PROBLEM = "#/components/schemas/Problem"


def replay(tape: Path, send: Callable[[Any, str, AuthenticatedClient, Any], Any]) -> None:
    client = AuthenticatedClient(base_url=BASE_URL, token="vt_test_any")
    with cassette(tape.stem, tape.parent) as playing, client:
        for namespace, call, request, status, answer in exchanges(tape):
            module, kind = CALLS[call]
            response = send(module, namespace, client, getattr(models, f"{kind}Request").from_dict(request))
            assert response.status_code == status
            assert (response.parsed and response.parsed.to_dict()) == (answer if status == 200 else None)
        assert playing.all_played


@by_tape
def test_the_generated_client_replays_it(tape: Path) -> None:
    replay(tape, lambda module, namespace, client, body: module.sync_detailed(namespace, client=client, body=body))


@by_tape
def test_the_generated_async_client_replays_it(tape: Path) -> None:
    def send(module: Any, namespace: str, client: AuthenticatedClient, body: Any) -> Any:
        async def call() -> Any:
            fresh = AuthenticatedClient(base_url=BASE_URL, token="vt_test_any")
            async with fresh:
                return await module.asyncio_detailed(namespace, client=fresh, body=body)

        return asyncio.run(call())

    replay(tape, send)


@by_tape
def test_it_holds_no_secret(tape: Path) -> None:
    text = tape.read_text(encoding="utf-8")
    assert not re.search(r"vt_(test|live)_|bearer|authorization|idempotency-key|127\.0\.0\.1", text, re.IGNORECASE)
    tokens = re.findall(r'"leaseToken":\s*(null|"[^"]*")', text)
    assert tokens
    assert all(token == "null" or re.fullmatch(r'"lease-token-\d+"', token) for token in tokens)
