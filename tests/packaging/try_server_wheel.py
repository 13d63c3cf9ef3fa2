"""Run by scripts/wheel.py in an environment that has the wheel with the extra [server]."""

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from verity import SyncVerityClient

VERITY = str(Path(sys.executable).with_name("verity"))


def main() -> None:
    """Make a key, serve, protect an effect over HTTP, stop."""
    with tempfile.TemporaryDirectory() as directory:
        database = f"sqlite:///{directory}/verity.db"
        made = subprocess.run(
            [VERITY, "keys", "create", "--database", database, "--environment", "test", "--role", "agent"],
            capture_output=True,
            text=True,
            check=True,
        )
        key = made.stdout.strip()
        assert key.startswith("vt_test_"), "the key stands alone on stdout"
        server = subprocess.Popen(
            [VERITY, "serve", "--database", database, "--port", "0"], stdout=subprocess.PIPE, text=True
        )
        assert server.stdout is not None
        try:
            url = server.stdout.readline().split()[-1]
            with SyncVerityClient(url, key, "payments") as client:
                results = [client.protect("refund:1", act=lambda: {"refund": "re_1"}) for _ in range(2)]
            assert results == [{"refund": "re_1"}] * 2, results
        finally:
            server.send_signal(signal.SIGTERM)
            assert server.wait(30) == 0
            server.stdout.close()


if __name__ == "__main__":
    main()
