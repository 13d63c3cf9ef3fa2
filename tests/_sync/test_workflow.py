# Made from tests/_async/test_workflow.py by scripts/mirror.py. Do not edit.
"""workflow(name).case(id).run(): keys, context and defaults."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.helpers._sync.world import SyncWorld
from verity import EffectPolicy, VerityConfigError, VerityValidationError


def test_a_step_travels_with_its_place(world: SyncWorld) -> None:
    run = world.client.workflow("refund_flow").case(world.key).run("run-1", agent_id="agent-9")
    run.protect("process_refund", act=world.act)
    lease, commit = world.network.sent
    assert lease.namespace == "refund_flow"
    assert lease.body == {
        "effectKey": f"{world.key}:process_refund",
        "effectName": "process_refund",
        "agentId": "agent-9",
        "leaseDurationMs": 30_000,
        "workflowName": "refund_flow",
        "caseId": world.key,
        "runId": "run-1",
    }
    assert commit.body["runId"] == "run-1"


def test_a_second_run_finds_what_the_first_did(world: SyncWorld) -> None:
    runs = [world.client.workflow("refund_flow").case(world.key).run() for _ in range(2)]
    assert [run.protect("step", act=world.act) for run in runs] == [{"refund": "re_1"}] * 2
    assert world.acts == [world.key]
    assert runs[0].run_id != runs[1].run_id
    assert all(str(uuid.UUID(run.run_id)) == run.run_id for run in runs)


def test_the_suffix_is_part_of_the_key(world: SyncWorld) -> None:
    run = world.client.workflow("refund_flow").case(world.key).run()
    run.protect("notify", act=world.act, key_suffix="anna")
    run.protect("notify", act=world.act, key_suffix="ben")
    assert [sent.body["effectKey"] for sent in world.network.sent if sent.operation == "lease"] == [
        f"{world.key}:notify:anna",
        f"{world.key}:notify:ben",
    ]
    assert len(world.acts) == 2


@pytest.mark.parametrize(
    ("first", "second"), [(("a", "b:c"), ("a:b", "c")), (("a:b", None), ("a", "b")), (("a", "b"), ("a:b", None))]
)
def test_two_steps_with_one_key_are_refused(world: SyncWorld, first: Any, second: Any) -> None:
    run = world.client.workflow("refund_flow").case(world.key).run()
    run.protect(first[0], act=world.act, key_suffix=first[1])
    run.protect(first[0], act=world.act, key_suffix=first[1])
    with pytest.raises(VerityValidationError, match="same key"):
        run.protect(second[0], act=world.act, key_suffix=second[1])
    assert len(world.acts) == 1
    run.protect(second[0], act=world.act, key_suffix=second[1], namespace="another")
    assert len(world.acts) == 2


@pytest.mark.parametrize(
    ("client", "case", "run", "call", "expected"),
    [
        ("c", None, None, None, "c"),
        ("c", "k", None, None, "k"),
        ("c", "k", "r", None, "r"),
        ("c", "k", "r", "p", "p"),
        (None, None, "r", None, "r"),
        (None, None, None, None, None),
    ],
)
def test_the_nearest_agent_counts(world: SyncWorld, client: Any, case: Any, run: Any, call: Any, expected: Any) -> None:
    made = world.new_client(agent_id=client).workflow("flow").case(world.key, agent_id=case).run(agent_id=run)
    made.protect("step", act=world.act, agent_id=call)
    assert world.network.sent[0].body.get("agentId") == expected


def test_a_run_has_defaults_that_a_call_overrides(world: SyncWorld) -> None:
    run = world.client.workflow("flow").case(world.key).run(namespace="mail", lease_duration_ms=60_000)
    run.protect("one", act=world.act)
    run.protect("two", act=world.act, lease_duration_ms=5_000, namespace="sms", effect_name="Two")
    one, two = [sent for sent in world.network.sent if sent.operation == "lease"]
    assert (one.namespace, one.body["leaseDurationMs"], one.body["effectName"]) == ("mail", 60_000, "one")
    assert (two.namespace, two.body["leaseDurationMs"], two.body["effectName"]) == ("sms", 5_000, "Two")


def test_without_a_duration_the_ledger_decides(world: SyncWorld) -> None:
    run = world.client.workflow("flow").case(world.key).run(lease_duration_ms=None)
    run.protect("one", act=world.act)
    assert "leaseDurationMs" not in world.network.sent[0].body


def test_wrong_parts_are_refused(world: SyncWorld) -> None:
    with pytest.raises(VerityValidationError, match="workflow name"):
        world.client.workflow("")
    with pytest.raises(VerityValidationError, match="case_id"):
        world.client.workflow("flow").case("x" * 257)
    case = world.client.workflow("flow").case("c")
    with pytest.raises(VerityValidationError, match="run_id"):
        case.run("")
    with pytest.raises(VerityValidationError, match="lease_duration_ms"):
        case.run(lease_duration_ms=1)
    with pytest.raises(VerityConfigError, match="namespace"):
        world.client.workflow("a/b").case("c").run()
    with pytest.raises(VerityValidationError, match="agent_id"):
        case.run(agent_id="a").protect("step", act=world.act, agent_id="")
    with pytest.raises(VerityValidationError, match="name"):
        case.run().protect("", act=world.act)
    assert not world.network.sent


def test_a_part_that_is_none_does_not_become_the_word_none(world: SyncWorld) -> None:
    """Two orders whose id a look-up did not find would share one key, and the second would never be acted on."""
    missing: Any = None
    with pytest.raises(VerityValidationError, match="workflow name must be a string, not NoneType"):
        world.client.workflow(missing)
    with pytest.raises(VerityValidationError, match="case_id must be a string, not NoneType"):
        world.client.workflow("flow").case(missing)
    with pytest.raises(VerityValidationError, match="name must be a string, not NoneType"):
        world.client.workflow("flow").case("c").run().protect(missing, act=world.act)
    assert not world.network.sent


@pytest.mark.parametrize(
    ("client", "run", "call", "shorthand", "expected"),
    [
        (1, None, None, None, 1000),
        (1, 2, None, None, 2000),
        (1, 2, 3, None, 3000),
        (1, None, 3, None, 3000),
        (1, 2, None, "act", 2000),
        (1, None, None, "act", 1000),
        (None, None, None, None, 30_000),
    ],
)
def test_the_nearest_policy_counts_as_a_whole(
    world: SyncWorld, client: Any, run: Any, call: Any, shorthand: Any, expected: int
) -> None:
    policies = [None if each is None else EffectPolicy(settle_s=each) for each in (client, run, call)]
    made = world.new_client(policy=policies[0]).workflow("flow").case(world.key).run(policy=policies[1])

    def act() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        made.protect("step", act=act, policy=policies[2], on_observe_error=shorthand)
    assert world.network.sent[-1].body["settleMs"] == expected
