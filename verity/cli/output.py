"""Prints what commands found: a table on a terminal, tab-separated text in a pipe, or JSON.

Names and keys come from untrusted clients. Their control characters are escaped, so that they cannot control the
terminal.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.table import Table

Row = Mapping[str, Any]

_FOLDED = frozenset({"effectKey", "namespace", "agentId", "runId", "detail", "namespaces", "name"})
"""Columns that are folded if there is no room. All other columns stay in one line: a folded id can't be copied."""
_LEAST_FOLDED = 10
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


def print_rows(
    rows: Iterable[Row],
    columns: Sequence[str],
    *,
    as_json: bool,
    style_of: Callable[[Row], str | None] = lambda _row: None,
) -> None:
    """Print a list of rows.

    As JSON or in a pipe, each row is printed as soon as it is read. If reading the first row fails, nothing is printed:
    a header alone would look like an empty list.

    Args:
        rows: the rows.
        columns: the columns to print; JSON has all fields.
        as_json: print one JSON object a line.
        style_of: returns a row's style on a terminal.
    """
    if as_json:
        for row in rows:
            click.echo(json.dumps(row))
    elif sys.stdout.isatty():
        _print_table(rows, columns, style_of)
    else:
        rest = iter(rows)
        first = list(islice(rest, 1))
        click.echo("\t".join(columns))
        for row in chain(first, rest):
            click.echo("\t".join(format_value(row.get(column)) for column in columns))


def print_fields(fields: Row, *, as_json: bool) -> None:
    """Print all fields of one record, a line for each field; a nested value is JSON."""
    if as_json:
        click.echo(json.dumps(fields))
    elif sys.stdout.isatty():
        from rich.console import Console

        Console().print(_field_table({format_value(name): format_value(fields[name], indent=2) for name in fields}))
    else:
        for name, value in fields.items():
            click.echo(f"{format_value(name)}\t{format_value(value)}")


def format_value(value: Any, *, indent: int | None = None) -> str:
    """A value as printable text in one line; with an indent, nested values take several lines."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return printable(value)
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return _STRING.sub(lambda match: _escape(match[0]), text)


def printable(text: str) -> str:
    """The text with U+FFFD in place of each unprintable character, line ends and tabs included."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text)


def _escape(text: str) -> str:
    """A JSON string with all unprintable characters escaped; `json.dumps` has escaped only those up to U+001F."""
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1].replace("\x7f", "\\u007f") for char in text)


def _print_table(rows: Iterable[Row], columns: Sequence[str], style_of: Callable[[Row], str | None]) -> None:
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    shown = [({column: format_value(row.get(column)) for column in columns}, style_of(row)) for row in rows]
    widths = [
        _LEAST_FOLDED if column in _FOLDED else max(map(cell_len, [column, *(values[column] for values, _ in shown)]))
        for column in columns
    ]
    if shown and sum(widths) + 3 * len(widths) + 1 > console.width:  # with the borders and spaces between columns
        for values, style in shown:
            console.print(_field_table(values), "", style=style)
        return
    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column not in _FOLDED)
    for values, style in shown:
        table.add_row(*map(Text, values.values()), style=style)
    console.print(table)


def _field_table(fields: Mapping[str, str]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in fields.items():
        table.add_row(name, Text(value))
    return table
