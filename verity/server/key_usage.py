"""How many connections and unread bytes each API key uses on this node.

Unread bytes are what the server keeps in memory for a client: answers that the client has not read yet, and requests
that are not parsed yet. A connection counts for the API key of its latest request, and before its first request for the
unauthenticated clients. One key may use half of the connections and a quarter of the unread bytes, so that the other
keys always find room.
"""

from __future__ import annotations

from typing import Any, Protocol

_UNREAD_SHARES = 4
"""One key may have this part (a quarter) of `max_unread_bytes`."""


class OpenConnection(Protocol):
    """One connection of a client.

    Attributes:
        transport: asyncio's transport, or one that wraps it.
        usage: the usage of the API key that the connection counts for.
        unread_bytes: its part of the unread bytes.
    """

    transport: Any
    usage: KeyUsage
    unread_bytes: int

    def enforce_deadlines(self, now: float) -> None:
        """End the connection if its client missed a deadline; `now` is the event loop's time."""
        ...


class KeyUsage:
    """What one API key uses.

    Attributes:
        key_id: the id of the key; empty for the unauthenticated clients.
        connections: the key's connections, oldest first; a dict that serves as an ordered set.
        unread_bytes: the sum over these connections.
    """

    __slots__ = ("connections", "key_id", "unread_bytes")

    def __init__(self, key_id: str) -> None:
        self.key_id = key_id
        self.connections: dict[OpenConnection, None] = {}
        self.unread_bytes = 0


class UsageByKey:
    """The usage of all API keys.

    Args:
        max_connections: how many connections there may be; one key may have half of them.
        max_unread_bytes: how many unread bytes there may be; one key may have a quarter of them.
    """

    def __init__(self, max_connections: int, max_unread_bytes: int) -> None:
        self._most_connections = max(1, max_connections // 2)
        self._most_unread_bytes = max_unread_bytes
        self._by_key: dict[str, KeyUsage] = {}
        self.unauthenticated = KeyUsage("")
        """The usage of the unauthenticated clients."""

    def assign(self, connection: OpenConnection, key_id: str) -> bool:
        """Count a connection for a key; returns False, and changes nothing, if the key has too many."""
        usage = self._by_key.get(key_id) or KeyUsage(key_id)
        if len(usage.connections) >= self._most_connections:
            return False
        self.release(connection)
        self._by_key[key_id] = connection.usage = usage
        usage.connections[connection] = None
        usage.unread_bytes += connection.unread_bytes
        return True

    def release(self, connection: OpenConnection) -> None:
        """Stop counting a connection."""
        usage = connection.usage
        if usage.connections.pop(connection, usage) is usage:
            return
        usage.unread_bytes -= connection.unread_bytes
        if not usage.connections:
            self._by_key.pop(usage.key_id, None)

    def add_unread(self, connection: OpenConnection, size: int) -> None:
        """Add to a connection's unread bytes; a negative size subtracts."""
        connection.unread_bytes += size
        if connection in connection.usage.connections:
            connection.usage.unread_bytes += size

    def has_too_many_unauthenticated(self) -> bool:
        """Whether the unauthenticated clients have more than half of the connections."""
        return len(self.unauthenticated.connections) > self._most_connections

    def has_too_much_unread(self, usage: KeyUsage) -> bool:
        """Whether a key has reached its limit of unread bytes."""
        return usage.unread_bytes * _UNREAD_SHARES >= self._most_unread_bytes

    def find_worst_readers(self) -> list[OpenConnection]:
        """The connections to cut off, until each key and all keys together keep their limits of unread bytes.

        It takes again and again the connection with the most unread bytes of the key with the most unread bytes.
        """
        usages = [self.unauthenticated, *self._by_key.values()]
        left = {usage: usage.unread_bytes for usage in usages if usage.unread_bytes}
        worst: list[OpenConnection] = []
        while left:
            usage = max(left, key=lambda each: left[each])
            if (
                left[usage] * _UNREAD_SHARES <= self._most_unread_bytes
                and sum(left.values()) <= self._most_unread_bytes
            ):
                break
            others = [each for each in usage.connections if each.unread_bytes and each not in worst]
            if not others:
                break
            found = max(others, key=lambda each: each.unread_bytes)
            worst.append(found)
            left[usage] -= found.unread_bytes
        return worst
