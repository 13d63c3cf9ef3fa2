from __future__ import annotations

import httpx
import pytest

from tests.helpers.served_ledger import ServedLedger
from verity._ledger.calls import Answer
from verity.server.rate_limiter import BYTES_PER_TOKEN, SEARCH_COST, RateLimiter, TokenBuckets
from verity.server.settings import ServerSettings


class Ticker:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


LEASE, COMMIT, RENEW, SEARCH, LOOKUP = "lease_effect", "commit_effect", "renew_effect", "get_stats", "get_effect"
ACCEPTED = Answer(200, b"", outcome=("accepted", "acted"))
REPEATED = Answer(200, b"", outcome=("already_committed", ""))
NOT_THERE, STALE = Answer(404, b"", outcome=("effect_not_found", "")), Answer(409, b"", outcome=("stale_fence", ""))
BROKEN = Answer(503, b"", outcome=("unavailable", ""))


def test_a_seconds_worth_at_once_and_then_as_they_come() -> None:
    ticker = Ticker()
    limiter = RateLimiter(4, monotonic=ticker)
    assert [limiter.admit("a", LEASE) for _ in range(4)] == [0.0] * 4
    assert limiter.admit("a", LEASE) == 0.25
    assert limiter.admit("b", LEASE) == 0.0
    ticker.now_s += 0.25
    assert limiter.admit("a", LOOKUP) == 0.0
    assert limiter.admit("a", LEASE) == 0.25
    ticker.now_s += 3600
    assert [limiter.admit("a", LEASE) for _ in range(5)] == [0.0] * 4 + [0.25]


def test_what_finishes_something_goes_through_and_the_others_pay() -> None:
    ticker = Ticker()
    limiter = RateLimiter(2, monotonic=ticker)
    for _ in range(1000):
        assert limiter.admit("a", COMMIT) == 0.0
        limiter.record_answer("a", COMMIT, ACCEPTED)
    assert limiter.admit("a", LEASE) == 9.5
    ticker.now_s += 9.5
    assert limiter.admit("a", LEASE) == 0.0


@pytest.mark.parametrize("answer", [NOT_THERE, STALE, REPEATED, Answer(400, b"")])
def test_what_finishes_nothing_is_refused_once_it_was_too_much(answer: Answer) -> None:
    ticker = Ticker()
    limiter = RateLimiter(20, monotonic=ticker)
    passed = 0
    for number in range(400):
        if not limiter.admit("a", (COMMIT, RENEW)[number % 2]):
            limiter.record_answer("a", COMMIT, answer)
            passed += 1
    assert passed == 20
    assert limiter.admit("b", COMMIT) == 0.0
    ticker.now_s += 0.05
    assert limiter.admit("a", COMMIT) == 0.0, "a holder of the same key gets its turn"


def test_a_holder_waits_for_no_more_than_the_largest_debt() -> None:
    """Of many at once nobody knows what they come to."""
    limiter = RateLimiter(20, monotonic=Ticker())
    assert [limiter.admit("a", COMMIT) for _ in range(10_000)] == [0.0] * 10_000
    for _ in range(10_000):
        limiter.record_answer("a", COMMIT, STALE)
    assert limiter.admit("a", COMMIT) == pytest.approx(1.05)


def test_what_the_ledger_could_not_do_is_not_charged() -> None:
    limiter = RateLimiter(2, monotonic=Ticker())
    for _ in range(100):
        limiter.record_answer("a", COMMIT, BROKEN)
    assert limiter.admit("a", COMMIT) == 0.0


def test_lists_and_counts_cost_more_and_so_do_large_bodies() -> None:
    ticker = Ticker()
    limiter = RateLimiter(2 * SEARCH_COST, monotonic=ticker)
    assert [limiter.admit("a", SEARCH) for _ in range(3)] == [0.0, 0.0, 0.5]
    limiter.charge_body("b", BYTES_PER_TOKEN - 1)
    assert [limiter.admit("b", LEASE) for _ in range(2 * SEARCH_COST)] == [0.0] * 2 * SEARCH_COST
    limiter.charge_body("c", 4 * BYTES_PER_TOKEN)
    assert limiter.admit("c", SEARCH) == 0.0
    assert limiter.admit("c", SEARCH) == pytest.approx(0.2)


def test_what_costs_more_than_a_second_goes_through_where_nothing_was_asked_for() -> None:
    ticker = Ticker()
    limiter = RateLimiter(2, monotonic=ticker)
    assert limiter.admit("a", SEARCH) == 0.0
    assert limiter.admit("a", SEARCH) == SEARCH_COST / 2
    ticker.now_s += SEARCH_COST / 2
    assert limiter.admit("a", SEARCH) == 0.0


def test_without_a_limit_nothing_is_refused() -> None:
    limiter = RateLimiter(0)
    assert [limiter.admit("a", LEASE) for _ in range(10)] == [0.0] * 10
    limiter.charge_body("a", 10**6)
    limiter.record_answer("a", COMMIT, STALE)


def test_keys_whose_buckets_are_full_are_forgotten() -> None:
    ticker = Ticker()
    buckets = TokenBuckets(1, 10.0, ticker)
    for number in range(30_000):
        buckets.charge(str(number))
        ticker.now_s += 0.001
    assert len(buckets._full_at) <= 10_001


def test_a_key_over_its_limit_can_still_finish_what_it_began() -> None:
    with ServedLedger(settings=ServerSettings(rate_limit=2)) as served:
        headers = {"Authorization": f"Bearer {served.create_key()}"}
        other = {"Authorization": f"Bearer {served.create_key()}"}
        with httpx.Client(base_url=served.base_url, headers=headers) as client:
            granted = client.post("/effects/payments/lease", json={"effectKey": "a"}).json()
            refused = client.get("/namespaces")  # which costs more than what is left
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limited")
            assert int(refused.headers["retry-after"]) >= 1
            grant = {"effectKey": "a", "fenceToken": granted["fenceToken"], "leaseToken": granted["leaseToken"]}
            assert client.post("/effects/payments/renew", json=grant).status_code == 200
            released = client.post("/effects/payments/release", json={**grant, "acted": "unknown"})
            assert released.status_code == 200
            assert client.post("/effects/payments/commit", json={**grant, "result": 1}).status_code == 200
            assert client.post("/effects/payments/fail", json={**grant, "error": 1}).status_code == 409
            assert client.get("/namespaces", headers=other).status_code == 200
        text = httpx.get(served.base_url.replace("/v1", "/metrics")).text
        assert "\nverity_rate_limited_total 1" in text


def test_who_commits_what_is_not_there_is_refused_and_others_are_not() -> None:
    with ServedLedger(settings=ServerSettings(rate_limit=5, key_cache_s=60)) as served:
        greedy = {"Authorization": f"Bearer {served.create_key()}"}
        other = {"Authorization": f"Bearer {served.create_key()}"}
        body = {"effectKey": "nowhere", "fenceToken": 1, "leaseToken": "x", "result": 1}
        with httpx.Client(base_url=served.base_url, headers=greedy) as client:
            statuses = []
            while 429 not in statuses:
                statuses.append(client.post("/effects/payments/commit", json=body).status_code)
                assert len(statuses) < 1_000
            assert set(statuses) == {404, 429}
            assert client.post("/effects/payments/commit", json=body, headers=other).status_code == 404
