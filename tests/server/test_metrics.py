"""`/metrics`: each call counted once, by words from a fixed set, and a scrape that outlives its storage."""

from __future__ import annotations

import asyncio
import math
import re
from pathlib import Path

import apsw
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from tests.helpers.served_ledger import ServedLedger, TestClock
from tests.helpers.store_double import StoreDouble
from tests.helpers.verity_process import run_verity, serving
from verity._ledger.calls import Answer, Request
from verity._store.api_keys import ApiKey
from verity._store.interface import Pool
from verity.server.metrics import Metrics, _Requests

DOCS = Path(__file__).resolve().parents[2] / "docs" / "operations.md"


class Scrapes:
    def __init__(self, base_url: str) -> None:
        self._url = base_url.replace("/v1", "/metrics")

    def text(self) -> str:
        response = httpx.get(self._url)
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        return response.text

    def value(self, name: str, **labels: str) -> float:
        """A sample's value; 0 where there is none yet."""
        found = [
            sample.value
            for family in parse(self.text())
            for sample in family.samples
            if sample.name == name and sample.labels == labels
        ]
        return found[0] if found else 0.0


@pytest.fixture
def scrapes(served: ServedLedger) -> Scrapes:
    return Scrapes(served.base_url)


def lease(client: httpx.Client, key: str, namespace: str = "payments") -> dict[str, object]:
    granted = client.post(f"/effects/{namespace}/lease", json={"effectKey": key}).json()
    return {"effectKey": key, "fenceToken": granted["fenceToken"], "leaseToken": granted["leaseToken"]}


def test_requests_and_their_latencies(agent: httpx.Client, scrapes: Scrapes) -> None:
    lease(agent, "requests")
    agent.post("/effects/payments/commit", json={})
    agent.get("/nowhere")
    assert scrapes.value("verity_requests_total", operation="lease_effect", status="200") >= 1
    assert scrapes.value("verity_requests_total", operation="commit_effect", status="400") == 1
    assert scrapes.value("verity_requests_total", operation="unknown", status="404") == 1
    assert scrapes.value("verity_request_duration_seconds_count", operation="commit_effect") == 1


def test_a_latency_is_in_every_bucket_that_it_fits_in() -> None:
    requests = _Requests()
    for seconds in (0.001, 0.0011, 0.3, 99.0):
        requests.count("commit_effect", 200, seconds)
    _, latencies = requests.collect()
    found = {sample.labels.get("le"): sample.value for sample in latencies.samples}
    assert [found[bound] for bound in ("0.001", "0.0025", "0.25", "0.5", "30.0", "+Inf")] == [1, 2, 2, 3, 3, 4]
    assert {sample.name: sample.value for sample in latencies.samples if "le" not in sample.labels} == {
        "verity_request_duration_seconds_count": 4,
        "verity_request_duration_seconds_sum": pytest.approx(99.3021),
    }


