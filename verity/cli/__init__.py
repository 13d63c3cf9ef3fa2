"""The command `verity`."""

from __future__ import annotations

import io
import sys

_EXTRA = frozenset({"asyncpg", "click", "httptools", "jsonschema_rs", "rich", "uvicorn", "uvloop"})
"""The packages of the extra `[server]`; a test compares them with pyproject.toml."""


def main() -> None:
    """Run the command line. Without the extra `[server]`, say what to install, and exit with 2."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Characters that the locale's encoding lacks are escaped: they must not end the output with an error.
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
