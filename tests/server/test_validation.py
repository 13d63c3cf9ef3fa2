"""What breaks the contract is a 400 that says where, and never repeats what was sent."""

from __future__ import annotations

import json
import random
from typing import Any

import httpx
import pytest

from tests.conftest import both_stores
from tests.helpers.openapi import SPEC, resolve
from tests.helpers.served_ledger import ServedLedger
from tests.server.conftest import Client

SECRET = "do-not-repeat-me"
COMMIT = {"effectKey": "a", "fenceToken": 1, "leaseToken": "t", "result": None}


def details_of(response: httpx.Response) -> list[str]:
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["code"] == "invalid_request"
    assert SECRET not in response.text
    return [detail["path"] for detail in error["details"]]


@pytest.mark.parametrize(
    ("path", "body", "places"),
    [
        ("lease", {}, ["body"]),
        ("lease", {"effectKey": ""}, ["body/effectKey"]),
        ("lease", {"effectKey": None}, ["body/effectKey"]),
        ("lease", {"effectKey": [SECRET]}, ["body/effectKey"]),
        ("lease", {"effectKey": SECRET + "x" * 1024}, ["body/effectKey"]),
        ("lease", {"effectKey": "a", "leaseDurationMs": 4999}, ["body/leaseDurationMs"]),
        ("lease", {"effectKey": "a", "leaseDurationMs": 120_001}, ["body/leaseDurationMs"]),
        ("lease", {"effectKey": "a", "leaseDurationMs": "30000"}, ["body/leaseDurationMs"]),
        ("lease", {"effectKey": "a", "leaseDurationMs": 30_000.5}, ["body/leaseDurationMs"]),
        ("lease", {"effectKey": "a", "leaseDurationMs": True}, ["body/leaseDurationMs"]),
        ("lease", {"effectKey": "a", "agentId": SECRET + "x" * 256, "runId": ""}, ["body/agentId", "body/runId"]),
        ("lease", {"effectKey": "a\0", "runId": "\0"}, ["body/effectKey", "body/runId"]),
        ("commit", {**COMMIT, "leaseToken": "a\0b"}, ["body/leaseToken"]),
        ("reset", {"effectKey": "a", "reason": "a\0"}, ["body/reason"]),
        ("commit", {**COMMIT, "fenceToken": 0}, ["body/fenceToken"]),
        ("commit", {**COMMIT, "fenceToken": SECRET, "leaseToken": ""}, ["body/fenceToken", "body/leaseToken"]),
        ("commit", {**COMMIT, "source": SECRET}, ["body/source"]),
        ("commit", {name: COMMIT[name] for name in ("effectKey", "fenceToken", "leaseToken")}, ["body"]),
        ("fail", COMMIT, ["body"]),
        ("renew", {**COMMIT, "extensionMs": 10**30}, ["body/extensionMs"]),
        ("report-observe", {**COMMIT, "hit": SECRET}, ["body/hit"]),
        ("report-observe", {**COMMIT, "hit": True, "durationMs": -1}, ["body/durationMs"]),
    ],
)
def test_bodies(path: str, body: dict[str, Any], places: list[str], admin: httpx.Client) -> None:
    assert sorted(details_of(admin.post(f"/effects/payments/{path}", json=body))) == places


def test_the_first_place_is_in_the_message(admin: httpx.Client) -> None:
    one = admin.post("/effects/payments/lease", json={"effectKey": "k", "leaseDurationMs": 1}).json()["error"][
        "message"
    ]
    assert one == "The request breaks the API's rules. body/leaseDurationMs: the value is less than the minimum of 5000"
    two = admin.post("/effects/payments/lease", json={"leaseDurationMs": 1}).json()["error"]["message"]
    assert two.endswith(" (and 1 more)")


def test_a_nul_character_is_named(agent: httpx.Client) -> None:
    response = agent.post("/effects/payments/lease", json={"effectKey": "a\0"})
    assert response.json()["error"]["details"] == [
        {"path": "body/effectKey", "message": "must not have a NUL character"}
    ]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b'{"effectKey":"do-not-repeat-me"',
        b'{"effectKey":"do-not-repeat-me","effectKey":"b"}',
        b'{"effectKey":"a","inputJson":{"do-not-repeat-me":1,"do-not-repeat-me":1}}',
        b'{"effectKey":"a","inputJson":NaN}',
        b'{"effectKey":"do-not-repeat-me\\ud800"}',
        b'{"effectKey":"\xff"}',
        b'{"effectKey":"a","inputJson":' + b"[" * 202 + b"]" * 202 + b"}",
        b'{"effectKey":"a","inputJson":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_bodies_that_are_no_json_objects(body: bytes, agent: httpx.Client) -> None:
    response = agent.post("/effects/payments/lease", content=body, headers={"Content-Type": "application/json"})
    assert details_of(response) == ["body"]


@pytest.mark.parametrize("content_type", ["text/plain", "application/xml", "application/json; charset=latin-1", ""])
def test_other_content_types(content_type: str, agent: httpx.Client) -> None:
    response = agent.post("/effects/payments/lease", json={"effectKey": "a"}, headers={"Content-Type": content_type})
    assert details_of(response) == ["header/Content-Type"]


