"""The `verity` command as a process: run to its end, run on a terminal, or serving."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

VERITY = [sys.executable, "-W", "error", "-c", "from verity.cli import main; main()"]

_ENDS_WITHIN_S = 60


def run_verity(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*VERITY, *arguments],
        capture_output=True,
        text=True,
        timeout=_ENDS_WITHIN_S,
        check=False,
        env={**os.environ, **environment},
    )


def on_terminal(
    *arguments: str, answer: bytes = b"", before_the_answer: Callable[[], object] | None = None, **environment: str
) -> tuple[int, str]:
    """Run `verity` on a terminal where somebody types the answer; the exit code and what the terminal saw.

    `before_the_answer` is called once the command has asked. Without it, the answer is typed at once.
    """
    leader, follower = pty.openpty()
    variables = {**os.environ, "TERM": "xterm", "COLUMNS": "120", **environment}
    with subprocess.Popen(
        [*VERITY, *arguments], stdin=follower, stdout=follower, stderr=follower, env=variables
    ) as process:
        os.close(follower)
        if before_the_answer is None:
            os.write(leader, answer)
        give_up = threading.Timer(_ENDS_WITHIN_S, process.kill)
        give_up.start()
        seen = b""
        while True:
            try:
                piece = os.read(leader, 65_536)
            except OSError:  # how Linux says that the other side is closed
                break
            if not piece:
                break
            seen += piece
            if before_the_answer is not None and b"[y/N]" in seen:
                before_the_answer()
                before_the_answer = None
                os.write(leader, answer)
        give_up.cancel()
    os.close(leader)
    return process.returncode, seen.decode()


class ServeProcess:
    def __init__(self, process: subprocess.Popen[str], base_url: str, log: Path) -> None:
        self.process = process
        self.base_url = base_url
        self.port = int(base_url.removesuffix("/v1").rpartition(":")[2])
        self._log = log

    def send(self, signal_number: signal.Signals) -> None:
        self.process.send_signal(signal_number)

    def wait(self) -> int:
        return self.process.wait(timeout=_ENDS_WITHIN_S)

    @property
    def log(self) -> str:
        return self._log.read_text()


@contextmanager
def serving(
    directory: Path, *arguments: str, scheme: str = "http", verity: Sequence[str] = VERITY
) -> Iterator[ServeProcess]:
    """`verity serve` on `verity.db` in the directory, on a free port."""
    log = directory / "serve.log"
    command = [*verity, "serve", "--database", f"sqlite:///{directory}/verity.db", "--port", "0", *arguments]
    with (
        log.open("w") as stderr,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            match = re.fullmatch(rf"Verity listens on ({scheme}://127\.0\.0\.1:\d+/v1)\n", line)
            assert match, line + log.read_text()
            yield ServeProcess(process, match[1], log)
        finally:
            process.kill()
