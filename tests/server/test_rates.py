from __future__ import annotations

import httpx

from tests.served import ServedLedger
from verity.server.rates import RateLimit
from verity.server.settings import ServerSettings


class Ticker:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_a_seconds_worth_at_once_and_then_as_they_come() -> None:
    ticker = Ticker()
    rates = RateLimit(4, monotonic=ticker)
    assert [rates.take("a") for _ in range(4)] == [0.0] * 4
    assert rates.take("a") == 0.25
    assert rates.take("b") == 0.0
    ticker.now_s += 0.25
    assert rates.take("a") == 0.0
    assert rates.take("a") == 0.25
    ticker.now_s += 3600
    assert [rates.take("a") for _ in range(5)] == [0.0] * 4 + [0.25]


def test_what_must_go_through_does_and_the_others_pay() -> None:
    ticker = Ticker()
    rates = RateLimit(2, monotonic=ticker)
    assert [rates.take("a", must=True) for _ in range(1000)] == [0.0] * 1000
    assert rates.take("a") == 9.5
    ticker.now_s += 9.5
    assert rates.take("a") == 0.0


def test_without_a_limit_nothing_is_remembered() -> None:
    rates = RateLimit(0)
    assert [rates.take("a") for _ in range(10)] == [0.0] * 10
    assert not rates._full_at


def test_keys_whose_buckets_are_full_are_forgotten() -> None:
    ticker = Ticker()
    rates = RateLimit(1, monotonic=ticker)
    for number in range(30_000):
        rates.take(str(number))
        ticker.now_s += 0.001
    assert len(rates._full_at) <= 10_001


def test_a_key_over_its_limit_can_still_finish_what_it_began() -> None:
    with ServedLedger(settings=ServerSettings(rate_limit=2)) as served:
        headers = {"Authorization": f"Bearer {served.create_key()}"}
        other = {"Authorization": f"Bearer {served.create_key()}"}
        with httpx.Client(base_url=served.base_url, headers=headers) as client:
            granted = client.post("/effects/payments/lease", json={"effectKey": "a"}).json()
            answers = [client.get("/namespaces") for _ in range(20)]
            refused = next(answer for answer in answers if answer.status_code != 200)
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limited")
            assert int(refused.headers["retry-after"]) >= 1
            grant = {"effectKey": "a", "fenceToken": granted["fenceToken"], "leaseToken": granted["leaseToken"]}
            assert client.post("/effects/payments/renew", json=grant).status_code == 200
            assert client.post("/effects/payments/commit", json={**grant, "result": 1}).status_code == 200
            assert client.post("/effects/payments/fail", json={**grant, "error": 1}).status_code == 409
            assert client.get("/namespaces", headers=other).status_code == 200
        text = httpx.get(served.base_url.replace("/v1", "/metrics")).text
        assert "\nverity_rate_limited_total 1" in text
