# Made from verity/_async/workflow.py by scripts/mirror.py. Do not edit.
"""`workflow(name).case(id).run()`: effects that belong together, under keys that stay the same for ever."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from verity._concurrency import SyncAct, SyncFunction
from verity._core.bodies import check_duration_ms
from verity._core.keys import check_key_suffix, check_label, check_namespace, check_optional_label, join_key
from verity._limits import DEFAULT_LEASE_DURATION_MS
from verity._sync.options import Observe
from verity._unique import new_id
from verity.config import OnConflict, OnObserveError
from verity.errors import VerityValidationError
from verity.values import LeaseResponse

T = TypeVar("T")


class SyncWorkflow:
    """A kind of process, such as `refund_flow`."""

    def __init__(self, protect: SyncFunction[Any], name: str, *, agent_id: str | None) -> None:
        self._protect = protect
        self._agent_id = agent_id
        self.name = name

    def case(self, case_id: str, *, agent_id: str | None = None) -> SyncCase:
        """One matter that the workflow handles, such as `order_123`. Keeps the client's agent_id unless told one."""
        case = check_label("case_id", case_id)
        agent = check_optional_label("agent_id", agent_id) or self._agent_id
        return SyncCase(self._protect, check_label("workflow name", self.name), case, agent_id=agent)


class SyncCase:
    """One matter that a workflow handles."""

    def __init__(self, protect: SyncFunction[Any], workflow_name: str, case_id: str, *, agent_id: str | None) -> None:
        self._protect = protect
        self._agent_id = agent_id
        self.workflow_name = workflow_name
        self.case_id = case_id

    def run(
        self,
        run_id: str | None = None,
        *,
        namespace: str | None = None,
        lease_duration_ms: int | None = DEFAULT_LEASE_DURATION_MS,
        agent_id: str | None = None,
    ) -> SyncRun:
        """One attempt at the case. A second run of the same case finds the first one's effects done.

        Args:
            run_id: names the run; made up if left out.
            namespace: of the run's effects; the workflow's name if left out.
            lease_duration_ms: default for the run's effects, 5,000 to 120,000.
            agent_id: who acts; the case's or the client's if left out.
        """
        duration_ms = None if lease_duration_ms is None else check_duration_ms("lease_duration_ms", lease_duration_ms)
        return SyncRun(
            self._protect,
            workflow_name=check_label("workflow_name", self.workflow_name),
            case_id=check_label("case_id", self.case_id),
            run_id=check_optional_label("run_id", run_id) or new_id(),
            namespace=check_namespace(self.workflow_name if namespace is None else namespace),
            lease_duration_ms=duration_ms,
            agent_id=check_optional_label("agent_id", agent_id) or self._agent_id,
        )


class SyncRun:
    """One attempt at a case. The key of an effect is `case_id:name` or `case_id:name:key_suffix`.

    The run is not part of the key: that is what makes a second run find what the first one did. Parts that contain
    `:` can make two different effects look the same (`("a", "b:c")` and `("a:b", "c")`); within a run that is refused,
    across runs it can't be seen, so keep `:` out of case ids and names.
    """

    def __init__(
        self,
        protect: SyncFunction[Any],
        *,
        workflow_name: str,
        case_id: str,
        run_id: str,
        namespace: str,
        lease_duration_ms: int | None,
        agent_id: str | None,
    ) -> None:
        self._protect = protect
        self._lease_duration_ms = lease_duration_ms
        self._agent_id = agent_id
        self._parts_of_key: dict[tuple[str, str], tuple[str, str | None]] = {}
        self.workflow_name = workflow_name
        self.case_id = case_id
        self.run_id = run_id
        self.namespace = namespace

    def protect(
        self,
        name: str,
        *,
        act: SyncAct[T],
        observe: Observe | None = None,
        namespace: str | None = None,
        effect_name: str | None = None,
        agent_id: str | None = None,
        lease_duration_ms: int | None = None,
        input_json: Any = None,
        on_conflict: OnConflict = "retry",
        on_lease: Callable[[LeaseResponse], object] | None = None,
        key_suffix: str | None = None,
        on_observe_error: OnObserveError | None = None,
    ) -> T:
        """Protect one step of the run; arguments, result and errors are those of the client's `protect()`.

        Raises:
            VerityValidationError: another (name, key_suffix) of this run already has the same key.
        """
        step = check_label("name", name)
        # The run's attributes are public: what was written there since passes the border here.
        where = {
            "workflowName": check_label("workflow_name", self.workflow_name),
            "caseId": check_label("case_id", self.case_id),
            "runId": check_label("run_id", self.run_id),
        }
        namespace = check_namespace(self.namespace if namespace is None else namespace)
        suffix = check_key_suffix(key_suffix)
        self._claim_key(namespace, where["caseId"], step, suffix)
        return self._protect(  # type: ignore[no-any-return]  # T is what act gives
            f"{where['caseId']}:{step}",
            act=act,
            observe=observe,
            namespace=namespace,
            effect_name=step if effect_name is None else effect_name,
            agent_id=self._agent_id if agent_id is None else agent_id,
            lease_duration_ms=self._lease_duration_ms if lease_duration_ms is None else lease_duration_ms,
            input_json=input_json,
            on_conflict=on_conflict,
            on_lease=on_lease,
            key_suffix=suffix,
            on_observe_error=on_observe_error,
            wire_context=where,
        )

    def _claim_key(self, namespace: str, case_id: str, name: str, key_suffix: str | None) -> None:
        key = join_key(f"{case_id}:{name}", key_suffix)
        parts = self._parts_of_key.setdefault((namespace, key), (name, key_suffix))
        if parts != (name, key_suffix):
            raise VerityValidationError(
                f"The effects {parts!r} and {(name, key_suffix)!r} (name, key_suffix) of this run have the same key "
                f"{key!r}: the second would get the first one's result. Keep ':' out of names.",
                effect_key=key,
                parameter="key_suffix",
            )
