# Made from openapi.yaml by scripts/generate.py. Do not edit.
from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

T = TypeVar("T", bound="ReleaseRequest")


@_attrs_define(repr=False)
class ReleaseRequest:
    """
    Attributes:
        effect_key (str): The permanent name of one effect within its namespace. No NUL character.
        fence_token (int): The number of the grant. It rises with every grant of the effect and is never reused.
        lease_token (str): A secret that proves that the sender is the holder.
        acted (str): `no`: the holder has certainly not acted. `unknown`: it may have acted.
        settle_ms (int | Unset): With `unknown`: for how many milliseconds nobody is granted, because what was sent may
            still take effect; 30,000 by default.
    """

    effect_key: str
    fence_token: int
    lease_token: str
    acted: str
    settle_ms: int | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        effect_key = self.effect_key

        fence_token = self.fence_token

        lease_token = self.lease_token

        acted = self.acted

        settle_ms = self.settle_ms

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "effectKey": effect_key,
                "fenceToken": fence_token,
                "leaseToken": lease_token,
                "acted": acted,
            }
        )
        if settle_ms is not UNSET:
            field_dict["settleMs"] = settle_ms

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        effect_key = d.pop("effectKey")

        fence_token = d.pop("fenceToken")

        lease_token = d.pop("leaseToken")

        acted = d.pop("acted")

        settle_ms = d.pop("settleMs", UNSET)

        release_request = cls(
            effect_key=effect_key,
            fence_token=fence_token,
            lease_token=lease_token,
            acted=acted,
            settle_ms=settle_ms,
        )

        release_request.additional_properties = d
        return release_request

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
