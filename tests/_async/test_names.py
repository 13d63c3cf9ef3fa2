"""Names and numbers of the user's own types: their plain value travels, everywhere."""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Any

import pytest

from tests.helpers._async.world import AsyncWorld
from verity import (
    CommitRequestBody,
    LeaseRequestBody,
    RenewRequestBody,
    ReportObserveBody,
    VerityApiError,
    VerityConfigError,
    VerityValidationError,
)


class Kind(str, Enum):
    """Formats as its value on Python 3.10, and as `Kind.REFUND` from 3.11 on."""

    REFUND = "refund"
    CASE = "case"
    AGENT = "agent"
    ACTED = "acted"
    RETRY = "retry"
    THROW = "throw"
    COMMITTED = "COMMITTED"


class Duration(IntEnum):
    SHORT = 5_000
    TOO_SHORT = 1


class Odd(str):
    """A string that is nothing but odd."""

    __slots__ = ()

    def __str__(self) -> str:
        return "odd"

    __repr__ = __str__

    def __format__(self, spec: str) -> str:
        return "odd"

    def __eq__(self, other: object) -> bool:
        return False

    def __hash__(self) -> int:
        return 7

    def __len__(self) -> int:
        return 0


def is_plain(value: Any) -> bool:
    """Whether it and all in it are of Python's own types."""
    if isinstance(value, dict):
        return all(type(name) is str and is_plain(each) for name, each in value.items())
    return type(value) in (str, int, bool, type(None))


@pytest.mark.parametrize("kind", [str, Odd])
async def test_a_string_of_the_users_own_names_the_same_effect_all_the_way(world: AsyncWorld, kind: Any) -> None:
    names = {"key_suffix": kind("refund"), "namespace": kind("payments")}
    labels = {"effect_name": kind("n"), "agent_id": kind("a")}
    for _ in range(2):
        await world.client.protect(kind(world.key), act=world.act, **names, **labels)
    assert world.acts == [world.key]
    lease, commit, again = world.network.sent
    assert lease.body == again.body == {"effectKey": f"{world.key}:refund", "effectName": "n", "agentId": "a"}
    assert commit.body["effectKey"] == f"{world.key}:refund"
    assert {sent.namespace for sent in world.network.sent} == {"payments"}


async def test_an_enum_is_leased_and_committed_under_its_value(world: AsyncWorld) -> None:
    client = world.new_client(namespace=Kind.CASE, agent_id=Kind.AGENT)
    arguments: dict[str, Any] = {
        "key_suffix": world.key,
        "on_conflict": Kind.RETRY,
        "lease_duration_ms": Duration.SHORT,
    }
    for _ in range(2):
        await client.protect(Kind.REFUND, act=world.act, **arguments)
    assert world.acts == [world.key]
    lease, commit, _ = world.network.sent
    assert lease.body == {
        "effectKey": f"refund:{world.key}",
        "agentId": "agent",
        "leaseDurationMs": 5000,
    }
    assert commit.body["effectKey"] == f"refund:{world.key}"
    assert {sent.namespace for sent in world.network.sent} == {"case"}
    with pytest.raises(VerityConfigError) as caught:
        await client.protect("k", act=world.act, namespace=Odd(".."))
    assert "odd" not in str(caught.value)
    with pytest.raises(VerityValidationError, match=r"not 1\.") as too_short:
        await client.protect("k", act=world.act, lease_duration_ms=Duration.TOO_SHORT)
    assert too_short.value.parameter == "lease_duration_ms"


async def test_a_workflow_of_enums_has_the_keys_of_their_values(world: AsyncWorld) -> None:
    case = world.client.workflow(Kind.REFUND).case(Kind.CASE, agent_id=Kind.AGENT)
    run = case.run(Kind.ACTED, lease_duration_ms=Duration.SHORT)
    for value in (case.workflow_name, case.case_id, run.workflow_name, run.case_id, run.run_id, run.namespace):
        assert type(value) is str
    await run.protect(Kind.RETRY, act=world.act, key_suffix=Odd(world.key))
    lease, commit = world.network.sent
    assert lease.body == {
        "effectKey": f"case:retry:{world.key}",
        "effectName": "retry",
        "agentId": "agent",
        "leaseDurationMs": 5000,
        "workflowName": "refund",
        "caseId": "case",
        "runId": "acted",
    }
    assert (commit.body["effectKey"], commit.body["runId"], commit.namespace) == (
        f"case:retry:{world.key}",
        "acted",
        "refund",
    )
    await run.protect("retry", act=world.act, key_suffix=world.key)
    assert len(world.acts) == 1, "the same step, named by a plain string"


