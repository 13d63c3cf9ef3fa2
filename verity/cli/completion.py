"""`verity completion`: a script that lets the shell complete commands, options and their values."""

from __future__ import annotations

import click
from click.shell_completion import ShellComplete, get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the shell's completion script. For bash: eval "$(verity completion bash)"."""
    kind = get_completion_class(shell)
    assert kind is not None, "click knows all three"  # noqa: S101 - for mypy
    script = kind(context.find_root().command, {}, "verity", "_VERITY_COMPLETE")
    # Not script.source(): for bash it starts a bash to check its version.
    click.echo(ShellComplete.source(script))
