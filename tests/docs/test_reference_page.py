"""The reference page that users already have: its snippets run as printed, in both colours, against a served ledger.

The page's address is the hosted service's; respx, as a user would use it, carries the requests to a ledger here. The
sync colour is the same text without `async` and `await`, and with `SyncVerityClient`.
"""

from __future__ import annotations

import ast
import asyncio
import http.client
import inspect
import logging
import os
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import respx

import verity
from tests.helpers.served_ledger import ServedLedger

PAGE = Path(__file__).with_name("reference_page.txt").read_text(encoding="utf-8")
SNIPPETS = dict(re.findall(r"^#--- (\w+)\n(.*?)(?=^#--- |\Z)", PAGE, re.MULTILINE | re.DOTALL))

Space = dict[str, Any]


class Page:
    """Runs snippets one after the other in one namespace, as a reader who pastes them would."""

    def __init__(self, colour: str, loop: asyncio.AbstractEventLoop) -> None:
        self._colour = colour
        self._loop = loop
        self.space: Space = {"os": os}

    def run(self, name: str) -> None:
        text = SNIPPETS[name]
        if self._colour == "sync":
            text = re.sub(r"\b(async|await) ", "", text)
            text = re.sub(r"\bVerityClient\b", "SyncVerityClient", text)
        code = compile(text, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        outcome = eval(code, self.space)
        if inspect.iscoroutine(outcome):
            self._loop.run_until_complete(outcome)

    def close(self) -> None:
        client = self.space.get("verity")
        if client is not None:
            closed = client.close()
            if inspect.iscoroutine(closed):
                self._loop.run_until_complete(closed)


class StripeObject:
    """What the provider's SDK returns: no dict (in stripe 16)."""

    def __init__(self, fields: Space) -> None:
        self.fields = fields

    def to_dict(self) -> Space:
        return self.fields


class Stripe:
    """The outside world: a payment provider in which refunds can be made and found."""

    def __init__(self) -> None:
        self.refunds: list[StripeObject] = []
        self.Refund = self

    def list(self, *, charge: str, limit: int) -> Any:
        return types.SimpleNamespace(data=[each for each in self.refunds if each.fields["charge"] == charge][:limit])

    def create(self, **fields: Any) -> StripeObject:
        self.refunds.append(StripeObject({"id": f"re_{len(self.refunds)}", **fields}))
        return self.refunds[-1]


@pytest.fixture
def ledger() -> Iterator[ServedLedger]:
    with ServedLedger() as ledger:
        yield ledger


@pytest.fixture(params=["async", "sync"])
def page(request: pytest.FixtureRequest, ledger: ServedLedger, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    monkeypatch.setenv("VERITY_API_KEY", ledger.create_key())
    address = urlsplit(ledger.base_url).netloc
    loop = asyncio.new_event_loop()

    def carry(asked: httpx.Request) -> httpx.Response:
        connection = http.client.HTTPConnection(address)
        headers = {name: value for name, value in asked.headers.items() if name != "host"}
        connection.request(asked.method, asked.url.raw_path.decode(), asked.read(), headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return httpx.Response(answer.status, headers=dict(answer.getheaders()), content=content)

    with respx.mock(assert_all_called=False) as router:
        router.route(host="api.useverity.io").mock(side_effect=carry)
        page = Page(request.param, loop)
        yield page
        page.close()
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def test_the_constructor(page: Page) -> None:
    page.run("constructor")
    expected = verity.VerityClient if page._colour == "async" else verity.SyncVerityClient
    assert type(page.space["verity"]) is expected


def test_the_retry_settings_are_the_defaults(page: Page) -> None:
    page.run("conflict_retry")
    assert page.space["config"] == verity.ConflictRetryConfig()


def test_protect_and_the_workflow(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    stripe = Stripe()
    monkeypatch.setitem(sys.modules, "stripe", stripe)
    page.space |= {"charge_id": "ch_1", "order_id": "order_48392"}
    page.run("protect")
    assert page.space["refund"] == {"id": "re_0", "charge": "ch_1", "amount": 4999, "reason": "requested_by_customer"}
    page.close()
    page.run("protect")
    assert len(stripe.refunds) == 1, "the second call got the first one's result"

    done: list[str] = []
    page.space |= {
        "charge_id": "ch_2",
        "validate_order": lambda: done.append("validated"),
        "send_notification_email": lambda: done.append("sent"),
    }
    page.run("workflow")
    page.run("workflow")
    assert done == ["validated", "sent"]
    assert [each.fields["charge"] for each in stripe.refunds] == ["ch_1", "ch_2"]


def test_the_low_level_calls(page: Page, ledger: ServedLedger) -> None:
    page.run("constructor")
    page.run("exports")
    page.run("low_level")
    with pytest.raises(verity.VerityApiError, match="effect_finished"):
        page.run("low_level_fail")
    key = page.space["lease"].effect_key
    assert key == "refund:order_123"


def test_the_low_level_calls_of_a_running_effect(page: Page) -> None:
    page.run("constructor")
    page.run("exports")
    head, _, _ = SNIPPETS["low_level"].partition("# Commit a result")
    SNIPPETS["low_level_head"] = head
    page.run("low_level_head")
    page.run("low_level_renew")
    page.run("low_level_fail")
    with pytest.raises(verity.VerityApiError, match="effect_finished"):
        page.run("low_level_renew")


def test_the_errors_can_be_imported_and_share_one_base(page: Page) -> None:
    page.run("errors")
    for name, value in page.space.items():
        if name.endswith("Error") and not name.startswith("__"):
            assert issubclass(value, verity.VerityError)


@pytest.mark.parametrize(
    ("act", "logged"),
    [
        ("decline", "Effect refund:order_123 previously failed"),
        ("return_no_json", "Commit uncertain for refund:order_123. Result: <object object"),
    ],
)
def test_catching_errors(page: Page, act: str, logged: str, caplog: pytest.LogCaptureFixture) -> None:
    alerts: list[Exception] = []

    def decline() -> None:
        raise RuntimeError("declined")

    page.run("constructor")
    page.space |= {
        "logger": logging.getLogger("app"),
        "alert_ops_team": alerts.append,
        "execute_refund": decline if act == "decline" else object,
    }
    caplog.set_level(logging.INFO, "app")
    if act == "decline":
        with pytest.raises(RuntimeError, match="declined"):
            page.run("catching")
    page.run("catching")
    assert logged in caplog.text
    assert len(alerts) == (act != "decline")


def test_another_holder(page: Page, caplog: pytest.LogCaptureFixture) -> None:
    page.run("constructor")
    page.run("exports")
    SNIPPETS["low_level_head"] = SNIPPETS["low_level"].partition("# Commit a result")[0]
    page.run("low_level_head")
    page.space |= {"logger": logging.getLogger("app"), "execute_refund": lambda: None}
    caplog.set_level(logging.INFO, "app")
    text = SNIPPETS["catching"]
    SNIPPETS["catching_at_once"] = text.replace("act=execute_refund)", 'act=execute_refund, on_conflict="throw")')
    page.run("catching_at_once")
    assert "Effect refund:order_123 is being processed by another agent" in caplog.text


def test_exports(page: Page) -> None:
    page.run("exports")


def test_the_parameters_are_those_of_the_tables() -> None:
    constructor = inspect.signature(verity.VerityClient).parameters
    table = {
        "namespace": None,
        "agent_id": None,
        "auto_renew": True,
        "renew_at_fraction": 0.65,
        "request_timeout_s": 20.0,
        "conflict_retry": None,
        "logger": None,
    }
    assert {name: constructor[name].default for name in table} == table
    for client in (verity.VerityClient, verity.SyncVerityClient):
        assert list(inspect.signature(client).parameters)[:9] == ["base_url", "api_key", *table]
        protect = inspect.signature(client.protect).parameters
        assert list(protect)[1:13] == [
            "effect_key",
            "act",
            "observe",
            "namespace",
            "effect_name",
            "agent_id",
            "lease_duration_ms",
            "input_json",
            "on_conflict",
            "on_lease",
            "key_suffix",
            "on_observe_error",
        ]
