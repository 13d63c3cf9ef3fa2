"""The command group `verity`. Each subcommand is a module, which is imported on first use."""

from __future__ import annotations

from importlib import import_module
from typing import cast

import click

from verity._version import __version__

_COMMANDS = {
    "backup": "verity.cli.backup:backup",
    "completion": "verity.cli.completion:completion",
    "demo": "verity.cli.demo:demo",
    "effects": "verity.cli.effects:effects",
    "keys": "verity.cli.keys:keys",
    "migrate": "verity.cli.migrate:migrate",
    "purge": "verity.cli.purge:purge",
    "recover": "verity.cli.recover:recover",
    "serve": "verity.cli.serve:serve",
}

_EPILOG = """\b
Exit codes:
  0  done
  1  the command failed; the message says why
  2  the command line is wrong, or the extra [server] is not installed
  3  the database can't be used
  4  the address can't be listened on
  5  the TLS certificate or its key can't be used
  6  there is no such effect
  7  the effect's state does not allow it: its lease is live, it is decided, or it is purged
  8  the API key is not valid, or may not do this
  9  the ledger did not answer: whether a change was made is unknown
"""


class LazyGroup(click.Group):
    """Imports a subcommand's module on first use, so that `verity --version` stays fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The names of all subcommands."""
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The subcommand of this name."""
        where = _COMMANDS.get(cmd_name)
        if where is None:
            return None
        module, _, name = where.partition(":")
        return cast(click.Command, getattr(import_module(module), name))


@click.group(cls=LazyGroup, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="verity %(version)s")
def cli() -> None:
    """Make an action on the outside world happen exactly once."""
