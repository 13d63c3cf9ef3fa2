"""Checks requests against openapi.yaml: parameters and bodies of each operation.

All schemas are compiled once. An error message never quotes what was sent: it could be a payload, a token or a key.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import jsonschema_rs

from verity._ledger.raw_json import Members
from verity._operations import Operation
from verity.server.json_body import BadBody, read_object
from verity.server.problems import Details, invalid_request

_ADMINISTRATION = "administration"
"""The tag of the operations that need the role org_admin."""
_MAX_DETAILS = 20
_JSON = b"application/json"
_JSON_TYPE = re.compile(rb'application/json\s*(;\s*charset="?utf-?8"?\s*)?', re.IGNORECASE)
_NO_NUL = '"^[^\\x00]*$"'
"""The end of jsonschema_rs's message for a violation of the pattern that forbids NUL in openapi.yaml's texts."""
_INTEGER = re.compile(r"-?[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of an operation."""

    name: str
    place: str
    required: bool
    types: tuple[str, ...]
    schema: jsonschema_rs.Draft202012Validator

    def check(self, text: str) -> Iterator[dict[str, str]]:
        """What is wrong with the value."""
        where = f"{self.place}/{self.name}"
        try:
            yield from _check(self.schema, self._read(text), where)
        except UnicodeError:
            yield {"path": where, "message": "the value must be text in UTF-8"}

    def _read(self, text: str) -> Any:
        """A parameter's text as a JSON value of the schema's type."""
        if "integer" in self.types and _INTEGER.fullmatch(text):
            return int(text)
        if "boolean" in self.types and text in ("true", "false"):
            return text == "true"
        return text


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An operation of the API, and what a request to it must look like."""

    operation: Operation
    admin_only: bool
    path_parameters: tuple[Parameter, ...]
    query_parameters: Mapping[str, Parameter]
    header_parameters: tuple[tuple[bytes, Parameter], ...]
    body: jsonschema_rs.Draft202012Validator | None

    def check_path(self, in_path: Mapping[str, str]) -> Details:
        """What is wrong with the path's parameters."""
        return [wrong for parameter in self.path_parameters for wrong in parameter.check(in_path[parameter.name])]

    def check_parameters(
        self, in_path: Details, in_query: list[tuple[str, str]], headers: Mapping[bytes, bytes]
    ) -> dict[str, str]:
        """Check all parameters; returns those of the query.

        Args:
            in_path: what is wrong with the path's parameters.
            in_query: names and values in the order of the query.
            headers: by their names in lower case.

        Raises:
            Problem: 400, a parameter breaks the contract.
        """
        details: Details = []
        content_type = headers.get(b"content-type", _JSON)
        if content_type != _JSON and self.body is not None and not _JSON_TYPE.fullmatch(content_type):
            details.append({"path": "header/Content-Type", "message": "must be application/json, in UTF-8"})
        details += in_path
        if in_query or self.query_parameters:
            details += self._check_query(in_query)
        for header, parameter in self.header_parameters:
            value = headers.get(header)
            if value is not None:
                details += parameter.check(value.decode("latin-1"))
            elif parameter.required:
                details.append({"path": f"header/{parameter.name}", "message": "is required"})
        if details:
            raise invalid_request(details[:_MAX_DETAILS])
        return dict(in_query)

    def _check_query(self, query: list[tuple[str, str]]) -> Iterator[dict[str, str]]:
        seen = set()
        for name, text in query:
            parameter = self.query_parameters.get(name)
            if parameter is None:
                takes = ", ".join(self.query_parameters) or "none"
                yield {"path": "query", "message": f"has a parameter that this call does not take; it takes: {takes}"}
            elif name in seen:
                yield {"path": f"query/{name}", "message": "is given twice"}
            else:
                yield from parameter.check(text)
            seen.add(name)
        for name, parameter in self.query_parameters.items():
            if parameter.required and name not in seen:
                yield {"path": f"query/{name}", "message": "is required"}

    def check_body(self, body: bytes, max_depth: int) -> Members | None:
        """Check a request's body; returns its members, None for an operation without a body.

        Raises:
            Problem: 400, the body breaks the contract.
        """
        if self.body is None:
            if body:
                raise invalid_request([{"path": "body", "message": "this call takes no body"}])
            return None
        try:
            members = read_object(body, max_depth)
        except BadBody as error:
            raise invalid_request([{"path": "body", "message": str(error)}]) from None
        if not self.body.is_valid(members.values):
            raise invalid_request([*_check(self.body, members.values, "body")][:_MAX_DETAILS])
        return members


def _check(schema: jsonschema_rs.Draft202012Validator, value: Any, where: str) -> Iterator[dict[str, str]]:
    if schema.is_valid(value):
        return
    for error in schema.iter_errors(value):
        path = "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in error.instance_path)
        message = error.message
        if error.schema_path[-1] == "additionalProperties":  # this message would quote the name in spite of the mask
            message = "has a member that this call does not take"
        elif message.endswith(_NO_NUL):
            message = "must not have a NUL character"
        yield {"path": where + path, "message": message}


def load_spec() -> dict[str, Any]:
    """openapi.yaml, as it is packaged (in JSON)."""
    spec: dict[str, Any] = json.loads(resources.files("verity_api").joinpath("openapi.json").read_bytes())
    return spec


def read_endpoints(spec: dict[str, Any]) -> list[Endpoint]:
    """All endpoints of the contract."""
    return [_read_endpoint(spec, operation) for operation in Operation]


def _read_endpoint(spec: dict[str, Any], operation: Operation) -> Endpoint:
    item = spec["paths"][operation.path]
    about = item[operation.method.lower()]
    parameters = [
        _read_parameter(spec, _resolve(spec, each))
        for each in [*item.get("parameters", []), *about.get("parameters", [])]
    ]
    by_name = {parameter.name: parameter for parameter in parameters if parameter.place == "path"}
    body = None
    if "requestBody" in about:
        body = _compile(spec, _resolve(spec, about["requestBody"])["content"]["application/json"]["schema"])
    return Endpoint(
        operation=operation,
        admin_only=operation.tag == _ADMINISTRATION,
        path_parameters=tuple(by_name[name] for name in re.findall(r"\{(\w+)\}", operation.path)),
        query_parameters={parameter.name: parameter for parameter in parameters if parameter.place == "query"},
        header_parameters=tuple(
            (parameter.name.lower().encode(), parameter) for parameter in parameters if parameter.place == "header"
        ),
        body=body,
    )


def _read_parameter(spec: dict[str, Any], about: dict[str, Any]) -> Parameter:
    schema = _resolve(spec, about["schema"])
    types = schema.get("type", ())
    return Parameter(
        name=about["name"],
        place=about["in"],
        required=about.get("required", False),
        types=(types,) if isinstance(types, str) else tuple(types),
        schema=_compile(spec, about["schema"]),
    )


def _resolve(spec: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        target: Any = spec
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part.replace("~1", "/").replace("~0", "~")]
        node = target
    return node


def _compile(spec: dict[str, Any], schema: dict[str, Any]) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator({**schema, "components": spec["components"]}, mask="the value")
