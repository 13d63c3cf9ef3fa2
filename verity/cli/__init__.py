"""The command `verity`."""

from __future__ import annotations

import io
import sys

_EXTRA = frozenset({"asyncpg", "click", "httptools", "jsonschema_rs", "rich", "uvicorn", "uvloop"})
"""What `pip install 'verityinc-sdk[server]'` brings; a test compares it with pyproject.toml."""


def main() -> None:
    """Run the command line; without the extra, say what to install and exit with 2."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A key that the locale's encoding does not have must not keep the other rows from being seen.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        from verity.cli.group import cli

        cli(prog_name="verity")
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRA:
            raise
        sys.stderr.write(
            f"The command `verity` needs the package {missing!r}. Install it with:\n"
            "    pip install 'verityinc-sdk[server]'\n"
        )
        sys.exit(2)
