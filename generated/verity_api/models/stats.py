# Made from openapi.yaml by scripts/generate.py. Do not edit.
from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

if TYPE_CHECKING:
    from ..models.counts import Counts


T = TypeVar("T", bound="Stats")


@_attrs_define(repr=False)
class Stats:
    """
    Attributes:
        by_status (Counts): A number for each name.
        since (str):
        events (Counts): A number for each name.
        oldest_expired_at (str | Unset): When the oldest lease expired that no other holder has taken over.
    """

    by_status: Counts
    since: str
    events: Counts
    oldest_expired_at: str | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        by_status = self.by_status.to_dict()

        since = self.since

        events = self.events.to_dict()

        oldest_expired_at = self.oldest_expired_at

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "byStatus": by_status,
                "since": since,
                "events": events,
            }
        )
        if oldest_expired_at is not UNSET:
            field_dict["oldestExpiredAt"] = oldest_expired_at

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.counts import Counts  # noqa: PLC0415

        d = dict(src_dict)
        by_status = Counts.from_dict(d.pop("byStatus"))

        since = d.pop("since")

        events = Counts.from_dict(d.pop("events"))

        oldest_expired_at = d.pop("oldestExpiredAt", UNSET)

        stats = cls(
            by_status=by_status,
            since=since,
            events=events,
            oldest_expired_at=oldest_expired_at,
        )

        stats.additional_properties = d
        return stats

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
