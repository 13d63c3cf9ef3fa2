# Made from openapi.yaml by scripts/generate.py. Do not edit.
from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

T = TypeVar("T", bound="ReportObserveRequest")


@_attrs_define(repr=False)
class ReportObserveRequest:
    """
    Attributes:
        effect_key (str): The permanent name of one effect within its namespace. No NUL character.
        fence_token (int): The number of the grant. It rises with every grant of the effect and is never reused.
        lease_token (str): A secret that proves that the sender is the holder.
        hit (bool): Whether the effect had happened already.
        duration_ms (int | Unset): How long the observation took.
    """

    effect_key: str
    fence_token: int
    lease_token: str
    hit: bool
    duration_ms: int | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        effect_key = self.effect_key

        fence_token = self.fence_token

        lease_token = self.lease_token

        hit = self.hit

        duration_ms = self.duration_ms

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "effectKey": effect_key,
                "fenceToken": fence_token,
                "leaseToken": lease_token,
                "hit": hit,
            }
        )
        if duration_ms is not UNSET:
            field_dict["durationMs"] = duration_ms

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        effect_key = d.pop("effectKey")

        fence_token = d.pop("fenceToken")

        lease_token = d.pop("leaseToken")

        hit = d.pop("hit")

        duration_ms = d.pop("durationMs", UNSET)

        report_observe_request = cls(
            effect_key=effect_key,
            fence_token=fence_token,
            lease_token=lease_token,
            hit=hit,
            duration_ms=duration_ms,
        )

        report_observe_request.additional_properties = d
        return report_observe_request

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
