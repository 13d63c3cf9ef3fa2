"""Problems: the error answers of the API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from verity._ledger.calls import Answer
from verity._ledger.raw_json import dump_fields


class Problem(Exception):
    """A call is answered with an error.

    Args:
        status: the HTTP status.
        code: the error code, as in openapi.yaml.
        message: for people.
        details: for programs; None: no details.
        headers: extra headers of the answer (lower-case names).
        retry_after_s: after how many seconds to send the call again; it becomes the `retry-after` header.
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
    """The answer that a problem stands for."""
    error: dict[str, Any] = {"code": problem.code, "message": problem.message}
    if problem.details is not None:
        error["details"] = problem.details
    body = dump_fields({"error": error, "requestId": request_id})
    return Answer(problem.status, body, problem.headers, outcome=(problem.code, ""))
