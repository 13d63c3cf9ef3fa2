# Made from openapi.yaml by scripts/generate.py. Do not edit.
from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

T = TypeVar("T", bound="ResolveRequest")


@_attrs_define(repr=False)
class ResolveRequest:
    """
    Attributes:
        effect_key (str): The permanent name of one effect within its namespace. No NUL character.
        result (Any): Any JSON value, null included, of at most 65,536 bytes as compact UTF-8 JSON.
        expected_fence (int | Unset): The `fenceToken` of the effect that the sender has looked at. If the effect has
            another one by now, it was granted,
            reset or resolved since: the answer is `stale_fence`, and nothing changes. The same change sent again is
            success.
        reason (str | Unset): The reason, for the audit trail. No NUL character.
    """

    effect_key: str
    result: Any
    expected_fence: int | Unset = UNSET
    reason: str | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        effect_key = self.effect_key

        result = self.result

        expected_fence = self.expected_fence

        reason = self.reason

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "effectKey": effect_key,
                "result": result,
            }
        )
        if expected_fence is not UNSET:
            field_dict["expectedFence"] = expected_fence
        if reason is not UNSET:
            field_dict["reason"] = reason

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        effect_key = d.pop("effectKey")

        result = d.pop("result")

        expected_fence = d.pop("expectedFence", UNSET)

        reason = d.pop("reason", UNSET)

        resolve_request = cls(
            effect_key=effect_key,
            result=result,
            expected_fence=expected_fence,
            reason=reason,
        )

        resolve_request.additional_properties = d
        return resolve_request

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
