# Made from openapi.yaml by scripts/generate.py. Do not edit.
from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

T = TypeVar("T", bound="LeaseReply")


@_attrs_define(repr=False)
class LeaseReply:
    """If the lease is granted: `fenceToken`, `leaseToken`, `leaseExpiresAt` and `priorState`. If the effect is
    decided: `leaseToken` is null, and there is a `cachedResult` or a `cachedError`.

        Attributes:
            status (str): Now `granted`, `cached_completed` or `cached_failed`.
            effect_id (str):
            effect_key (str):
            fence_token (int):
            lease_token (None | str):
            namespace (str | Unset):
            lease_expires_at (str | Unset):
            prior_state (str | Unset): Now `none` (no earlier holder acted), `expired` (an earlier holder may have acted) or
                `reset` (an admin said
                that none acted). Treat a value that you do not know as `expired`.
            attempt_key (str | Unset): A key for the outside world, at most 64 URL-safe characters: send it as the
                idempotency key of what you do.
                All grants of the effect have the same one, until a reset with mode `retry` changes it.
            attempt (int | Unset): The number of this grant among the grants of the effect, from 1.
            cached_result (Any | Unset):
            cached_error (Any | Unset):
    """

    status: str
    effect_id: str
    effect_key: str
    fence_token: int
    lease_token: None | str
    namespace: str | Unset = UNSET
    lease_expires_at: str | Unset = UNSET
    prior_state: str | Unset = UNSET
    attempt_key: str | Unset = UNSET
    attempt: int | Unset = UNSET
    cached_result: Any | Unset = UNSET
    cached_error: Any | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        status = self.status

        effect_id = self.effect_id

        effect_key = self.effect_key

        fence_token = self.fence_token

        lease_token: None | str
        lease_token = self.lease_token

        namespace = self.namespace

        lease_expires_at = self.lease_expires_at

        prior_state = self.prior_state

        attempt_key = self.attempt_key

        attempt = self.attempt

        cached_result = self.cached_result

        cached_error = self.cached_error

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "status": status,
                "effectId": effect_id,
                "effectKey": effect_key,
                "fenceToken": fence_token,
                "leaseToken": lease_token,
            }
        )
        if namespace is not UNSET:
            field_dict["namespace"] = namespace
        if lease_expires_at is not UNSET:
            field_dict["leaseExpiresAt"] = lease_expires_at
        if prior_state is not UNSET:
            field_dict["priorState"] = prior_state
        if attempt_key is not UNSET:
            field_dict["attemptKey"] = attempt_key
        if attempt is not UNSET:
            field_dict["attempt"] = attempt
        if cached_result is not UNSET:
            field_dict["cachedResult"] = cached_result
        if cached_error is not UNSET:
            field_dict["cachedError"] = cached_error

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        status = d.pop("status")

        effect_id = d.pop("effectId")

        effect_key = d.pop("effectKey")

        fence_token = d.pop("fenceToken")

        def _parse_lease_token(data: object) -> None | str:
            if data is None:
                return data
            return cast(None | str, data)

        lease_token = _parse_lease_token(d.pop("leaseToken"))

        namespace = d.pop("namespace", UNSET)

        lease_expires_at = d.pop("leaseExpiresAt", UNSET)

        prior_state = d.pop("priorState", UNSET)

        attempt_key = d.pop("attemptKey", UNSET)

        attempt = d.pop("attempt", UNSET)

        cached_result = d.pop("cachedResult", UNSET)

        cached_error = d.pop("cachedError", UNSET)

        lease_reply = cls(
            status=status,
            effect_id=effect_id,
            effect_key=effect_key,
            fence_token=fence_token,
            lease_token=lease_token,
            namespace=namespace,
            lease_expires_at=lease_expires_at,
            prior_state=prior_state,
            attempt_key=attempt_key,
            attempt=attempt,
            cached_result=cached_result,
            cached_error=cached_error,
        )

        lease_reply.additional_properties = d
        return lease_reply

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
