"""For anyio before 4.11, whose pytest plugin has no `anyio_mode`: `pytest -p tests.helpers.anyio_auto_mode`.

Every coroutine function is a test of anyio's, as with `anyio_mode = "auto"` in pyproject.toml.
"""

from __future__ import annotations

import inspect
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the setting of pyproject.toml, which this anyio does not know."""
    parser.addini("anyio_mode", "every coroutine function is a test", default="auto")


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(collector: pytest.Collector, name: str, obj: Any) -> None:
    """Mark the test, and request the fixture that anyio's own hook, if it ran first, adds only to marked tests."""
    if isinstance(collector, (pytest.Module, pytest.Class)) and collector.istestfunction(obj, name):
        function = obj.hypothesis.inner_test if hasattr(obj, "hypothesis") else obj
        if inspect.iscoroutinefunction(function):
            pytest.mark.anyio(obj)
            pytest.mark.usefixtures("anyio_backend")(obj)