def test_what_calls_came_to(agent: httpx.Client, admin: httpx.Client, clock: TestClock, scrapes: Scrapes) -> None:
    def counts() -> dict[str, float]:
        return {
            "none": scrapes.value("verity_leases_granted_total", prior_state="none"),
            "expired": scrapes.value("verity_leases_granted_total", prior_state="expired"),
            "reset": scrapes.value("verity_leases_granted_total", prior_state="reset"),
            "renewed": scrapes.value("verity_leases_renewed_total"),
            "given back": scrapes.value("verity_leases_released_total", acted="no"),
            "released": scrapes.value("verity_leases_released_total", acted="unknown"),
            "cached": scrapes.value("verity_leases_decided_total", outcome="completed"),
            "failed before": scrapes.value("verity_leases_decided_total", outcome="failed"),
            "conflict": scrapes.value("verity_conflicts_total", code="lease_conflict"),
            "stale": scrapes.value("verity_conflicts_total", code="stale_fence"),
            "acted": scrapes.value("verity_commits_total", source="acted"),
            "observed": scrapes.value("verity_commits_total", source="observed"),
            "resolved": scrapes.value("verity_commits_total", source="resolved"),
            "failures": scrapes.value("verity_failures_total"),
            "resets": scrapes.value("verity_resets_total"),
        }

    before = counts()
    for source in ("acted", "observed"):
        agent.post("/effects/payments/commit", json={**lease(agent, source), "result": 1, "source": source})
    agent.post("/effects/payments/lease", json={"effectKey": "acted"})
    stale = lease(agent, "taken over")
    agent.post("/effects/payments/lease", json={"effectKey": "taken over"})
    clock.advance(60_000)
    current = lease(agent, "taken over")
    agent.post("/effects/payments/renew", json=stale)
    agent.post("/effects/payments/renew", json=current)
    agent.post("/effects/payments/fail", json={**current, "error": "no", "source": "acted"})
    agent.post("/effects/payments/lease", json={"effectKey": "taken over"})
    admin.post("/effects/payments/reset", json={"effectKey": "taken over", "mode": "retry"})
    agent.post("/effects/payments/fail", json={**lease(agent, "taken over"), "error": "no", "source": "acted"})
    admin.post("/effects/payments/resolve", json={"effectKey": "taken over", "result": 1})
    for acted in ("no", "unknown"):
        agent.post("/effects/payments/release", json={**lease(agent, f"released {acted}"), "acted": acted})
    after = counts()
    assert {name: after[name] - before[name] for name in after} == {
        "none": 5, "expired": 1, "reset": 1, "renewed": 1, "cached": 1, "failed before": 1, "conflict": 1, "stale": 1,
        "acted": 1, "observed": 1, "resolved": 1, "failures": 2, "resets": 1, "given back": 1, "released": 1,
    }  # fmt: skip


def test_group_commits_and_connections(agent: httpx.Client, scrapes: Scrapes) -> None:
    operations = scrapes.value("verity_group_commit_size_sum")
    lease(agent, "in a batch")
    assert scrapes.value("verity_group_commit_size_sum") == operations + 1
    assert scrapes.value("verity_open_connections") >= 2  # the agent's, and the scrape's own


def test_the_oldest_expired_effect(agent: httpx.Client) -> None:
    clock = TestClock()
    with ServedLedger(clock=clock) as served:
        headers = {"Authorization": f"Bearer {served.create_key('test')}"}
        for key in ("older", "newer"):
            httpx.post(
                f"{served.base_url}/effects/x/lease", json={"effectKey": key}, headers=headers
            ).raise_for_status()
            clock.advance(7_000)
        clock.advance(30_000)
        scrapes = Scrapes(served.base_url)
        assert scrapes.value("verity_oldest_expired_effect_age_seconds", environment="test") == 14
        assert scrapes.value("verity_oldest_expired_effect_age_seconds", environment="live") == 0
        clock.advance(1_000)  # kept for a few seconds: scrapes don't add up to a load
        assert scrapes.value("verity_oldest_expired_effect_age_seconds", environment="test") == 14


def test_a_scrape_outlives_its_storage(tmp_path: Path) -> None:
    with ServedLedger(f"sqlite:///{tmp_path}/verity.db") as served:
        apsw.Connection(f"{tmp_path}/verity.db").execute("ALTER TABLE effects RENAME TO gone")
        scrapes = Scrapes(served.base_url)
        age = scrapes.value("verity_oldest_expired_effect_age_seconds", environment="live")
        assert math.isnan(age)
        assert scrapes.value("verity_open_connections") >= 1


def test_no_label_tells_of_anybodys_data(served: ServedLedger, agent: httpx.Client, scrapes: Scrapes) -> None:
    agent.post(
        "/effects/secret-namespace/commit",
        json={**lease(agent, "secret-key", "secret-namespace"), "result": "secret-pay"},
    )
    agent.get("/effects/secret-namespace/effect?effectKey=secret-key")
    agent.get("/secret-path")
    text = scrapes.text()
    assert "secret" not in text
    assert "vt_" not in text
    samples = [sample for family in parse(text) for sample in family.samples]
    words = {value for sample in samples for name, value in sample.labels.items() if name != "le"}
    assert len(words) < 60


def test_the_method(agent: httpx.Client, served: ServedLedger) -> None:
    url = served.base_url.replace("/v1", "/metrics")
    assert httpx.post(url).status_code == 405
    assert httpx.head(url).content == b""


