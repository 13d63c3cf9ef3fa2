"""Gunicorn as a process, on a listening socket of ours: requests wait in its backlog until a worker accepts them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
_STOPS_WITHIN_S = 60


@contextmanager
def gunicorn(app: str, log: Path, environment: Mapping[str, str], *options: str) -> Iterator[int]:
    """Serve `module:app`; yields the port. Fails unless gunicorn exits with 0 and logs no traceback."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        port: int = listener.getsockname()[1]
        command = [sys.executable, "-X", "dev", "-m", "gunicorn", app, "--bind", f"fd://{listener.fileno()}"]
        with log.open("w") as output:
            process = subprocess.Popen(
                [*command, "--no-control-socket", *options],
                cwd=ROOT,
                env={**os.environ, **environment},
                pass_fds=[listener.fileno()],
                stdout=output,
                stderr=output,
            )
    try:
        yield port
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=_STOPS_WITHIN_S) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in log.read_text(), log.read_text()
