# Made from openapi.yaml by scripts/generate.py. Do not edit.
from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

T = TypeVar("T", bound="Effect")


@_attrs_define(repr=False)
class Effect:
    """
    Attributes:
        effect_id (str):
        namespace (str):
        effect_key (str):
        status (str): Now IDLE, RUNNING, EXPIRED, COMMITTED or FAILED.
        fence_token (int):
        created_at (str):
        updated_at (str):
        prior_state (str | Unset): The `priorState` of the current grant; of an IDLE effect, that of the next grant.
        attempt (int | Unset): How many grants the effect has had.
        lease_duration_ms (int | Unset):
        lease_expires_at (str | Unset): When the lease expires, has expired or was released.
        settles_at (str | Unset): The lease was released, and nobody is granted or was granted before this time.
        effect_name (str | Unset):
        agent_id (str | Unset):
        workflow_name (str | Unset):
        case_id (str | Unset):
        run_id (str | Unset):
        trace_parent (str | Unset): The W3C trace context of the lease request.
        source (str | Unset): Now `acted`, `observed` or `resolved`.
        purged_at (str | Unset): When its payloads and its audit trail were deleted.
        input_json (Any | Unset):
        result (Any | Unset):
        error (Any | Unset):
    """

    effect_id: str
    namespace: str
    effect_key: str
    status: str
    fence_token: int
    created_at: str
    updated_at: str
    prior_state: str | Unset = UNSET
    attempt: int | Unset = UNSET
    lease_duration_ms: int | Unset = UNSET
    lease_expires_at: str | Unset = UNSET
    settles_at: str | Unset = UNSET
    effect_name: str | Unset = UNSET
    agent_id: str | Unset = UNSET
    workflow_name: str | Unset = UNSET
    case_id: str | Unset = UNSET
    run_id: str | Unset = UNSET
    trace_parent: str | Unset = UNSET
    source: str | Unset = UNSET
    purged_at: str | Unset = UNSET
    input_json: Any | Unset = UNSET
    result: Any | Unset = UNSET
    error: Any | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        effect_id = self.effect_id

        namespace = self.namespace

        effect_key = self.effect_key

        status = self.status

        fence_token = self.fence_token

        created_at = self.created_at

        updated_at = self.updated_at

        prior_state = self.prior_state

        attempt = self.attempt

        lease_duration_ms = self.lease_duration_ms

        lease_expires_at = self.lease_expires_at

        settles_at = self.settles_at

        effect_name = self.effect_name

        agent_id = self.agent_id

        workflow_name = self.workflow_name

        case_id = self.case_id

        run_id = self.run_id

        trace_parent = self.trace_parent

        source = self.source

        purged_at = self.purged_at

        input_json = self.input_json

        result = self.result

        error = self.error

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "effectId": effect_id,
                "namespace": namespace,
                "effectKey": effect_key,
                "status": status,
                "fenceToken": fence_token,
                "createdAt": created_at,
                "updatedAt": updated_at,
            }
        )
        if prior_state is not UNSET:
            field_dict["priorState"] = prior_state
        if attempt is not UNSET:
            field_dict["attempt"] = attempt
        if lease_duration_ms is not UNSET:
            field_dict["leaseDurationMs"] = lease_duration_ms
        if lease_expires_at is not UNSET:
            field_dict["leaseExpiresAt"] = lease_expires_at
        if settles_at is not UNSET:
            field_dict["settlesAt"] = settles_at
        if effect_name is not UNSET:
            field_dict["effectName"] = effect_name
        if agent_id is not UNSET:
            field_dict["agentId"] = agent_id
        if workflow_name is not UNSET:
            field_dict["workflowName"] = workflow_name
        if case_id is not UNSET:
            field_dict["caseId"] = case_id
        if run_id is not UNSET:
            field_dict["runId"] = run_id
        if trace_parent is not UNSET:
            field_dict["traceParent"] = trace_parent
        if source is not UNSET:
            field_dict["source"] = source
        if purged_at is not UNSET:
            field_dict["purgedAt"] = purged_at
        if input_json is not UNSET:
            field_dict["inputJson"] = input_json
        if result is not UNSET:
            field_dict["result"] = result
        if error is not UNSET:
            field_dict["error"] = error

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        effect_id = d.pop("effectId")

        namespace = d.pop("namespace")

        effect_key = d.pop("effectKey")

        status = d.pop("status")

        fence_token = d.pop("fenceToken")

        created_at = d.pop("createdAt")

        updated_at = d.pop("updatedAt")

        prior_state = d.pop("priorState", UNSET)

        attempt = d.pop("attempt", UNSET)

        lease_duration_ms = d.pop("leaseDurationMs", UNSET)

        lease_expires_at = d.pop("leaseExpiresAt", UNSET)

        settles_at = d.pop("settlesAt", UNSET)

        effect_name = d.pop("effectName", UNSET)

        agent_id = d.pop("agentId", UNSET)

        workflow_name = d.pop("workflowName", UNSET)

        case_id = d.pop("caseId", UNSET)

        run_id = d.pop("runId", UNSET)

        trace_parent = d.pop("traceParent", UNSET)

        source = d.pop("source", UNSET)

        purged_at = d.pop("purgedAt", UNSET)

        input_json = d.pop("inputJson", UNSET)

        result = d.pop("result", UNSET)

        error = d.pop("error", UNSET)

        effect = cls(
            effect_id=effect_id,
            namespace=namespace,
            effect_key=effect_key,
            status=status,
            fence_token=fence_token,
            created_at=created_at,
            updated_at=updated_at,
            prior_state=prior_state,
            attempt=attempt,
            lease_duration_ms=lease_duration_ms,
            lease_expires_at=lease_expires_at,
            settles_at=settles_at,
            effect_name=effect_name,
            agent_id=agent_id,
            workflow_name=workflow_name,
            case_id=case_id,
            run_id=run_id,
            trace_parent=trace_parent,
            source=source,
            purged_at=purged_at,
            input_json=input_json,
            result=result,
            error=error,
        )

        effect.additional_properties = d
        return effect

    @property
    def additional_keys(self) -> list[str]:
        return list(self.additional_properties.keys())

    def __getitem__(self, key: str) -> Any:
        return self.additional_properties[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.additional_properties[key] = value

    def __delitem__(self, key: str) -> None:
        del self.additional_properties[key]

    def __contains__(self, key: str) -> bool:
        return key in self.additional_properties
