"""Verity makes an action on the outside world happen exactly once."""

from verity._async.client import VerityClient
from verity._sync.client import SyncVerityClient
from verity._version import __version__
from verity.config import ConflictRetryConfig
from verity.errors import (
    CommitUncertainError,
    EffectPreviouslyFailedError,
    LeaseConflictError,
    ObserveFailedError,
    VerityApiError,
    VerityConfigError,
    VerityConnectionError,
    VerityError,
    VerityValidationError,
)
from verity.values import (
    CommitRequestBody,
    CommitResponse,
    FailRequestBody,
    FailResponse,
    LeaseRequestBody,
    LeaseResponse,
    RenewRequestBody,
    RenewResponse,
    ReportObserveBody,
    ReportObserveResponse,
)

__all__ = [
    "CommitRequestBody",
    "CommitResponse",
    "CommitUncertainError",
    "ConflictRetryConfig",
    "EffectPreviouslyFailedError",
    "FailRequestBody",
    "FailResponse",
    "LeaseConflictError",
    "LeaseRequestBody",
    "LeaseResponse",
    "ObserveFailedError",
    "RenewRequestBody",
    "RenewResponse",
    "ReportObserveBody",
    "ReportObserveResponse",
    "SyncVerityClient",
    "VerityApiError",
    "VerityClient",
    "VerityConfigError",
    "VerityConnectionError",
    "VerityError",
    "VerityValidationError",
    "__version__",
]
