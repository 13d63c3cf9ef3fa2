# Made from openapi.yaml by scripts/generate.py. Do not edit.
from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

T = TypeVar("T", bound="RenewReply")


@_attrs_define(repr=False)
class RenewReply:
    """
    Attributes:
        status (str): Now `renewed`.
        lease_expires_at (str):
        effect_id (str | Unset):
        namespace (str | Unset):
        effect_key (str | Unset):
        fence_token (int | Unset):
    """

    status: str
    lease_expires_at: str
    effect_id: str | Unset = UNSET
    namespace: str | Unset = UNSET
    effect_key: str | Unset = UNSET
    fence_token: int | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        status = self.status

        lease_expires_at = self.lease_expires_at

        effect_id = self.effect_id

        namespace = self.namespace

        effect_key = self.effect_key

        fence_token = self.fence_token

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "status": status,
                "leaseExpiresAt": lease_expires_at,
            }
        )
        if effect_id is not UNSET:
            field_dict["effectId"] = effect_id
        if namespace is not UNSET:
            field_dict["namespace"] = namespace
        if effect_key is not UNSET:
            field_dict["effectKey"] = effect_key
        if fence_token is not UNSET:
            field_dict["fenceToken"] = fence_token

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        status = d.pop("status")

        lease_expires_at = d.pop("leaseExpiresAt")

        effect_id = d.pop("effectId", UNSET)

        namespace = d.pop("namespace", UNSET)

        effect_key = d.pop("effectKey", UNSET)

        fence_token = d.pop("fenceToken", UNSET)

        renew_reply = cls(
            status=status,
            lease_expires_at=lease_expires_at,
            effect_id=effect_id,
            namespace=namespace,
            effect_key=effect_key,
            fence_token=fence_token,
        )

        renew_reply.additional_properties = d
        return renew_reply

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
