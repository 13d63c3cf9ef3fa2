# Made from openapi.yaml by scripts/generate.py. Do not edit.
from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

T = TypeVar("T", bound="FailReply")


@_attrs_define(repr=False)
class FailReply:
    """
    Attributes:
        status (str): Now `recorded` or `already_failed`.
        effect_id (str):
        fence_token (int):
        message (str):
        namespace (str | Unset):
        effect_key (str | Unset):
    """

    status: str
    effect_id: str
    fence_token: int
    message: str
    namespace: str | Unset = UNSET
    effect_key: str | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        status = self.status

        effect_id = self.effect_id

        fence_token = self.fence_token

        message = self.message

        namespace = self.namespace

        effect_key = self.effect_key

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "status": status,
                "effectId": effect_id,
                "fenceToken": fence_token,
                "message": message,
            }
        )
        if namespace is not UNSET:
            field_dict["namespace"] = namespace
        if effect_key is not UNSET:
            field_dict["effectKey"] = effect_key

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        status = d.pop("status")

        effect_id = d.pop("effectId")

        fence_token = d.pop("fenceToken")

        message = d.pop("message")

        namespace = d.pop("namespace", UNSET)

        effect_key = d.pop("effectKey", UNSET)

        fail_reply = cls(
            status=status,
            effect_id=effect_id,
            fence_token=fence_token,
            message=message,
            namespace=namespace,
            effect_key=effect_key,
        )

        fail_reply.additional_properties = d
        return fail_reply

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