async def test_what_is_written_to_a_runs_attributes_passes_the_border_too(world: AsyncWorld) -> None:
    run = world.client.workflow("w").case("c").run()
    run.case_id, run.workflow_name, run.run_id, run.namespace = Odd(world.key), Kind.REFUND, Kind.ACTED, Kind.CASE
    await run.protect("step", act=world.act)
    lease, commit = world.network.sent
    assert lease.body["effectKey"] == commit.body["effectKey"] == f"{world.key}:step"
    assert (lease.body["workflowName"], lease.body["caseId"], lease.body["runId"]) == ("refund", world.key, "acted")
    assert lease.namespace == commit.namespace == "case"
    run.case_id = ""
    with pytest.raises(VerityValidationError, match="case_id"):
        await run.protect("step", act=world.act)


@pytest.mark.parametrize("typed", [True, False])
async def test_low_level_bodies_are_made_plain(world: AsyncWorld, typed: bool) -> None:
    client = world.client
    key, where = Odd(world.key), Kind.REFUND

    def body(kind: Any, **fields: Any) -> Any:
        made = kind(**fields)
        return made if typed else {Odd(name): value for name, value in made.to_wire().items()}

    asked = body(
        LeaseRequestBody,
        effect_key=key,
        effect_name=Odd("n"),
        agent_id=Kind.AGENT,
        lease_duration_ms=Duration.SHORT,
        workflow_name=Kind.CASE,
        case_id=Kind.CASE,
        run_id=Kind.ACTED,
    )
    lease = await client.request_lease(where, asked)
    tokens = {"effect_key": key, "fence_token": lease["fenceToken"], "lease_token": Odd(lease["leaseToken"])}
    await client.report_observe(where, body(ReportObserveBody, **tokens, hit=False, duration_ms=Duration.SHORT))
    await client.renew(where, body(RenewRequestBody, **tokens, extension_ms=Duration.SHORT))
    done = await client.commit(where, body(CommitRequestBody, **tokens, result=1, source=Kind.ACTED, run_id=Kind.ACTED))
    assert done.status == "accepted"
    assert {sent.namespace for sent in world.network.sent} == {"refund"}
    assert {sent.body["effectKey"] for sent in world.network.sent} == {world.key}
    assert world.network.sent[0].body["agentId"] == "agent"
    assert world.network.sent[-1].body["source"] == world.network.sent[-1].body["runId"] == "acted"


async def test_reads_and_filters_are_made_plain(world: AsyncWorld) -> None:
    client = world.client
    await client.workflow("refund").case(world.key).run("acted").protect("case", act=world.act)
    found = await client.effects.list(
        namespace=Kind.REFUND,
        status=Kind.COMMITTED,  # type: ignore[arg-type]  # a type checker does not know what is in an enum
        search=Odd(world.key),
        workflow_name=Kind.REFUND,
        case_id=Odd(world.key),
        run_id=Kind.ACTED,
        page_size=Duration.TOO_SHORT,
    ).first_page()
    (record,) = found.items
    assert record.effect_key == f"{world.key}:case"
    effect = await client.effects.get(Odd(record.effect_key), namespace=Kind.REFUND)
    assert effect.effect_id == (await client.effects.get_by_id(Odd(record.effect_id))).effect_id
    with pytest.raises(VerityApiError, match="'refund'") as caught:
        await client.effects.get(Kind.REFUND)
    assert type(caught.value.effect_key) is str
    with pytest.raises(VerityApiError) as refused:
        await client.effects.reset(Kind.REFUND, mode=Kind.RETRY, reason=Odd("because"))  # type: ignore[arg-type]  # as above
    assert (refused.value.effect_key, refused.value.code) == ("refund", "effect_not_found")


async def test_payloads_travel_by_their_characters(world: AsyncWorld) -> None:
    async def act() -> Any:
        return {Kind.REFUND: [Kind.CASE, Duration.SHORT, Odd("x")]}

    given = {Odd("a"): Odd("b")}
    assert await world.client.protect(world.key, act=act, input_json=given) == {"refund": ["case", 5000, "x"]}
    assert world.network.sent[0].body["inputJson"] == {"a": "b"}
    assert is_plain(world.network.sent[0].body)
    with pytest.raises(VerityValidationError, match="is there twice"):
        await world.client.protect("k", act=act, input_json={"a": 1, Odd("a"): 2})


class Pretends:
    """Not a string, whatever it says."""

    __class__ = str  # type: ignore[assignment]  # that is the point


async def test_what_only_says_that_it_is_a_string_is_refused(world: AsyncWorld) -> None:
    for arguments in ({"effect_key": Pretends()}, {"effect_key": "k", "namespace": Pretends()}):
        with pytest.raises((VerityConfigError, VerityValidationError), match="must be a string"):
            await world.client.protect(act=world.act, **arguments)
    with pytest.raises(VerityValidationError, match="names are strings"):
        await world.client.request_lease("payments", {1: 2, "effectKey": "k"})  # type: ignore[dict-item]  # that is the point
    assert not world.network.sent
