"""Outages: times in which no holder could renew, and the grace that they give to leases.

In an outage the ledger was away, was frozen, could not write, or its clock jumped forward over the time. A holder could
not renew meanwhile, so this time must not count against its lease. A lease that expired in an outage, or shortly after
it, is not taken over before its holder has had as much time as the lease still had when the outage began, and at least
a part of the lease's length. This longer time is the grace. The ideas are the grace period of Chubby (Burrows, 2006)
and the extension of leases by a new leader of etcd.

Grace is bounded: after the outage, it lasts no longer than the lease's own length. It changes no row. A holder that is
alive renews, and then has a lease as any other.

All times are ms since 1970, by the ledger's clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from verity._limits import MIN_LEASE_DURATION_MS

SHORTEST_MS = MIN_LEASE_DURATION_MS
"""What a holder has after an outage, at least."""
SMALLEST_PART = 5
"""A holder also has at least this part (a fifth) of its lease's length: a client that could not renew a long lease
waits longer until it tries again, a tenth of the length and the timeout of the attempt."""
LONGEST_PAUSE_MS = 1_500
"""A ledger that was not alive for longer than this had an outage. A client renews a lease when 1.75 seconds or more are
left of it, with the default `renew_at_fraction`."""
LONGEST_GRACE_MS = 150_000
"""No lease is longer, and so no grace: a renewal may give a lease of 120 seconds a quarter more."""
MAX_OUTAGES = 32
KEPT_MS = 600_000
"""For how long an outage is kept: far longer than it can concern a lease."""


class Outage(NamedTuple):
    """A time in which no holder could renew."""

    began_at: int
    ended_at: int


def extended(expires_at: int, set_at: int, outages: Iterable[Outage]) -> int:
    """When a lease may be taken over.

    Args:
        expires_at: its expiry.
        set_at: when this expiry was set, by the grant or a renewal.
        outages: in their order.
    """
    length_ms = expires_at - set_at
    least_ms = max(SHORTEST_MS, length_ms // SMALLEST_PART)
    for outage in outages:
        # A lease that was set after the outage has more than the least time, so it is never extended.
        if outage.began_at < expires_at < outage.ended_at + least_ms:
            left_ms = min(expires_at - outage.began_at, length_ms)
            expires_at = outage.ended_at + max(left_ms, least_ms)
    return expires_at


def settled_at(settles_at: int, released_at: int, outages: Iterable[Outage]) -> int:
    """When what a holder sent has settled: the time of an outage does not count, as it may be a jump of the clock.

    Args:
        settles_at: the end of the settle time, without outages.
        released_at: its beginning.
        outages: in their order.
    """
    for outage in outages:
        began_at = max(outage.began_at, released_at)
        if began_at < settles_at and began_at < outage.ended_at:
            settles_at += outage.ended_at - began_at
    return settles_at


def add(outage: Outage, outages: Iterable[Outage]) -> tuple[Outage, ...]:
    """The outages with one more, in their order. Those that overlap become one."""
    merged: list[Outage] = []
    for each in sorted((*outages, outage)):
        if merged and each.began_at <= merged[-1].ended_at:
            merged[-1] = Outage(merged[-1].began_at, max(merged[-1].ended_at, each.ended_at))
        else:
            merged.append(each)
    return tuple(merged[-MAX_OUTAGES:])


def current(outages: Iterable[Outage], now: int) -> tuple[Outage, ...]:
    """Without the outages that are too old. None ends in the future.

    An outage ends in the future if the clock was set back after it. In truth it is over, so it ends now. What a store
    writes has this end, so that it does not move.
    """
    return tuple(
        Outage(each.began_at, min(each.ended_at, now))
        for each in outages
        if now - KEPT_MS <= each.ended_at and each.began_at < now
    )


def matters_after(outage: Outage, recorded: Sequence[Outage]) -> int:
    """An outage matters to leases that expire after this time; some are in the grace of an earlier outage."""
    at = outage.began_at
    for each in reversed(recorded):
        if at < each.ended_at + LONGEST_GRACE_MS:
            at = min(at, each.began_at)
    return at


def gap_until(now: int, alive_at: int | None) -> Outage | None:
    """The outage until `now` of a ledger that was alive at `alive_at`; None: there was none."""
    if alive_at is None or now - alive_at <= LONGEST_PAUSE_MS:
        return None
    return Outage(alive_at, now)


def to_text(outages: Sequence[Outage]) -> str:
    """The outages as a store keeps them."""
    return " ".join(f"{began_at}:{ended_at}" for began_at, ended_at in outages)


def from_text(text: str) -> tuple[Outage, ...]:
    """The outages of a text that `to_text` made."""
    return tuple(Outage._make(map(int, each.split(":"))) for each in text.split())
