"""Programs whose threads are greenlets (gevent): patched early they work; patched late they are refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WITHIN_S = 60.0
IMPORTS = "from verity import SyncVerityClient, VerityConfigError\n"
CLIENT = "client = SyncVerityClient(namespace='payments', renew_at_fraction=0.3)\n"
PATCH = "from gevent import monkey\nmonkey.patch_all()\n"
BEFORE = "client.protect('before', act=lambda: 1)\n"
REFUSED = """
import faulthandler
faulthandler.dump_traceback_later(30, exit=True)
acts = []
for call in (
    lambda: client.protect('after', act=lambda: acts.append(1)),
    lambda: client.effects.get('after'),
):
    try:
        call()
    except VerityConfigError as error:
        assert 'gevent' in str(error), error
        print('refused')
assert acts == []
client.close()
"""
CONCURRENT = """
import gevent
acts = []
def act():
    acts.append(1)
    while 'LEASE_RENEWED' not in [each.type for each in client.effects.events('refund')]:
        gevent.sleep(0.05)
    return len(acts)
calls = [gevent.spawn(client.protect, 'refund', act=act, lease_duration_ms=10_000) for _ in range(5)]
gevent.joinall(calls, raise_error=True)
assert [each.value for each in calls] == [1] * 5, calls
client.close()
"""
FORK = """
import os
if os.fork():
    raise SystemExit(os.waitstatus_to_exitcode(os.wait()[1]))
"""


def run(program: str, tmp_path: Path) -> str:
    """What the program prints; it must end by itself."""
    environment = os.environ | {
        "VERITY_BASE_URL": f"sqlite:///{tmp_path}/verity.db",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_calls_of_greenlets_share_a_client_and_leases_are_renewed(tmp_path: Path) -> None:
    run(PATCH + IMPORTS + CLIENT + CONCURRENT, tmp_path)


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(IMPORTS + PATCH + CLIENT, id="after-import"),
        pytest.param(IMPORTS + CLIENT + BEFORE + PATCH, id="after-use"),
        pytest.param(IMPORTS + CLIENT + BEFORE + FORK + PATCH, id="after-a-fork"),  # gunicorn -k gevent --preload
    ],
)
def test_threads_that_become_greenlets_later_are_refused(program: str, tmp_path: Path) -> None:
    assert run(program + REFUSED, tmp_path).split() == ["refused"] * 2
