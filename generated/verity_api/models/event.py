# Made from openapi.yaml by scripts/generate.py. Do not edit.
from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

if TYPE_CHECKING:
    from ..models.event_detail import EventDetail


T = TypeVar("T", bound="Event")


@_attrs_define(repr=False)
class Event:
    """
    Attributes:
        sequence (int): From 1
        type_ (str):
        at (str):
        fence_token (int):
        detail (EventDetail): Fields that depend on the type, such as source, durationMs, reason or actor.
        agent_id (str | Unset):
        run_id (str | Unset):
    """

    sequence: int
    type_: str
    at: str
    fence_token: int
    detail: EventDetail
    agent_id: str | Unset = UNSET
    run_id: str | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        sequence = self.sequence

        type_ = self.type_

        at = self.at

        fence_token = self.fence_token

        detail = self.detail.to_dict()

        agent_id = self.agent_id

        run_id = self.run_id

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "sequence": sequence,
                "type": type_,
                "at": at,
                "fenceToken": fence_token,
                "detail": detail,
            }
        )
        if agent_id is not UNSET:
            field_dict["agentId"] = agent_id
        if run_id is not UNSET:
            field_dict["runId"] = run_id

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.event_detail import EventDetail  # noqa: PLC0415

        d = dict(src_dict)
        sequence = d.pop("sequence")

        type_ = d.pop("type")

        at = d.pop("at")

        fence_token = d.pop("fenceToken")

        detail = EventDetail.from_dict(d.pop("detail"))

        agent_id = d.pop("agentId", UNSET)

        run_id = d.pop("runId", UNSET)

        event = cls(
            sequence=sequence,
            type_=type_,
            at=at,
            fence_token=fence_token,
            detail=detail,
            agent_id=agent_id,
            run_id=run_id,
        )

        event.additional_properties = d
        return event

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
