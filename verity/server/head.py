"""Writes the head of an answer in bytes: the status line and the header lines."""

from __future__ import annotations

from verity._ledger.problems import Problem, answer_problem
from verity.server.exchange import head_of, new_request_id
from verity.server.uvicorn_names import STATUS_LINE

__all__ = ["STATUS_LINE", "write_lines", "write_refusal"]


def write_lines(head: dict[str, str]) -> bytes:
    """The header lines in bytes."""
    return "".join([f"{name}: {value}\r\n" for name, value in head.items()]).encode("latin-1")


def write_refusal(problem: Problem) -> bytes:
    """The whole answer, head and body, to a request that is not parsed."""
    request_id = new_request_id()
    answer = answer_problem(problem, request_id)
    return STATUS_LINE[answer.status] + write_lines(head_of(answer, request_id)) + b"\r\n" + answer.body
