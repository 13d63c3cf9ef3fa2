# Made from openapi.yaml by scripts/generate.py. Do not edit.
from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

T = TypeVar("T", bound="FailRequest")


@_attrs_define(repr=False)
class FailRequest:
    """
    Attributes:
        effect_key (str): The permanent name of one effect within its namespace. No NUL character.
        fence_token (int): The number of the grant. It rises with every grant of the effect and is never reused.
        lease_token (str): A secret that proves that the sender is the holder.
        error (Any): Any JSON value, null included, of at most 65,536 bytes as compact UTF-8 JSON.
        source (str | Unset): `acted`, or `observed` if the effect had happened already.
        run_id (str | Unset): Any text without a NUL character.
    """

    effect_key: str
    fence_token: int
    lease_token: str
    error: Any
    source: str | Unset = UNSET
    run_id: str | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        effect_key = self.effect_key

        fence_token = self.fence_token

        lease_token = self.lease_token

        error = self.error

        source = self.source

        run_id = self.run_id

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "effectKey": effect_key,
                "fenceToken": fence_token,
                "leaseToken": lease_token,
                "error": error,
            }
        )
        if source is not UNSET:
            field_dict["source"] = source
        if run_id is not UNSET:
            field_dict["runId"] = run_id

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        effect_key = d.pop("effectKey")

        fence_token = d.pop("fenceToken")

        lease_token = d.pop("leaseToken")

        error = d.pop("error")

        source = d.pop("source", UNSET)

        run_id = d.pop("runId", UNSET)

        fail_request = cls(
            effect_key=effect_key,
            fence_token=fence_token,
            lease_token=lease_token,
            error=error,
            source=source,
            run_id=run_id,
        )

        fail_request.additional_properties = d
        return fail_request

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
