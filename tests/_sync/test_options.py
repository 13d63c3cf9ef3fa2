# Made from tests/_async/test_options.py by scripts/mirror.py. Do not edit.
"""The options of `protect()`: type checkers and the two methods agree on them, and none is lost on its way."""

from __future__ import annotations

import inspect
from typing import Any, get_type_hints

import pytest

from verity import SyncVerityClient, VerityError
from verity._sync.options import ProtectOptions
from verity._sync.workflow import SyncRun

OPTIONS = get_type_hints(ProtectOptions)


@pytest.mark.parametrize("method", [SyncVerityClient.protect, SyncRun.protect])
def test_a_method_spells_out_each_option_with_its_type_and_its_default(method: Any) -> None:
    hints = get_type_hints(method)
    parameters = list(inspect.signature(method).parameters.values())[3:]
    assert {each.name: hints[each.name] for each in parameters} == OPTIONS
    assert [each.default for each in parameters] == ["retry" if each == "on_conflict" else None for each in OPTIONS]


@pytest.mark.parametrize("option", OPTIONS)
def test_each_option_is_read_by_either_method(option: str) -> None:
    wrong: Any = {option: object()}
    with SyncVerityClient("sqlite://", namespace="payments") as client:
        for protect in (client.protect, client.workflow("refund_flow").case("order_1").run().protect):
            with pytest.raises(VerityError) as caught:
                protect("key", act=lambda: 1, **wrong)
            assert getattr(caught.value, "parameter", None) == option
