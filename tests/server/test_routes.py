from __future__ import annotations

import re

import httpx
import pytest

from tests.helpers import openapi
from tests.helpers.served_ledger import ServedLedger
from tests.server.conftest import Client
from verity._ledger.codec import EFFECT_OPERATIONS
from verity._operations import Operation
from verity._store.reads import READS
from verity.server.contract import load_spec, read_endpoints
from verity.server.router import Router

ENDPOINTS = read_endpoints(load_spec())
METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"}


def test_the_contract_and_the_store_know_the_same_operations() -> None:
    assert set(Operation) == EFFECT_OPERATIONS | set(READS)


def test_every_operation_of_the_contract_is_found_and_hides_no_other() -> None:
    router = Router(ENDPOINTS)
    for operation in Operation:
        path = "/v1" + re.sub(r"\{\w+\}", "x%2Fy", operation.path)
        for _ in ("first", "remembered"):
            route = router.find(operation.method, path)
            assert route.endpoint.operation is operation
            assert set(route.in_path.values()) <= {"x/y"}
            assert len(route.in_path) == operation.path.count("{")


def test_a_wrong_path_is_told_each_time_and_many_paths_are_not_all_remembered() -> None:
    router = Router(ENDPOINTS)
    for _ in range(2):
        route = router.find("POST", f"/v1/effects/{'n' * 300}/lease")
        assert [detail["path"] for detail in route.details] == ["path/namespace"]
    for number in range(3_000):
        assert router.find("POST", f"/v1/effects/n{number}/lease").in_path == {"namespace": f"n{number}"}
    assert len(router._remembered) <= 1_000


@pytest.mark.parametrize("operation", Operation, ids=str)
def test_other_methods_are_refused(operation: Operation, agent: httpx.Client) -> None:
    path = re.sub(r"\{\w+\}", "x", operation.path)
    allowed = {other.method for other in Operation if other.path == operation.path}
    for method in METHODS - allowed:
        if method == "HEAD":
            continue  # its answer has no body to check
        response = agent.request(method, path)
        assert response.status_code == 405
        assert response.headers["allow"] == ", ".join(sorted(allowed))


@pytest.mark.parametrize(
    "path", ["/", "/effects/", "/effects/a", "/effects/a/lease/", "/effects/a/lease/b", "/effects//x", "//", "/Effects"]
)
def test_unknown_paths(path: str, agent: httpx.Client, client_with: Client) -> None:
    for client in (agent, client_with(None)):
        response = client.get(path)
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "not_found"


def test_outside_v1(served: ServedLedger) -> None:
    root = served.base_url.removesuffix("/v1")
    for path in ("/", "/v1", "/v2/effects", "/metrics/"):
        response = httpx.get(root + path)
        assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")
        assert response.headers["x-request-id"] == response.json()["requestId"]


def test_probes(served: ServedLedger) -> None:
    root = served.base_url.removesuffix("/v1")
    for path in ("/healthz", "/readyz"):
        assert httpx.get(root + path).status_code == 200
        assert httpx.head(root + path).text == ""
        refused = httpx.post(root + path)
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")


def test_a_namespace_with_odd_characters_stays_one_segment(agent: httpx.Client) -> None:
    for namespace, encoded in (("päy ment?s#1", "p%C3%A4y%20ment%3Fs%231"), ("100%", "100%25"), ("lease", "lease")):
        agent.post(f"/effects/{encoded}/lease", json={"effectKey": "a"})
        items = agent.get("/effects", params={"namespace": namespace}).json()["items"]
        assert [item["namespace"] for item in items] == [namespace]


@pytest.mark.parametrize("segment", ["a%2Fb", "%2E%2E", "%2e", "a%00", "%5C", "x" * 129, "%FF", "a%0Ab", "%ED%A0%80"])
def test_a_namespace_that_would_leave_its_segment_is_refused(segment: str, agent: httpx.Client) -> None:
    response = agent.post(f"/effects/{segment}/lease", json={"effectKey": "a"})
    assert response.status_code == 400
    assert response.json()["error"]["details"][0]["path"] == "path/namespace"


def test_request_ids(agent: httpx.Client) -> None:
    own = agent.get("/namespaces", headers={"X-Request-Id": "trace-1.2:3_4"})
    assert own.headers["x-request-id"] == "trace-1.2:3_4"
    ids = {agent.get("/namespaces").headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3
    for bad in ("", "a b", "x" * 129, "é", "<script>"):
        response = agent.get("/namespaces", headers=[(b"X-Request-Id", bad.encode("latin-1"))])
        assert response.headers["x-request-id"].startswith("req_")


def test_the_hook_that_checks_answers_can_fail(agent: httpx.Client) -> None:
    response = agent.get("/namespaces")
    response._content = b'{"items":[{"namespace":1}]}'
    with pytest.raises(Exception, match=r"is not of type|required"):
        openapi.check(response)