@pytest.mark.parametrize(
    ("path", "query", "places"),
    [
        ("/effects", "limit=0", ["query/limit"]),
        ("/effects", "limit=501", ["query/limit"]),
        ("/effects", "limit=do-not-repeat-me", ["query/limit"]),
        ("/effects", "limit=1_0", ["query/limit"]),
        ("/effects", "limit=" + "9" * 5000, ["query/limit"]),
        ("/effects", "limit=", ["query/limit"]),
        ("/effects", "limit=1&limit=2", ["query/limit"]),
        ("/effects", "do-not-repeat-me=1", ["query"]),
        ("/effects", "status=do-not-repeat-me", ["query/status"]),
        ("/effects", "cursor=do-not-repeat-me&search=", ["query/cursor", "query/search"]),
        ("/effects", "namespace=a%2Fb", ["query/namespace"]),
        ("/effects", "search=%FF", ["query"]),
        ("/effects", "search=a%00b&runId=%00", ["query/runId", "query/search"]),
        ("/effects", "&".join(f"a{n}=1" for n in range(60)), ["query"]),
        ("/effects", "since=do-not-repeat-me", ["query/since"]),
        ("/effects", "since=2026-01-31&until=2026-01-31T12:00:00", ["query/since", "query/until"]),
        ("/effects", "since=2026-02-30T12:00:00Z", ["query/since"]),
        ("/stats", "since=0001-01-01T00:00:00%2B14:00", ["query/since"]),
        ("/stats", "since=9999-12-31T23:59:59-14:00", ["query/since"]),
        ("/effects/payments/effect", "", ["query/effectKey"]),
        ("/cases", "", ["query/workflowName"]),
    ],
)
def test_queries(path: str, query: str, places: list[str], agent: httpx.Client) -> None:
    assert sorted(details_of(agent.get(f"{path}?{query}" if query else path))) == places


@pytest.mark.parametrize("since", ["0001-01-01T00:00:00.000Z", "9999-12-31T23:59:59.999Z"])
@both_stores
def test_the_ends_of_time(since: str, agent: httpx.Client) -> None:
    assert agent.get("/stats", params={"since": since}).json()["since"] == since
    assert agent.get("/stats", params={"since": "9999-12-31t23:59:59.999999999-00:00"}).status_code == 200
    assert agent.get("/effects", params={"since": since, "until": since}).json() == {"items": []}


@pytest.mark.parametrize("key", [b"", b"x" * 129, b"do-not-repeat-me \xe9"])
def test_headers(key: bytes, agent: httpx.Client) -> None:
    response = agent.post("/effects/payments/lease", json={"effectKey": "a"}, headers=[(b"idempotency-key", key)])
    assert set(details_of(response)) == {"header/Idempotency-Key"}


def test_a_read_takes_no_body(agent: httpx.Client) -> None:
    assert details_of(agent.request("GET", "/namespaces", content=b"{}")) == ["body"]


def test_fields_that_are_not_known_yet_are_ignored(agent: httpx.Client, effect_key: str) -> None:
    response = agent.post("/effects/payments/lease", json={"effectKey": effect_key, "fromTheFuture": {"a": 1}})
    assert response.status_code == 200


@both_stores
def test_mutilated_bodies_never_hurt(agent: httpx.Client) -> None:
    """A fixed seed: what it finds once, it finds again."""
    rng = random.Random(20260131)
    pieces = [
        b"{",
        b"}",
        b"[",
        b"]",
        b'"',
        b"\\",
        b":",
        b",",
        b"\x00",
        b"\xff",
        b"\\ud800",
        b"1e999",
        b"-",
        b"NaN",
        b"null",
    ]
    whole = json.dumps(
        {"effectKey": "fuzz", "leaseDurationMs": 5000, "inputJson": {"a": [1, 2.5, "é", None, True]}, "agentId": "w"}
    ).encode()
    for _ in range(300):
        body = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            place = rng.randrange(len(body))
            body[place : place + rng.randint(0, 3)] = rng.choice(pieces)
        response = agent.post("/effects/fuzz/lease", content=bytes(body), headers={"Content-Type": "application/json"})
        assert response.status_code in (200, 400, 409), bytes(body)


@both_stores
def test_values_of_every_type_in_every_place(agent: httpx.Client, admin: httpx.Client) -> None:
    values: list[Any] = [
        None,
        True,
        0,
        -1,
        1.5,
        10**25,
        "",
        "x",
        "x" * 2000,
        [],
        {},
        [[]],
        "\x00",
        "\ud7ff",
        2**63,
        -(2**63),
    ]
    for call in ("lease", "commit", "fail", "renew", "report-observe", "reset", "resolve"):
        about = SPEC["paths"][f"/effects/{{namespace}}/{call}"]["post"]["requestBody"]["content"]["application/json"]
        for field in resolve(about["schema"]["$ref"])["properties"]:
            for value in values:
                body = {**COMMIT, "error": 1, "hit": True, field: value}
                response = admin.post(f"/effects/types/{call}", json=body)
                assert response.status_code in (200, 400, 404, 409), (call, field, value)


def test_the_server_still_answers_after_bytes_that_are_no_http(served: ServedLedger, client_with: Client) -> None:
    import socket

    host, port = httpx.URL(served.base_url).host, httpx.URL(served.base_url).port
    assert port is not None
    for junk in (
        b"\x16\x03\x01\x02\x00",
        b"GET\r\n\r\n",
        b"POST /v1/effects/a/lease HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    ):
        with socket.create_connection((host, port), timeout=30) as connection:
            connection.sendall(junk)
            connection.shutdown(socket.SHUT_WR)
            assert b"Traceback" not in connection.recv(65536)
    with socket.create_connection((host, port), timeout=30) as connection:  # leaves in the middle of a body
        connection.sendall(b"POST /v1/effects/a/lease HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    assert client_with(served.create_key()).get("/namespaces").status_code == 200
