"""No API key, payload or lease token in a log line, a repr, an error or a traceback, whatever happens."""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.helpers._sync.faulty_transport import Says, SyncFaultyTransport
from tests.helpers.served_ledger import ServedLedger, TestClock
from verity import (
    CommitRequestBody,
    ConflictRetryConfig,
    EffectPolicy,
    FailRequestBody,
    LeaseRequestBody,
    RenewRequestBody,
    ReportObserveBody,
    SyncVerityClient,
    VerityClient,
    VerityError,
)
from verity.server.settings import ServerSettings

PAYLOAD = "pay10ad-4111-1111"


class Everything:
    """Keeps what a person could see."""

    def __init__(self) -> None:
        self.shown: list[str] = []
        self.secrets = [PAYLOAD]

    def show(self, *things: object) -> None:
        self.shown += [form(thing) for thing in things for form in (repr, str)]

    def raising(self, kind: type[BaseException], call: Callable[[], Any]) -> None:
        with pytest.raises(kind) as caught:
            call()
        if isinstance(caught.value, VerityError):
            self.show(caught.value)
            self.shown.append("".join(traceback.format_exception(caught.value)))

    def leaks(self) -> list[str]:
        return [text for text in self.shown for secret in self.secrets if secret in text]


def test_nothing_secret_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    seen = Everything()
    clock = TestClock()
    settings = replace(ServerSettings(), access_log=True)
    result = {"card": PAYLOAD}
    with ServedLedger(clock=clock, settings=settings) as served:
        key = served.create_key()
        seen.secrets.append(key)
        network = SyncFaultyTransport()
        retry = ConflictRetryConfig(max_attempts=2, initial_delay_s=0.001, max_delay_s=0.001)
        with SyncVerityClient(served.base_url, key, "payments", transport=network, conflict_retry=retry) as client:
            run = client.workflow("flow").case("case").run()
            seen.show(client, run, client.workflow("flow"), VerityClient(served.base_url, key))
            leases: list[Any] = []
            client.protect("done", act=lambda: result, input_json=result, on_lease=leases.append)
            client.protect("done", act=lambda: result)
            run.protect("step", act=lambda: result, observe=lambda: result)
            lease = client.request_lease("payments", LeaseRequestBody(effect_key="held", input_json=result))
            leases.append(lease)
            tokens: Any = {"effect_key": "held", "fence_token": 1, "lease_token": lease.lease_token}
            bodies = [
                CommitRequestBody(**tokens, result=result),
                FailRequestBody(**tokens, error=result),
                RenewRequestBody(**tokens),
                ReportObserveBody(**tokens, hit=True),
                LeaseRequestBody(effect_key="held", input_json=result),
            ]
            seen.show(*bodies, *leases, client.request_lease("payments", {"effectKey": "done"}))
            seen.raising(VerityError, lambda: client.protect("held", act=lambda: result))
            seen.raising(
                VerityError, lambda: client.commit("payments", CommitRequestBody("held", 9, "old token", result))
            )
            seen.raising(LookupError, lambda: client.protect("fails", act=_raise))
            seen.raising(VerityError, lambda: client.protect("fails", act=lambda: result))
            seen.raising(VerityError, lambda: client.protect("odd", act=lambda: {"card": {PAYLOAD}}))
            always = EffectPolicy(observe_when="always")
            seen.raising(VerityError, lambda: client.protect("observed", act=lambda: 1, observe=_raise, policy=always))
            seen.raising(TimeoutError, lambda: client.protect("late", act=_time_out))
            seen.raising(VerityError, lambda: client.protect("late", act=lambda: result))
            seen.raising(VerityError, lambda: client.protect("large", act=lambda: PAYLOAD * 10_000))
            network.faults["commit"] = [Says(500)] * 3
            seen.raising(VerityError, lambda: client.protect("uncertain", act=lambda: result))
            clock.advance(30_000)
            seen.raising(VerityError, lambda: client.protect("late", act=lambda: result))
            client.protect("held", act=lambda: result, observe=lambda: None)
            effects = client.effects
            assert any(effect.result == result for effect in effects.list())
            seen.show(effects, *effects.list(), *effects.list().pages(), effects.get("done"), *effects.events("done"))
            seen.raising(VerityError, lambda: effects.resolve("fails", result))
            for made in leases:
                seen.secrets.append(made.lease_token)
        network.close()
        typo = key[:-1] + ("a" if key[-1] != "a" else "b")
        seen.secrets.append(typo)
        with SyncVerityClient(served.base_url, typo, "payments") as stranger:
            seen.raising(VerityError, lambda: stranger.protect("done", act=lambda: result))
        seen.raising(VerityError, lambda: SyncVerityClient(f"http://user:{key}@ledger/v1", key))
        seen.show(served.store, settings)
    logged = [logging.Formatter().format(record) for record in caplog.records]
    assert any("held" in line for line in logged), "something was logged"
    assert any(re.match(r"POST \d+", line) for line in logged), "by the server, too"
    seen.shown += logged
    assert len(seen.shown) > 100
    assert seen.leaks() == []


def _time_out() -> Any:
    raise TimeoutError(PAYLOAD[:3])


def _raise() -> Any:
    raise LookupError("not found")
