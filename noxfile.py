"""The sessions of CI and the slow suites: `nox` runs CI's, `nox -s NAME` one session, `nox -l` lists all."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import nox


def _runs(version: str) -> bool:
    """Whether this Python is installed. It is started: a version manager may have a shim for a missing Python."""
    found = shutil.which(f"python{version}")
    return found is not None and subprocess.run([found, "--version"], capture_output=True, check=False).returncode == 0


HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"
PYTHONS = [HERE, *(each for each in ("3.10", "3.11", "3.12", "3.13") if each != HERE and _runs(each))]
# The generator needs Python 3.11; everything else runs on each.
WORKSHOP = next(version for version in PYTHONS if version != "3.10")
OTHERS = [version for version in PYTHONS if version != WORKSHOP]
NEXT = "3.14"

nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False
nox.options.stop_on_first_error = False
# nox does not know a session without any Python. So this one is named only if another Python is installed.
nox.options.sessions = ["check_and_tests", *(["tests_elsewhere"] if OTHERS else []), "wheel"]


def _install(session: nox.Session, requirements: str) -> None:
    session.install("-q", "-e", ".[server]", "-r", requirements)


def _run(session: nox.Session, *module: str, requirements: str = "requirements-dev.txt") -> None:
    _install(session, requirements)
    session.run("python", "-m", *module, *session.posargs)


@nox.session(python=WORKSHOP)
def check_and_tests(session: nox.Session) -> None:
    """`check` and `tests` in one environment, which takes a minute to install."""
    _install(session, "requirements-dev.txt")
    try:
        session.run("python", "-m", "scripts.check")
    finally:
        session.run("python", "-m", "scripts.test", *session.posargs)


@nox.session(python=WORKSHOP)
def check(session: nox.Session) -> None:
    """Lint, types, import directions, and whether the made files are up to date."""
    _run(session, "scripts.check")


@nox.session(python=WORKSHOP)
def tests(session: nox.Session) -> None:
    """All tests, with coverage: complete for the core, at least the floor for the package."""
    _run(session, "scripts.test")


@nox.session(python=OTHERS)
def tests_elsewhere(session: nox.Session) -> None:
    """The tests on the other Pythons that are installed."""
    _run(session, "scripts.test", "--elsewhere", requirements="requirements-test.txt")


def _test_versions(session: nox.Session, which: str, *arguments: str) -> None:
    """Install the versions that `scripts.versions` chooses for the declared dependencies, and run the tests."""
    chosen = Path(session.create_tmp()) / f"{which}.txt"
    session.run("python", "-m", "scripts.versions", which, str(chosen))
    tests = ["-r", f"{chosen}.tests", "-c", str(chosen)]
    session.install("-q", "--upgrade", "--upgrade-strategy", "eager", "-e", ".[server,otel]", *tests)
    session.run("python", "-m", "scripts.test", "--elsewhere", *arguments, *session.posargs)


@nox.session(python=WORKSHOP)
def lowest(session: nox.Session) -> None:
    """The tests with the lowest version of each dependency that pyproject.toml allows."""
    _test_versions(session, "lowest", "-p", "tests.helpers.anyio_auto_mode")


@nox.session(python=WORKSHOP)
def newest(session: nox.Session) -> None:
    """The tests with the newest version of each dependency that pyproject.toml allows."""
    _test_versions(session, "newest")
    session.run("python", "-m", "pip", "list", "--outdated")  # excluded by the upper bounds and the tests' pins


@nox.session(python=NEXT)
def next_python(session: nox.Session) -> None:
    """The tests on the next Python, which is not supported yet. Skipped if it is not installed."""
    _run(session, "scripts.test", "--elsewhere", requirements="requirements-test.txt")


@nox.session(python=HERE)
def wheel(session: nox.Session) -> None:
    """The wheel in a bare environment, without and then with the extra [server]."""
    session.install("-q", "build")
    session.run("python", "-m", "scripts.wheel")


@nox.session(python=WORKSHOP)
def mutate(session: nox.Session) -> None:
    """Plant bugs; the tests must find each of them. Slow."""
    _run(session, "scripts.mutate")


@nox.session(python=HERE)
def torture(session: nox.Session) -> None:
    """20,000 effects while nodes, PostgreSQL and clients are killed. Slow."""
    _run(session, "tests.torture")


@nox.session(python=HERE)
def failover(session: nox.Session) -> None:
    """Fail over to a standby in every way while effects are under way. Slow."""
    _run(session, "tests.failover")


@nox.session(python=HERE)
def outages(session: nox.Session) -> None:
    """Take the ledger away for up to 25 seconds right before commits. Takes minutes."""
    _run(session, "tests.outages")


@nox.session(python=HERE)
def every_await(session: nox.Session) -> None:
    """Cancel the async client, end its event loop and refuse it a thread at every step. Takes minutes."""
    _run(session, "tests.every_await", requirements="requirements-test.txt")


@nox.session(python=HERE)
def steps(session: nox.Session) -> None:
    """Raise an exception at every step of the sync client, and storms of signals, on each ledger. Slow."""
    _install(session, "requirements-test.txt")
    for ledger in ("embedded", "served"):
        session.run("python", "-m", "tests.steps", "--ledger", ledger, "--storms", "5000", *session.posargs)
        session.run("python", "-m", "tests.steps", "--ledger", ledger, "--at-once", "3", *session.posargs)
    for fault in ("kill", "interrupt"):
        session.run("python", "-m", "tests.client.spool_faults", fault)


@nox.session(python=HERE)
def benchmark(session: nox.Session) -> None:
    """Measure the cost of protect(), compared with plain httpx."""
    session.install("-q", ".[server]")
    session.run("python", "-m", "benchmarks.protect", *session.posargs)


@nox.session(python=WORKSHOP)
def benchmark_ledger(session: nox.Session) -> None:
    """Measure the served ledger under load: stores, nodes, group commit, and a ledger with many effects."""
    _run(session, "benchmarks.ledger")


@nox.session(python=HERE)
def isolation(session: nox.Session) -> None:
    """Send a hundred thousand calls across all scopes on each store; no scope may show data of another. Slow."""
    _run(session, "scripts.isolation", requirements="requirements-test.txt")


@nox.session(python=WORKSHOP)
def fuzz(session: nox.Session) -> None:
    """Send requests made from the contract, and bytes that are hardly HTTP, to each store. Takes hours."""
    _run(session, "scripts.fuzz")
