"""scripts.spec_changes: what a change of the spec means for those who still have the old one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from scripts.spec_changes import changes
from tests.helpers.openapi import SPEC

Spec = dict[str, Any]


def schema(spec: Spec, name: str) -> Any:
    return spec["components"]["schemas"][name]


def lease(spec: Spec) -> Any:
    return spec["paths"]["/effects/{namespace}/lease"]["post"]


def add(node: Any, name: str, value: Any) -> None:
    assert name not in node
    node[name] = value


COMPATIBLE: dict[str, Callable[[Spec], Any]] = {
    "a new call": lambda spec: add(spec["paths"], "/teapot", {"get": {"responses": {}}}),
    "a field more in an answer": lambda spec: add(schema(spec, "LeaseReply")["properties"], "hint", {"type": "string"}),
    "an answer's field always there": lambda spec: schema(spec, "LeaseReply")["required"].append("priorState"),
    "an optional field in a body": lambda spec: add(schema(spec, "LeaseRequest")["properties"], "tag", {}),
    "a field no longer required": lambda spec: schema(spec, "ReportObserveRequest")["required"].remove("hit"),
    "a longer key": lambda spec: schema(spec, "EffectKey").update(maxLength=2048),
    "a shorter lease": lambda spec: schema(spec, "DurationMs").update(minimum=1000),
    "no upper limit": lambda spec: schema(spec, "DurationMs").pop("maximum"),
    "any source": lambda spec: schema(spec, "Source").pop("pattern"),
    "an optional parameter": lambda spec: lease(spec)["parameters"].append({"in": "query", "name": "x", "schema": {}}),
    "another error": lambda spec: add(lease(spec)["responses"], "418", {"description": "Teapot."}),
}
BREAKING: dict[str, Callable[[Spec], Any]] = {
    "a call gone": lambda spec: spec["paths"].pop("/stats"),
    "a method gone": lambda spec: spec["paths"]["/stats"].pop("get"),
    "a field gone from an answer": lambda spec: schema(spec, "Effect")["properties"].pop("result"),
    "an answer's field not always there": lambda spec: schema(spec, "LeaseReply")["required"].remove("fenceToken"),
    "an answer's field of another kind": lambda spec: schema(spec, "CommitReply")["properties"].update(
        fenceToken={"type": "string"}
    ),
    "success gone": lambda spec: lease(spec)["responses"].pop("200"),
    "a required field in a body": lambda spec: schema(spec, "LeaseRequest")["required"].append("agentId"),
    "a field gone from a body": lambda spec: schema(spec, "LeaseRequest")["properties"].pop("inputJson"),
    "a shorter key": lambda spec: schema(spec, "EffectKey").update(maxLength=1000),
    "a longer shortest lease": lambda spec: schema(spec, "DurationMs").update(minimum=10_000),
    "a new limit": lambda spec: schema(spec, "Payload").update(maxProperties=10),
    "another pattern": lambda spec: schema(spec, "Source").update(pattern="^acted$"),
    "a pattern where there was none": lambda spec: schema(spec, "ResetRequest")["properties"]["force"].update(
        pattern="^a$"
    ),
    "another kind": lambda spec: schema(spec, "FenceToken").update(type="string"),
    "a required parameter": lambda spec: lease(spec)["parameters"].append(
        {"in": "query", "name": "x", "required": True, "schema": {}}
    ),
    "a parameter gone": lambda spec: lease(spec)["parameters"].pop(),
    "another way to say who you are": lambda spec: spec["components"]["securitySchemes"]["apiKey"].update(
        type="oauth2"
    ),
}
TEXT: dict[str, Callable[[Spec], Any]] = {
    "a description": lambda spec: schema(spec, "EffectKey").update(description="New words."),
    "an example": lambda spec: spec["components"]["examples"]["LeaseReplyGranted"]["value"].update(fenceToken=7),
    "the title": lambda spec: spec["info"].update(title="Another"),
    "a status that a ledger may answer with": lambda spec: schema(spec, "CommitReply")["properties"]["status"][
        "x-known-values"
    ].append("noted"),
}


@pytest.mark.parametrize(
    ("verdict", "edit"),
    [
        pytest.param(verdict, edit, id=name)
        for verdict, edits in {"compatible": COMPATIBLE, "BREAKING": BREAKING, "text": TEXT}.items()
        for name, edit in edits.items()
    ],
)
def test_each_change_is_judged(verdict: str, edit: Callable[[Spec], Any]) -> None:
    new = copy.deepcopy(SPEC)
    edit(new)
    found = changes(SPEC, new)
    assert found
    assert {change.verdict for change in found} == {verdict}


def test_the_worst_comes_first_and_says_where() -> None:
    new = copy.deepcopy(SPEC)
    TEXT["a description"](new)
    BREAKING["a shorter key"](new)
    found = [str(change) for change in changes(SPEC, new)]
    assert (
        "BREAKING   changed  /effects/{namespace}/commit > post > requestBody > effectKey > maxLength: 1024 -> 1000"
        in found
    )
    assert "text       changed  /effects/{namespace}/commit > post > requestBody > effectKey > description" in found
    assert [line.split()[0] for line in found] == sorted(line.split()[0] for line in found)


def test_nothing_changed() -> None:
    assert changes(SPEC, copy.deepcopy(SPEC)) == []
