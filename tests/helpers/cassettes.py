"""Cassettes: answers of a real ledger, recorded without secrets and replayed (vcrpy).

`python -m scripts.record_cassettes` records all of them again, from a served ledger whose clock stands still. So the
same ledger gives the same files. The ones in `cassettes/older` are never recorded again: they are what the ledger
answered to the client before it knew `release`, and stand for every older ledger and every older client.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import vcr
from vcr.request import Request

CASSETTES = Path(__file__).parents[1] / "cassettes"
OLDER = CASSETTES / "older"
RECORDING = os.environ.get("VERITY_RECORD_CASSETTES") == "1"
BASE_URL = "http://ledger.test/v1"
"""Stands in the cassettes for wherever the ledger was; in replay, what the client is told."""

_KEPT_HEADERS = {"content-type", "retry-after", "x-request-id"}
_STAND_INS = {"effectId": "eff_0000000000000001", "requestId": "req_1"}


class Scrubber:
    """Replaces secrets and random values in the requests and answers of one cassette."""

    def __init__(self) -> None:
        self._tokens: dict[str, str] = {}

    def request(self, request: Request) -> Request:
        """Called for what is recorded, and for what is looked up in replay."""
        request.uri = BASE_URL + "/" + request.uri.partition("/v1/")[2]
        request.headers = {}
        if request.body:
            request.body = _dump(self.body(json.loads(request.body)))
        return request

    def response(self, response: dict[str, Any]) -> dict[str, Any]:
        """Called for what is recorded."""
        response["headers"] = {
            name: ["req_1"] if name.lower() == "x-request-id" else value
            for name, value in response["headers"].items()
            if name.lower() in _KEPT_HEADERS
        }
        response["body"]["string"] = _dump(self.body(json.loads(response["body"]["string"])))
        return response

    def body(self, body: dict[str, Any]) -> dict[str, Any]:
        """Replace them in a body, and return it."""
        for name in _STAND_INS.keys() & body.keys():
            body[name] = _STAND_INS[name]
        for failure in (body.get("error"), body.get("cachedError")):
            if isinstance(failure, dict) and "stack" in failure:
                failure["stack"] = "…"  # names the files of the machine
        token = body.get("leaseToken")
        if token is not None and not token.startswith("lease-token-"):
            body["leaseToken"] = self._tokens.setdefault(token, f"lease-token-{len(self._tokens) + 1}")
        return body


def _dump(body: Any) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def cassette(name: str, directory: Path = CASSETTES) -> Any:
    """A context in which the requests of httpx are recorded to, or answered from, the cassette of this name."""
    scrubber = Scrubber()
    path = directory / f"{name}.yaml"
    if RECORDING:
        assert directory != OLDER, "an older ledger is not there any more"
        path.unlink(missing_ok=True)
    recorder = vcr.VCR(
        record_mode=vcr.mode.ONCE if RECORDING else vcr.mode.NONE,
        match_on=["method", "uri", "raw_body"],
        before_record_request=scrubber.request,
        before_record_response=scrubber.response,
        record_on_exception=False,
    )
    return recorder.use_cassette(str(path))