def test_a_ledger_in_postgresql_tells_the_same_and_of_its_pool(postgres_url: str, tmp_path: Path) -> None:
    made = run_verity("keys", "create", "--environment", "test", "--role", "agent", VERITY_DATABASE=postgres_url)
    with serving(tmp_path, "--database", postgres_url) as server:
        scrapes = Scrapes(server.base_url)
        with httpx.Client(
            base_url=server.base_url, headers={"Authorization": f"Bearer {made.stdout.strip()}"}
        ) as client:
            client.post("/effects/payments/commit", json={**lease(client, "a"), "result": 1}).raise_for_status()
        assert scrapes.value("verity_leases_granted_total", prior_state="none") == 1
        assert scrapes.value("verity_commits_total", source="acted") == 1
        assert scrapes.value("verity_group_commit_size_sum") == 2
        assert scrapes.value("verity_oldest_expired_effect_age_seconds", environment="test") == 0
        assert scrapes.value("verity_pool_connections") >= scrapes.value("verity_pool_idle_connections") >= 1


class PooledStore(StoreDouble):
    async def answer(self, request: Request) -> Answer:
        raise AssertionError

    async def find_key(self, sha256: bytes) -> ApiKey | None:
        raise AssertionError

    def pool(self) -> Pool:
        return Pool(size=7, idle=4)


async def test_the_pool_and_open_waits() -> None:
    metrics = Metrics(PooledStore())
    metrics.watch_waits(lambda: 3)
    text = (await metrics.render()).decode()
    for line in ("verity_pool_connections 7.0", "verity_pool_idle_connections 4.0", "verity_open_waits 3.0"):
        assert f"\n{line}\n" in text


async def test_a_scrape_is_made_once_for_all_who_ask() -> None:
    now_s = 100.0
    metrics = Metrics(PooledStore(), kept_s=1.0, monotonic=lambda: now_s)
    rendered: list[int] = []

    def count() -> int:
        rendered.append(1)
        return 0

    metrics.watch_waits(count)
    texts = {text for _ in range(3) for text in await asyncio.gather(*(metrics.render() for _ in range(100)))}
    assert (len(texts), len(rendered)) == (1, 1)
    now_s += 1.0
    await metrics.render()
    assert len(rendered) == 2


async def test_a_scrape_that_is_given_up_is_there_for_the_others() -> None:
    metrics = Metrics(PooledStore(), kept_s=1.0)
    impatient, patient = (asyncio.create_task(metrics.render()) for _ in range(2))
    await asyncio.sleep(0)
    impatient.cancel()
    assert b"verity_pool_connections 7.0" in await patient


def test_metrics_on_an_address_of_their_own(tmp_path: Path) -> None:
    with serving(tmp_path, "--metrics-listen", "127.0.0.1:0", "--max-connections", "1") as server:
        assert server.process.stdout is not None
        told = re.fullmatch(r"Its metrics are at (http://127\.0\.0\.1:\d+)/metrics\n", server.process.stdout.readline())
        assert told
        api = server.base_url.replace("/v1", "")
        with httpx.Client(base_url=api) as client:  # which has all connections that there may be
            assert client.get("/healthz").status_code == 200
            answer = client.get("/metrics")
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
            text = httpx.get(f"{told[1]}/metrics").text
            assert 'verity_requests_total{operation="healthz",status="200"} 1.0' in text
            assert "\nverity_open_connections 1.0\n" in text
        assert httpx.get(f"{told[1]}/readyz").status_code == 200
        assert httpx.get(f"{told[1]}/v1/effects").status_code == 404


@pytest.mark.parametrize("address", ["9420", "host:", "::1:9420", "host:70000", "a b:1"])
def test_an_address_that_is_none(address: str) -> None:
    done = run_verity("serve", "--database", "sqlite:///x.db", "--metrics-listen", address)
    assert (done.returncode, "127.0.0.1:9420" in done.stderr) == (2, True)


async def test_every_metric_is_documented() -> None:
    metrics = Metrics(PooledStore())
    metrics.watch_waits(lambda: 0)
    metrics.watch_connections(lambda: 0)
    metrics.count_request("lease_effect", 200, 0.001)
    text = (await metrics.render()).decode()
    names = {name for name in re.findall(r"^# TYPE (verity_\w+) ", text, re.MULTILINE) if not name.endswith("_created")}
    documented = re.findall(r"^\| `(verity_\w+)` \|", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(names) == sorted(documented)
