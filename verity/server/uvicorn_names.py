"""The undocumented names of uvicorn that the server uses. No other module imports uvicorn's protocol.

Safety depends on them. If uvicorn kept a request's state under another name, or no longer called the methods that
`protocol.py` overrides, bytes of one request could be taken for another request, and limits would not be enforced.
"""

from __future__ import annotations

import inspect

import uvicorn

from verity._private_names import check_names, is_gone

UVICORN = "uvicorn>=0.53,<0.55"

try:
    from uvicorn.protocols.http.flow_control import FlowControl
    from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
except ImportError as error:
    if (error.name or "").partition(".")[0] != "uvicorn":  # another package is missing
        raise
    raise is_gone(UVICORN, f"names that are imported from it ({error.msg})") from error

__all__ = ["NAMES", "STATUS_LINE", "UVICORN", "FlowControl", "HttpToolsProtocol", "check_uvicorn"]

NAMES = {
    "Server": ("config", "server_state", "should_exit", "shutdown", "startup"),
    "ServerState": ("connections", "default_headers", "tasks", "total_requests"),
    "HttpToolsProtocol": (
        *("app", "cycle", "expect_100_continue", "flow", "headers", "loop", "parser", "pipeline", "scope"),
        *("server_state", "tasks", "timeout_keep_alive", "transport", "url"),
        *("on_body", "on_headers_complete", "on_message_begin", "on_message_complete", "on_response_complete"),
        *("send_400_response", "shutdown", "timeout_keep_alive_handler"),
        "_unsupported_upgrade_warning",
    ),
    "RequestResponseCycle": (
        *("body", "disconnected", "keep_alive", "message_event", "more_body", "response_complete", "response_started"),
    ),
    "FlowControl": ("drain", "pause_reading", "resume_reading", "write_paused"),
}
"""The names that each of uvicorn's classes must have."""


def check_uvicorn(server: uvicorn.Server) -> None:
    """Refuse a uvicorn that lacks one of `NAMES`.

    Raises:
        VerityConfigError: a name is gone.
    """
    check_names(UVICORN, server, *NAMES["Server"])
    check_names(UVICORN, server.server_state, *NAMES["ServerState"])
    # There is no event loop yet, and the constructor does not use it.
    protocol = HttpToolsProtocol(server.config, server.server_state, {}, _loop=object())  # type: ignore[arg-type]
    check_names(UVICORN, protocol, *(name for name in NAMES["HttpToolsProtocol"] if name != "url"))
    protocol.on_message_begin()  # this sets `url`
    check_names(UVICORN, protocol, "url")
    check_names(UVICORN, _make(RequestResponseCycle), *NAMES["RequestResponseCycle"])
    check_names(UVICORN, _make(FlowControl), *NAMES["FlowControl"])


def _make(kind: type) -> object:
    """An object made with None for each argument, to look for attributes on it."""
    return kind(**dict.fromkeys(inspect.signature(kind).parameters))
