# Made from openapi.yaml by scripts/generate.py. Do not edit.
from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

T = TypeVar("T", bound="ReleaseReply")


@_attrs_define(repr=False)
class ReleaseReply:
    """
    Attributes:
        status (str): Now `released` or `already_released`.
        effect_id (str):
        fence_token (int):
        namespace (str | Unset):
        effect_key (str | Unset):
        settles_at (str | Unset): Nobody is granted before this time. Absent if the effect can be granted now.
    """

    status: str
    effect_id: str
    fence_token: int
    namespace: str | Unset = UNSET
    effect_key: str | Unset = UNSET
    settles_at: str | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        status = self.status

        effect_id = self.effect_id

        fence_token = self.fence_token

        namespace = self.namespace

        effect_key = self.effect_key

        settles_at = self.settles_at

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "status": status,
                "effectId": effect_id,
                "fenceToken": fence_token,
            }
        )
        if namespace is not UNSET:
            field_dict["namespace"] = namespace
        if effect_key is not UNSET:
            field_dict["effectKey"] = effect_key
        if settles_at is not UNSET:
            field_dict["settlesAt"] = settles_at

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        status = d.pop("status")

        effect_id = d.pop("effectId")

        fence_token = d.pop("fenceToken")

        namespace = d.pop("namespace", UNSET)

        effect_key = d.pop("effectKey", UNSET)

        settles_at = d.pop("settlesAt", UNSET)

        release_reply = cls(
            status=status,
            effect_id=effect_id,
            fence_token=fence_token,
            namespace=namespace,
            effect_key=effect_key,
            settles_at=settles_at,
        )

        release_reply.additional_properties = d
        return release_reply

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
