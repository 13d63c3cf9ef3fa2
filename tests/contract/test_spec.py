"""openapi.yaml itself: valid, complete, and nothing in it that nobody uses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from tests.helpers import openapi
from tests.helpers.openapi import SPEC
from verity._limits import MAX_PAYLOAD_BYTES

OPERATIONS = {
    operation["operationId"]: (method, path, operation)
    for path, item in SPEC["paths"].items()
    for method, operation in item.items()
    if method != "parameters"
}
ON_EVERY_OPERATION = {"200", "400", "401", "403", "429", "500", "503"}


def nodes(node: Any) -> Iterator[dict[str, Any]]:
    """Every mapping in the document."""
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from nodes(value)
    elif isinstance(node, list):
        for value in node:
            yield from nodes(value)


def test_it_is_openapi_3_1() -> None:
    assert SPEC["openapi"].startswith("3.1.")
    assert list(OpenAPIV31SpecValidator(SPEC).iter_errors()) == []


def test_the_operations() -> None:
    assert sorted(OPERATIONS) == [
        *("commit_effect", "fail_effect", "get_effect", "get_effect_by_id", "get_stats", "lease_effect", "list_cases"),
        *("list_effect_events", "list_effects", "list_namespaces", "list_runs", "list_workflows", "release_effect"),
        *("renew_effect", "report_observe", "reset_effect", "resolve_effect"),
    ]


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_says_all_that_it_answers(name: str) -> None:
    method, _, operation = OPERATIONS[name]
    assert operation["summary"]
    assert operation["tags"][0] in {tag["name"] for tag in SPEC["tags"]}
    assert set(operation["responses"]) >= ON_EVERY_OPERATION
    if method == "post":
        assert set(operation["responses"]) >= {"409", "413"}
        assert operation["requestBody"]["required"] is True
        assert operation["requestBody"]["content"]["application/json"]["examples"]
    success = operation["responses"]["200"]["content"]["application/json"]
    assert re.fullmatch(r"#/components/schemas/\w+", success["schema"]["$ref"]), "the generated client needs a name"
    assert success["examples"]


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_answer_carries_the_request_id(name: str) -> None:
    for answer in OPERATIONS[name][2]["responses"].values():
        described = openapi.resolve(answer["$ref"]) if "$ref" in answer else answer
        assert "X-Request-Id" in described["headers"]


def test_the_payload_limit_is_the_clients() -> None:
    assert SPEC["components"]["schemas"]["Payload"]["x-max-bytes"] == MAX_PAYLOAD_BYTES


def test_statuses_are_plain_strings() -> None:
    """A newer ledger may have new ones: a generated enum would refuse them."""
    assert not [node for node in nodes(SPEC["components"]["schemas"]) if "enum" in node or "oneOf" in node]


def test_every_component_is_used() -> None:
    used = set(re.findall(r'"\$ref": "#/components/(\w+/\w+)"', json.dumps(SPEC)))
    there = {
        f"{kind}/{name}"
        for kind, components in SPEC["components"].items()
        if kind != "securitySchemes"
        for name in components
    }
    assert used == there


def test_every_example_is_a_component() -> None:
    """And so is executed: test_examples.py goes through the components."""
    for node in nodes(SPEC["paths"]):
        for example in node.get("examples", {}).values():
            assert list(example) == ["$ref"]


def _examples() -> Iterator[tuple[str, str, Any]]:
    """(name, reference of its schema, value) of each example, wherever it is used."""
    for node in (*nodes(SPEC["paths"]), *nodes(SPEC["components"]["responses"])):
        for use in node.get("examples", {}).values():
            name = use["$ref"].rpartition("/")[2]
            yield name, node["schema"]["$ref"], SPEC["components"]["examples"][name]["value"]


@pytest.mark.parametrize(("name", "reference", "value"), [pytest.param(*each, id=each[0]) for each in _examples()])
def test_each_example_follows_its_schema(name: str, reference: str, value: Any) -> None:
    openapi.validate(reference, value)
