"""The contract (`SPEC`, from openapi.yaml) and checks of answers against it.

Put `check` into the response hooks of an httpx client, and every answer that it receives is checked.
"""

from __future__ import annotations

import json
import re
from functools import cache
from importlib import resources
from typing import Any

import httpx
import jsonschema_rs

SPEC: dict[str, Any] = json.loads(resources.files("verity_api").joinpath("openapi.json").read_bytes())

_PATHS: dict[re.Pattern[str], str] = {re.compile(re.sub(r"\{\w+\}", "[^/]+", path)): path for path in SPEC["paths"]}
_OUTSIDE_OPERATIONS = {"not_found", "method_not_allowed"}


def check(response: httpx.Response) -> None:
    """Fail unless the answer is as the contract describes it for this operation."""
    response.read()
    path = response.request.url.raw_path.decode().partition("?")[0]
    assert path.startswith("/v1/"), path
    body = response.json()
    assert response.headers["content-type"] == "application/json"
    assert re.fullmatch(r"[!-~]{1,128}", response.headers["x-request-id"])
    if response.status_code >= 400:
        validate("#/components/schemas/Problem", body)
        assert body["requestId"] == response.headers["x-request-id"]
        known = SPEC["components"]["schemas"]["ProblemError"]["properties"]["code"]["x-known-values"]
        assert body["error"]["code"] in known
        if body["error"]["code"] in _OUTSIDE_OPERATIONS:
            return
    answers = _operation(response.request.method, path[len("/v1") :])["responses"]
    status = str(response.status_code)
    assert status in answers, f"{response.request.method} {path} answered with {status}, which it does not document"
    reference = f"#/paths/{_template(path[3:]).replace('/', '~1')}/{response.request.method.lower()}/responses/{status}"
    if "$ref" in answers[status]:
        reference = answers[status]["$ref"]
    about = resolve(reference)
    validate(f"{reference}/content/application~1json/schema", body)
    for name, header in about.get("headers", {}).items():
        if resolve(header["$ref"]).get("required", True):
            assert name in response.headers, f"{name} is missing"


def _template(path: str) -> str:
    matching = [template for pattern, template in _PATHS.items() if pattern.fullmatch(path)]
    assert len(matching) == 1, f"{path} matches {matching}"
    return matching[0]


def _operation(method: str, path: str) -> Any:
    return SPEC["paths"][_template(path)][method.lower()]


def resolve(reference: str) -> Any:
    node: Any = SPEC
    for part in reference.removeprefix("#/").split("/"):
        node = node[part.replace("~1", "/").replace("~0", "~")]
    return node


def validate(reference: str, body: Any) -> None:
    _validator(reference).validate(body)


@cache
def _validator(reference: str) -> jsonschema_rs.Draft202012Validator:
    schema = resolve(reference)
    return jsonschema_rs.Draft202012Validator({**schema, "components": SPEC["components"]})
