"""Text from the command line or the environment that names something: checked for what nobody can see."""

from __future__ import annotations

import click
from click.core import ParameterSource


def read_setting(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """A text that names a ledger, a file or an address: an option's callback.

    With a line end that came along from a file it would name another. What is told does not show it: a database's URL
    may have a password.
    """
    from verity._core.text import find_flaw

    flaw = None if value is None else find_flaw(value)
    if flaw is None:
        return value
    is_variable = context.get_parameter_source(option.name or "") is ParameterSource.ENVIRONMENT
    source = option.envvar if is_variable else option.opts[0]
    raise click.BadParameter(f"{source} {flaw}: remove it.")
