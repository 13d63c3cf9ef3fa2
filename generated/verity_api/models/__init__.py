# Made from openapi.yaml by scripts/generate.py. Do not edit.
"""The data models of requests and answers, each imported when it is first used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .case import Case
    from .case_page import CasePage
    from .commit_reply import CommitReply
    from .commit_request import CommitRequest
    from .counts import Counts
    from .effect import Effect
    from .effect_page import EffectPage
    from .event import Event
    from .event_detail import EventDetail
    from .event_page import EventPage
    from .fail_reply import FailReply
    from .fail_request import FailRequest
    from .lease_reply import LeaseReply
    from .lease_request import LeaseRequest
    from .namespace import Namespace
    from .namespace_page import NamespacePage
    from .problem import Problem
    from .problem_error import ProblemError
    from .release_reply import ReleaseReply
    from .release_request import ReleaseRequest
    from .renew_reply import RenewReply
    from .renew_request import RenewRequest
    from .report_observe_reply import ReportObserveReply
    from .report_observe_request import ReportObserveRequest
    from .reset_reply import ResetReply
    from .reset_request import ResetRequest
    from .resolve_reply import ResolveReply
    from .resolve_request import ResolveRequest
    from .run import Run
    from .run_page import RunPage
    from .stats import Stats
    from .workflow import Workflow
    from .workflow_page import WorkflowPage

_MODULES = {
    "Case": ".case",
    "CasePage": ".case_page",
    "CommitReply": ".commit_reply",
    "CommitRequest": ".commit_request",
    "Counts": ".counts",
    "Effect": ".effect",
    "EffectPage": ".effect_page",
    "Event": ".event",
    "EventDetail": ".event_detail",
    "EventPage": ".event_page",
    "FailReply": ".fail_reply",
    "FailRequest": ".fail_request",
    "LeaseReply": ".lease_reply",
    "LeaseRequest": ".lease_request",
    "Namespace": ".namespace",
    "NamespacePage": ".namespace_page",
    "Problem": ".problem",
    "ProblemError": ".problem_error",
    "ReleaseReply": ".release_reply",
    "ReleaseRequest": ".release_request",
    "RenewReply": ".renew_reply",
    "RenewRequest": ".renew_request",
    "ReportObserveReply": ".report_observe_reply",
    "ReportObserveRequest": ".report_observe_request",
    "ResetReply": ".reset_reply",
    "ResetRequest": ".reset_request",
    "ResolveReply": ".resolve_reply",
    "ResolveRequest": ".resolve_request",
    "Run": ".run",
    "RunPage": ".run_page",
    "Stats": ".stats",
    "Workflow": ".workflow",
    "WorkflowPage": ".workflow_page",
}


def __getattr__(name: str) -> Any:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(module, __name__), name)


__all__ = (
    "Case",
    "CasePage",
    "CommitReply",
    "CommitRequest",
    "Counts",
    "Effect",
    "EffectPage",
    "Event",
    "EventDetail",
    "EventPage",
    "FailReply",
    "FailRequest",
    "LeaseReply",
    "LeaseRequest",
    "Namespace",
    "NamespacePage",
    "Problem",
    "ProblemError",
    "ReleaseReply",
    "ReleaseRequest",
    "RenewReply",
    "RenewRequest",
    "ReportObserveReply",
    "ReportObserveRequest",
    "ResetReply",
    "ResetRequest",
    "ResolveReply",
    "ResolveRequest",
    "Run",
    "RunPage",
    "Stats",
    "Workflow",
    "WorkflowPage",
)
