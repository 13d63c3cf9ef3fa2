"""Problems: the answers to calls that are refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from verity._ledger.calls import Answer
from verity._ledger.raw_json import dump_fields


class Problem(Exception):
    """The call is refused.

    Args:
        status: the HTTP status.
        code: the error code, one of openapi.yaml.
        message: for people.
        details: for programs; None: there are none.
        headers: extra headers of the answer (lower-case names).
        retry_after_s: after how many seconds the call may be sent again; it becomes a header.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        details: Any = None,
        headers: Mapping[str, str] | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.message = message
        self.details = details
        self.headers = dict(headers or {})
        if retry_after_s is not None:
            self.headers["retry-after"] = str(retry_after_s)


def answer_problem(problem: Problem, request_id: str) -> Answer:
    """The answer to a call that is refused."""
    error: dict[str, Any] = {"code": problem.code, "message": problem.message}
    if problem.details is not None:
        error["details"] = problem.details
    body = dump_fields({"error": error, "requestId": request_id})
    return Answer(problem.status, body, problem.headers, outcome=(problem.code, ""))
