"""Checks texts from the command line or the environment for invisible characters."""

from __future__ import annotations

import click
from click.core import ParameterSource


def read_setting(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """An option's callback: a text that names a ledger, a file or an address.

    With an invisible character, such as a line end from a file, the text would name another one. The error does not
    quote the text: a database's URL may have a password.
    """
    from verity._core.text import find_flaw

    flaw = None if value is None else find_flaw(value)
    if flaw is None:
        return value
    is_variable = context.get_parameter_source(option.name or "") is ParameterSource.ENVIRONMENT
    source = option.envvar if is_variable else option.opts[0]
    raise click.BadParameter(f"{source} {flaw}: remove it.")
