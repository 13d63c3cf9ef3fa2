"""What each API key takes of a node: its connections, and what is kept for those of its clients that do not read.

A connection belongs to the key of its latest request; until it has sent one, to nobody. One key may have half of what
there is, or less, so that the others always find room.
"""

from __future__ import annotations

from typing import Any, Protocol

_PARTS = 4
"""One key may have so many bytes unread as would leave room for so many keys."""


class OpenConnection(Protocol):
    """What is counted: one connection of a client.

    Attributes:
        transport: asyncio's, or one that wraps it.
        share: of the key that it belongs to.
        unread_bytes: what is kept until its client reads.
    """

    transport: Any
    share: Share
    unread_bytes: int

    def cut_off(self, now: float) -> None:
        """Close it, if its client is late; `now` is the event loop's time."""
        ...


class Share:
    """What one key has of it.

    Attributes:
        key_id: whose; empty for those who have shown no key.
        connections: in the order in which they became the key's.
        unread_bytes: what is kept for clients that do not read.
    """

    __slots__ = ("connections", "key_id", "unread_bytes")

    def __init__(self, key_id: str) -> None:
        self.key_id = key_id
        self.connections: dict[OpenConnection, None] = {}
        self.unread_bytes = 0


class Shares:
    """All of it.

    Args:
        max_connections: how many there may be; one key may have half of them.
        max_unread_bytes: how much may be kept for clients that do not read; one key may have a quarter.
    """

    def __init__(self, max_connections: int, max_unread_bytes: int) -> None:
        self._most_connections = max(1, max_connections // 2)
        self._most_unread_bytes = max_unread_bytes
        self._by_key: dict[str, Share] = {}
        self.unauthenticated = Share("")
        """Those who have shown no key."""

    def move(self, connection: OpenConnection, key_id: str) -> bool:
        """Let a connection be a key's; False where that one has too many."""
        share = self._by_key.get(key_id) or Share(key_id)
        if len(share.connections) >= self._most_connections:
            return False
        self.leave(connection)
        self._by_key[key_id] = connection.share = share
        share.connections[connection] = None
        share.unread_bytes += connection.unread_bytes
        return True

    def leave(self, connection: OpenConnection) -> None:
        """Count it no more."""
        share = connection.share
        if share.connections.pop(connection, share) is share:
            return
        share.unread_bytes -= connection.unread_bytes
        if not share.connections:
            self._by_key.pop(share.key_id, None)

    def keep(self, connection: OpenConnection, size: int) -> None:
        """So much more is kept for a connection's client, or less."""
        connection.unread_bytes += size
        if connection in connection.share.connections:
            connection.share.unread_bytes += size

    def has_too_many_unauthenticated(self) -> bool:
        """Whether those who have shown no key have more than half of the connections."""
        return len(self.unauthenticated.connections) > self._most_connections

    def is_full(self, share: Share) -> bool:
        """Whether a key has as much unread as it may."""
        return share.unread_bytes * _PARTS >= self._most_unread_bytes

    def most_unread(self) -> list[OpenConnection]:
        """The connections to cut, the worst of each key first, so that each has no more than it may, and all of them
        together no more than there may be.
        """
        shares = [self.unauthenticated, *self._by_key.values()]
        left = {share: share.unread_bytes for share in shares if share.unread_bytes}
        worst: list[OpenConnection] = []
        while left:
            share = max(left, key=lambda each: left[each])
            if left[share] * _PARTS <= self._most_unread_bytes and sum(left.values()) <= self._most_unread_bytes:
                break
            others = [each for each in share.connections if each.unread_bytes and each not in worst]
            if not others:
                break
            found = max(others, key=lambda each: each.unread_bytes)
            worst.append(found)
            left[share] -= found.unread_bytes
        return worst
