"""Verity makes an action in the outside world happen exactly once: `VerityClient.protect()`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from verity._version import __version__
from verity.config import ConflictRetryConfig
from verity.errors import (
    ActNotStartedError,
    CommitUncertainError,
    EffectPreviouslyFailedError,
    LeaseConflictError,
    NotExecuted,
    ObserveFailedError,
    OutcomeUnknown,
    OutcomeUnknownError,
    VerityApiError,
    VerityConfigError,
    VerityConnectionError,
    VerityError,
    VerityValidationError,
)
from verity.policy import EffectPolicy
from verity.records import (
    EffectEvent,
    EffectGroup,
    EffectRecord,
    LedgerStats,
    Page,
    ResetResponse,
    ResolveResponse,
)
from verity.values import (
    CommitRequestBody,
    CommitResponse,
    FailRequestBody,
    FailResponse,
    Found,
    LeaseRequestBody,
    LeaseResponse,
    ReleaseRequestBody,
    ReleaseResponse,
    RenewRequestBody,
    RenewResponse,
    ReportObserveBody,
    ReportObserveResponse,
)

if TYPE_CHECKING:
    from verity._async.client import VerityClient
    from verity._concurrency.current import CurrentEffect, LeaseLost, current_effect
    from verity._sync.client import SyncVerityClient

__all__ = [
    "ActNotStartedError",
    "CommitRequestBody",
    "CommitResponse",
    "CommitUncertainError",
    "ConflictRetryConfig",
    "CurrentEffect",
    "EffectEvent",
    "EffectGroup",
    "EffectPolicy",
    "EffectPreviouslyFailedError",
    "EffectRecord",
    "FailRequestBody",
    "FailResponse",
    "Found",
    "LeaseConflictError",
    "LeaseLost",
    "LeaseRequestBody",
    "LeaseResponse",
    "LedgerStats",
    "NotExecuted",
    "ObserveFailedError",
    "OutcomeUnknown",
    "OutcomeUnknownError",
    "Page",
    "ReleaseRequestBody",
    "ReleaseResponse",
    "RenewRequestBody",
    "RenewResponse",
    "ReportObserveBody",
    "ReportObserveResponse",
    "ResetResponse",
    "ResolveResponse",
    "SyncVerityClient",
    "VerityApiError",
    "VerityClient",
    "VerityConfigError",
    "VerityConnectionError",
    "VerityError",
    "VerityValidationError",
    "__version__",
    "current_effect",
]

_LAZY = {
    "CurrentEffect": "verity._concurrency.current",
    "LeaseLost": "verity._concurrency.current",
    "SyncVerityClient": "verity._sync.client",
    "VerityClient": "verity._async.client",
    "current_effect": "verity._concurrency.current",
}


def __getattr__(name: str) -> Any:
    """Load a client, httpx and the generated API on first use: most programs use only one of the two clients."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return __all__
