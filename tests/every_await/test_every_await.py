"""The short form: some of the moments of each call. `python -m tests.every_await` takes every one."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from tests.every_await.faults import FAULTS
from tests.every_await.runs import SHAPES, Ledger, check_run, open_ledger

MOST = 500
"""No call has so many steps."""


@pytest.fixture(scope="module", params=["embedded", "served"])
def ledger(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    with open_ledger(request.param, tmp_path_factory.mktemp("every-await")) as opened:
        yield opened


# httpx's own: trio tells where a request's body was left in the middle.
@pytest.mark.filterwarnings("ignore:Exception ignored in.*ByteStream.__aiter__:pytest.PytestUnraisableExceptionWarning")
# anyio's own: where a loop ends right after it made the task of a connection attempt, that task never begins.
@pytest.mark.filterwarnings("ignore:Exception ignored in.*try_connect:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_at_a_step_loses_nothing(fault: str, ledger: Ledger) -> None:
    for number, shape in enumerate(SHAPES):
        every = 3 if "cancelled" in fault else 1
        at = 1 + number % every
        while check_run(ledger, fault, shape, at):
            at += every
            assert at < MOST
    gc.collect()  # this test ignores the warnings of what is left in cycles: a later one would not
