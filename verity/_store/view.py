"""Queries for what one caller may read. Reads have no other way to the tables, so none can leave its scope.

A query always has the conditions of the scope. A read adds its own conditions in parentheses, so an `OR` in them can't
get around the scope.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from verity._ledger.calls import Request
from verity._ledger.codec import need_namespace, read_namespace
from verity._ledger.effect import Effect
from verity._store.events import EVENT_COLUMNS
from verity._store.names import COLUMNS, hash_effect_name


class Query(NamedTuple):
    """One SELECT; each value stands for a `?`."""

    sql: str
    values: Sequence[Any]


class Dialect(NamedTuple):
    """SQL that differs between the databases."""

    contains: str
    """A condition: the column {0} contains the text ?."""
    namespace: str
    """The SQL expression on which the indexes over namespaces are built."""
    namespace_value: str
    """A format for that expression's values."""
    event_owner: dict[str, str]
    """The columns of `events` that name the effect, each with the column of `effects` that it refers to."""
    not_null: str = "{0} IS NOT NULL"
    """A condition for which no index is used: the column {0} is not null."""


class Where:
    """Conditions, joined by AND."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._conditions: list[str] = []

    def add(self, condition: str, *values: Any) -> None:
        """Add a condition; each value stands for a `?` in it."""
        self._conditions.append(f"({condition})")
        self.values += values

    def __str__(self) -> str:
        return " AND ".join(self._conditions)


class View:
    """The effects and events in a request's scope.

    Raises:
        Problem: 403, the request names a namespace that its API key is not bound to.
    """

    def __init__(self, request: Request, dialect: Dialect) -> None:
        self.dialect = dialect
        self._request = request
        self._environment = request.scope.environment
        namespace = read_namespace(request)
        namespaces = request.scope.namespaces if namespace is None else {namespace}
        self._is_bound = namespaces is not None
        self._inside = Where()
        self._inside.add("environment = ?", self._environment)
        if namespaces is not None:
            write = dialect.namespace_value.format
            values = [write(environment=self._environment, namespace=each) for each in sorted(namespaces)]
            self._inside.add(f"{dialect.namespace} IN ({', '.join('?' * len(values))})", *values)

    def effects(self, columns: str, where: Where, rest: str = "", *values: Any, first: Sequence[Any] = ()) -> Query:
        """A SELECT from `effects`.

        Args:
            columns: the selected columns.
            where: the read's own conditions.
            rest: the end of the statement: GROUP BY, ORDER BY, LIMIT.
            values: the values of the `?`s in `rest`.
            first: the values of the `?`s in `columns`.
        """
        inside, also = self._inside, f" AND {where}" if str(where) else ""
        return Query(
            f"SELECT {columns} FROM effects WHERE {inside}{also} {rest}",
            (*first, *inside.values, *where.values, *values),
        )

    def not_null(self, column: str) -> str:
        """A condition: the column is not null. If the scope is bound, SQLite uses no index over all namespaces."""
        condition = self.dialect.not_null if self._is_bound else "{0} IS NOT NULL"
        return condition.format(column)

    def effect(self, key: str) -> Query:
        """The effect with this key, in the namespace that the request names."""
        namespace = need_namespace(self._request)
        return Query(
            f"SELECT {COLUMNS} FROM effects WHERE environment = ? AND namespace = ? AND key_hash = ?",
            (self._environment, namespace, hash_effect_name(self._environment, namespace, key)),
        )

    def events(self, effect: Effect, after: int, limit: int) -> Query:
        """The events of an effect of this view with a sequence above `after`, oldest first."""
        return select_events(self.dialect, self._environment, effect, after, limit)

    def event_counts(self, since: int) -> Query:
        """By type, how many events there were since a time."""
        owner = self.dialect.event_owner
        return Query(
            f"SELECT type, count(*) FROM events WHERE at >= ? AND ({', '.join(owner)})"
            f" IN (SELECT {', '.join(owner.values())} FROM effects WHERE {self._inside}) GROUP BY type",
            (since, *self._inside.values),
        )


def select_events(dialect: Dialect, environment: str, effect: Effect, after: int, limit: int) -> Query:
    """The events of an effect with a sequence above `after`, oldest first. The effect must be in the caller's scope."""
    values = {"environment": environment, "namespace": effect.namespace, "id": effect.id}
    return Query(
        f"SELECT {', '.join(EVENT_COLUMNS)} FROM events"
        f" WHERE {' AND '.join(f'{column} = ?' for column in dialect.event_owner)}"
        " AND sequence > ? ORDER BY sequence LIMIT ?",
        (*(values[held] for held in dialect.event_owner.values()), after, limit),
    )
