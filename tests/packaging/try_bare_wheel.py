"""Run by scripts/wheel.py in an environment that has the wheel and its dependencies, and nothing else."""

import asyncio
import subprocess
import sys
import tempfile
from pathlib import Path

FOREIGN = (
    "apsw", "asyncpg", "click", "django", "flask", "httptools", "jsonschema_rs", "opentelemetry",
    "prometheus_client", "psycopg", "pytest", "rich", "starlette", "uvicorn", "uvloop", "verity.server",
    "verity._store", "verity._embedded",
)  # fmt: skip


def try_imports() -> None:
    """`import verity` and its clients load no server, no database driver and no command line."""
    code = (
        "import sys, verity; verity.VerityClient; verity.SyncVerityClient;"
        f"loaded = [name for name in {FOREIGN!r} if name in sys.modules];"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def try_embedded() -> None:
    """One effect in each colour on one embedded ledger, and the wheel's own files are the ones in use."""
    import verity
    from verity import SyncVerityClient, VerityClient

    assert "site-packages" in verity.__file__, verity.__file__
    assert Path(verity.__file__).with_name("py.typed").exists()
    acts = []

    def act() -> dict[str, str]:
        acts.append(1)
        return {"refund": "re_1"}

    async def once_more(url: str) -> object:
        async with VerityClient(url, namespace="payments") as client:
            return await client.protect("refund:1", act=act)

    with tempfile.TemporaryDirectory() as directory:
        url = f"sqlite:///{directory}/verity.db"
        with SyncVerityClient(url, namespace="payments") as client:
            first = client.protect("refund:1", act=act)
        assert first == asyncio.run(once_more(url)) == {"refund": "re_1"}
    assert acts == [1], acts


def try_command_line() -> None:
    """Without the extra, `verity` says what to install."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("verity")), "serve"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done
    assert "verityinc-sdk[server]" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr, done.stderr


if __name__ == "__main__":
    try_imports()
    try_embedded()
    try_command_line()
