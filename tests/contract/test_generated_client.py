"""The generated client alone, over httpx: what its templates promise, and what a newer or broken ledger may answer."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import httpx
import pytest
from verity_api import AuthenticatedClient, Client
from verity_api.api.effects import commit_effect, lease_effect
from verity_api.api.reads import get_effect, list_effects
from verity_api.models import CommitRequest, LeaseReply, LeaseRequest
from verity_api.types import UNSET, Response

from tests.helpers.served_ledger import ServedLedger

KEY = "vt_test_secret"
GRANTED = {"status": "granted", "effectId": "eff_1", "effectKey": "k", "fenceToken": 1, "leaseToken": "secret token"}


def answering(**answer: Any) -> tuple[AuthenticatedClient, list[httpx.Request]]:
    requests: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(**answer)

    client = AuthenticatedClient(
        base_url="http://ledger/v1", token=KEY, httpx_args={"transport": httpx.MockTransport(handle)}
    )
    return client, requests


def lease(client: AuthenticatedClient) -> Response[LeaseReply]:
    return lease_effect.sync_detailed("payments", client=client, body=LeaseRequest(effect_key="k"))


def test_a_call_is_sent_as_the_contract_says() -> None:
    client, requests = answering(status_code=200, json=GRANTED)
    reply = lease_effect.sync(
        "a b/../c", client=client, body=LeaseRequest(effect_key="k", agent_id="a", input_json=None), idempotency_key="i"
    )
    (request,) = requests
    assert isinstance(reply, LeaseReply)
    assert request.url.raw_path == b"/v1/effects/a%20b%2F..%2Fc/lease", "a namespace never leaves its path"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["idempotency-key"] == "i"
    assert request.content == b'{"effectKey":"k","agentId":"a","inputJson":null}', "null is sent, what is unset is not"


def test_an_answer_is_parsed_and_keeps_what_is_new() -> None:
    client, _ = answering(status_code=200, json=GRANTED | {"status": "granted_twice", "moonPhase": "full"})
    reply = lease(client).parsed
    assert reply is not None
    assert (reply.status, reply.fence_token, reply.lease_token) == ("granted_twice", 1, "secret token")
    assert reply.lease_expires_at is UNSET
    assert reply.additional_properties == {"moonPhase": "full"}
    assert reply.to_dict() == GRANTED | {"status": "granted_twice", "moonPhase": "full"}


@pytest.mark.parametrize(
    "answer",
    [
        {"status_code": 520, "text": "<html>Unknown error</html>"},
        {"status_code": 499},
        {"status_code": 200, "text": "<html>Log in to the Wi-Fi</html>"},
        {"status_code": 200, "json": {"status": "granted"}},
        {"status_code": 200, "json": ["granted"]},
        {"status_code": 200, "json": None},
        {
            "status_code": 200,
            "content": b'{"status": "\xff"}',
            "headers": {"content-type": "application/json; charset=x"},
        },
        {"status_code": 409, "json": {"error": {"code": "lease_conflict", "message": "m"}, "requestId": "r"}},
        {"status_code": 409, "text": "<html>Conflict</html>"},
    ],
    ids=["520", "499", "html", "too little", "a list", "null", "charset", "problem", "html problem"],
)
def test_what_is_no_documented_success_is_not_parsed_and_not_raised(answer: dict[str, Any]) -> None:
    client, _ = answering(**answer)
    response = lease(client)
    assert response.parsed is None
    assert response.status_code == answer["status_code"]
    assert response.content == httpx.Response(**answer).content


def test_nothing_secret_is_in_a_repr() -> None:
    client, _ = answering(status_code=200, json=GRANTED)
    response = lease(client)
    body = CommitRequest(effect_key="k", fence_token=1, lease_token="secret token", result="secret result")
    shown = repr([client, response, response.parsed, body]) + str(client) + str(response)
    assert "secret" not in shown


def test_unset_keeps_its_identity() -> None:
    assert pickle.loads(pickle.dumps(UNSET)) is UNSET
    assert copy.deepcopy(UNSET) is UNSET
    body = copy.deepcopy(LeaseRequest(effect_key="k"))
    assert body.to_dict() == {"effectKey": "k"}


def test_there_is_a_timeout_unless_told_otherwise() -> None:
    http = Client(base_url="http://ledger/v1").get_httpx_client()
    assert isinstance(http, httpx.Client)
    assert http.timeout == httpx.Timeout(20.0)
    http.close()


def test_against_a_real_ledger() -> None:
    with (
        ServedLedger() as served,
        AuthenticatedClient(base_url=served.base_url, token=served.create_key()) as client,
    ):
        granted = lease(client).parsed
        assert granted is not None
        assert isinstance(granted.lease_token, str)
        tokens: Any = {"effect_key": "k", "fence_token": granted.fence_token, "lease_token": granted.lease_token}
        committed = commit_effect.sync("payments", client=client, body=CommitRequest(**tokens, result=[None, "é"]))
        assert committed is not None
        assert committed.status == "accepted"
        effect = get_effect.sync("payments", client=client, effect_key="k")
        assert effect is not None
        assert (effect.status, effect.result) == ("COMMITTED", [None, "é"])
        page = list_effects.sync(client=client, namespace="payments", limit=1)
        assert page is not None
        assert [each.effect_key for each in page.items] == ["k"]
        assert (
            commit_effect.sync_detailed("mail", client=client, body=CommitRequest(**tokens, result=1)).status_code
            == 404
        )
