# Made from openapi.yaml by scripts/generate.py. Do not edit.
from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

T = TypeVar("T", bound="Run")


@_attrs_define(repr=False)
class Run:
    """
    Attributes:
        workflow_name (str):
        case_id (str):
        run_id (str):
        effects (int):
        created_at (str):
        updated_at (str):
    """

    workflow_name: str
    case_id: str
    run_id: str
    effects: int
    created_at: str
    updated_at: str
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        workflow_name = self.workflow_name

        case_id = self.case_id

        run_id = self.run_id

        effects = self.effects

        created_at = self.created_at

        updated_at = self.updated_at

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "workflowName": workflow_name,
                "caseId": case_id,
                "runId": run_id,
                "effects": effects,
                "createdAt": created_at,
                "updatedAt": updated_at,
            }
        )

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        workflow_name = d.pop("workflowName")

        case_id = d.pop("caseId")

        run_id = d.pop("runId")

        effects = d.pop("effects")

        created_at = d.pop("createdAt")

        updated_at = d.pop("updatedAt")

        run = cls(
            workflow_name=workflow_name,
            case_id=case_id,
            run_id=run_id,
            effects=effects,
            created_at=created_at,
            updated_at=updated_at,
        )

        run.additional_properties = d
        return run

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
