# Made from openapi.yaml by scripts/generate.py. Do not edit.
from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

T = TypeVar("T", bound="ResetRequest")


@_attrs_define(repr=False)
class ResetRequest:
    """
    Attributes:
        effect_key (str): The permanent name of one effect within its namespace. No NUL character.
        mode (str | Unset): `verify` (the default): the next grant has `priorState` `expired`, so that its holder
            observes before it acts. `retry`: it has `reset`. The effect has certainly not happened, and the holder may act
            without observing.
        force (bool | Unset): Reset the effect even if a holder's lease is live.
        expected_fence (int | Unset): The `fenceToken` of the effect that the sender has looked at. If the effect has
            another one by now, it was granted,
            reset or resolved since: the answer is `stale_fence`, and nothing changes. The same change sent again is
            success.
        reason (str | Unset): The reason, for the audit trail. No NUL character.
    """

    effect_key: str
    mode: str | Unset = UNSET
    force: bool | Unset = UNSET
    expected_fence: int | Unset = UNSET
    reason: str | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        effect_key = self.effect_key

        mode = self.mode

        force = self.force

        expected_fence = self.expected_fence

        reason = self.reason

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "effectKey": effect_key,
            }
        )
        if mode is not UNSET:
            field_dict["mode"] = mode
        if force is not UNSET:
            field_dict["force"] = force
        if expected_fence is not UNSET:
            field_dict["expectedFence"] = expected_fence
        if reason is not UNSET:
            field_dict["reason"] = reason

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        effect_key = d.pop("effectKey")

        mode = d.pop("mode", UNSET)

        force = d.pop("force", UNSET)

        expected_fence = d.pop("expectedFence", UNSET)

        reason = d.pop("reason", UNSET)

        reset_request = cls(
            effect_key=effect_key,
            mode=mode,
            force=force,
            expected_fence=expected_fence,
            reason=reason,
        )

        reset_request.additional_properties = d
        return reset_request

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
