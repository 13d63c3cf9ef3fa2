# Made from openapi.yaml by scripts/generate.py. Do not edit.
from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

T = TypeVar("T", bound="ProblemError")


@_attrs_define(repr=False)
class ProblemError:
    """
    Attributes:
        code (str):
        message (str):
        details (Any | Unset): For `invalid_request`, a list of `{path, message}`. For problems with an effect, an
            object with the
            `namespace`, `effectKey` and `fenceToken` of the request, as far as it had them; `lease_conflict` adds
            `leaseExpiresAt` (after a release with unknown outcome, the time before which nobody is granted), and `grace`:
            true if the lease expired while no holder could renew it (the ledger was away, or its clock jumped forward),
            and its holder has until `leaseExpiresAt` to renew it. `effect_purged` adds `status` and `purgedAt`. If the
            namespace, key or fence differs from what the client sent, the answer belongs to another request. The same is
            true for every answer about an effect.
    """

    code: str
    message: str
    details: Any | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        code = self.code

        message = self.message

        details = self.details

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "code": code,
                "message": message,
            }
        )
        if details is not UNSET:
            field_dict["details"] = details

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        code = d.pop("code")

        message = d.pop("message")

        details = d.pop("details", UNSET)

        problem_error = cls(
            code=code,
            message=message,
            details=details,
        )

        problem_error.additional_properties = d
        return problem_error

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
