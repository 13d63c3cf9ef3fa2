"""That a read can't leave its scope is a matter of how it is built; tests/server/test_matrix.py shows it."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

from verity._ledger.calls import Request, Scope
from verity._ledger.problems import Problem
from verity._operations import Operation
from verity._store import reads
from verity._store.postgres import statements
from verity._store.sqlite import reads as sqlite_reads
from verity._store.sqlite.connection import connect
from verity._store.view import Dialect, View, Where

DIALECTS = pytest.mark.parametrize("dialect", [sqlite_reads.DIALECT, statements.DIALECT], ids=["sqlite", "postgres"])


def test_the_reads_write_no_query_by_hand() -> None:
    tree = ast.parse(inspect.getsource(reads))
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert "Where" in called
    assert "Query" not in called
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    assert not [text for text in texts if "FROM " in text]


@DIALECTS
def test_a_condition_can_not_get_around_the_scope(dialect: Dialect) -> None:
    view = View(Request(Scope("test", frozenset({"b", "a"})), Operation.LIST_EFFECTS), dialect)
    anything = Where()
    anything.add("1 = 1 OR effect_key = ?", "k")
    query = view.effects("id", anything, "LIMIT ?", 7)
    head, _, tail = query.sql.partition(" WHERE ")
    assert head == "SELECT id FROM effects"
    assert tail.startswith("(environment = ?) AND (")
    assert tail.endswith(" IN (?, ?)) AND (1 = 1 OR effect_key = ?) LIMIT ?")
    assert [str(value).removeprefix("test/") for value in query.values] == ["test", "a", "b", "k", "7"]


@DIALECTS
def test_a_namespace_outside_the_scope_has_no_view(dialect: Dialect) -> None:
    for namespace, query in (("b", {}), (None, {"namespace": "b"})):
        request = Request(Scope("test", frozenset({"a"})), Operation.LIST_EFFECTS, namespace=namespace, query=query)
        with pytest.raises(Problem):
            View(request, dialect)


def test_a_read_of_some_namespaces_looks_at_no_others_rows(tmp_path: Path) -> None:
    """By the database's own plan: whatever others have, it costs nothing. A run, a case or a workflow has a name."""
    connection = connect(str(tmp_path / "v.db"))
    scope = Scope("test", frozenset({"a", "b"}))
    times = {"since": "2026-01-01T00:00:00Z"}
    for operation in sorted(reads.SEARCHES):
        for query in ({}, times, {"status": "EXPIRED"}, {"status": "FAILED"}, {"search": "k"}, {"agentId": "x"}):
            reading = reads.begin(Request(scope, operation, query=query), 0, sqlite_reads.DIALECT)
            wanted = next(reading)
            for _ in range(3):
                plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {wanted.sql}", tuple(wanted.values))]
                led = [step for step in plan if " effects " in step or step == "SCAN events"]
                assert led, plan
                assert all("(environment=? AND namespace=?)" in step for step in led), (operation, query, plan)
                try:
                    wanted = reading.send(connection.execute(wanted.sql, tuple(wanted.values)).fetchall())
                except StopIteration:
                    break
    connection.close()
