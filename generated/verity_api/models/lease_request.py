# Made from openapi.yaml by scripts/generate.py. Do not edit.
from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

T = TypeVar("T", bound="LeaseRequest")


@_attrs_define(repr=False)
class LeaseRequest:
    """
    Attributes:
        effect_key (str): The permanent name of one effect within its namespace. No NUL character.
        effect_name (str | Unset): Any text without a NUL character.
        agent_id (str | Unset): Any text without a NUL character.
        lease_duration_ms (int | Unset): Milliseconds; 30,000 by default in a lease request.
        input_json (Any | Unset): Any JSON value, null included, of at most 65,536 bytes as compact UTF-8 JSON.
        workflow_name (str | Unset): Any text without a NUL character.
        case_id (str | Unset): Any text without a NUL character.
        run_id (str | Unset): Any text without a NUL character.
    """

    effect_key: str
    effect_name: str | Unset = UNSET
    agent_id: str | Unset = UNSET
    lease_duration_ms: int | Unset = UNSET
    input_json: Any | Unset = UNSET
    workflow_name: str | Unset = UNSET
    case_id: str | Unset = UNSET
    run_id: str | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        effect_key = self.effect_key

        effect_name = self.effect_name

        agent_id = self.agent_id

        lease_duration_ms = self.lease_duration_ms

        input_json = self.input_json

        workflow_name = self.workflow_name

        case_id = self.case_id

        run_id = self.run_id

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "effectKey": effect_key,
            }
        )
        if effect_name is not UNSET:
            field_dict["effectName"] = effect_name
        if agent_id is not UNSET:
            field_dict["agentId"] = agent_id
        if lease_duration_ms is not UNSET:
            field_dict["leaseDurationMs"] = lease_duration_ms
        if input_json is not UNSET:
            field_dict["inputJson"] = input_json
        if workflow_name is not UNSET:
            field_dict["workflowName"] = workflow_name
        if case_id is not UNSET:
            field_dict["caseId"] = case_id
        if run_id is not UNSET:
            field_dict["runId"] = run_id

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        effect_key = d.pop("effectKey")

        effect_name = d.pop("effectName", UNSET)

        agent_id = d.pop("agentId", UNSET)

        lease_duration_ms = d.pop("leaseDurationMs", UNSET)

        input_json = d.pop("inputJson", UNSET)

        workflow_name = d.pop("workflowName", UNSET)

        case_id = d.pop("caseId", UNSET)

        run_id = d.pop("runId", UNSET)

        lease_request = cls(
            effect_key=effect_key,
            effect_name=effect_name,
            agent_id=agent_id,
            lease_duration_ms=lease_duration_ms,
            input_json=input_json,
            workflow_name=workflow_name,
            case_id=case_id,
            run_id=run_id,
        )

        lease_request.additional_properties = d
        return lease_request

    @property
    def additional_keys(self) -> list[str]:
        return list(self.additional_properties.keys())

    def __getitem__(self, key: str) -> Any:
        return self.additional_properties[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.additional_properties[key] = value

    def __delitem__(self, key: str) -> None:
        del self.additional_properties[key]

    def __contains__(self, key: str) -> bool:
        return key in self.additional_properties
