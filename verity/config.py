"""The client's settings. They are checked once, when they are made."""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass, field
from typing import Literal, get_args

from verity._core.keys import check_namespace, check_optional_label
from verity._core.text import find_flaw, is_number, name_character, read_choice, read_int, read_text
from verity.errors import VerityConfigError
from verity.policy import ON_OBSERVE_ERROR, EffectPolicy, OnObserveError, choose_policy, wrong_setting

OnConflict = Literal["retry", "throw"]
SpoolWhen = Literal["trouble", "always"]
ON_CONFLICT: tuple[OnConflict, ...] = get_args(OnConflict)
SPOOL_WHEN: tuple[SpoolWhen, ...] = get_args(SpoolWhen)

MAX_TIMEOUT_S = 1_000_000_000
"""About thirty years. Much larger values are errors for a socket."""

EMBEDDED_SCHEME = "sqlite:"


@dataclass(frozen=True, slots=True)
class ConflictRetryConfig:
    """How to wait while another holder's lease is live (409).

    Attributes:
        enabled: False raises `LeaseConflictError` at once.
        max_attempts: lease requests in all, the first one included; at least 1.
        initial_delay_s: seconds before the second request. The delay doubles from then on.
        max_delay_s: the longest delay between two requests in seconds, also for a server's `Retry-After`.
        jitter: change each delay at random by up to 30 %, so that callers do not retry at the same time.
        wait: instead of sleeping for the delay, ask the ledger to wait that long before it answers. It answers as soon
            as the effect has an outcome. The client sleeps all the same if the ledger does not wait, or if
            `max_delay_s` is below 1. None (default) means True, or False if the caller passed a `transport` or
            `http_client`. With one of these, pass True only if it has 50 connections to spare.

    Raises:
        VerityConfigError: a value is outside its range.
    """

    enabled: bool = True
    max_attempts: int = 12
    initial_delay_s: float = 0.5
    max_delay_s: float = 15.0
    jitter: bool = True
    wait: bool | None = None

    def __post_init__(self) -> None:
        _check_flag("conflict_retry.enabled", self.enabled)
        _check_flag("conflict_retry.jitter", self.jitter)
        if self.wait is not None:
            _check_flag("conflict_retry.wait", self.wait)
        max_attempts = read_int(self.max_attempts)
        if max_attempts is None or max_attempts < 1:
            raise wrong_setting("conflict_retry.max_attempts", "a whole number of at least 1", self.max_attempts)
        object.__setattr__(self, "max_attempts", max_attempts)
        for name in ("initial_delay_s", "max_delay_s"):
            value = getattr(self, name)
            if not is_number(value) or value < 0:
                raise wrong_setting(f"conflict_retry.{name}", "a finite number of seconds, 0 or more", value)


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """All settings of a client, checked. Made by `read_settings`."""

    base_url: str
    api_key: str | None = field(repr=False)
    namespace: str | None
    agent_id: str | None
    auto_renew: bool
    renew_at_fraction: float
    request_timeout_s: float
    conflict_retry: ConflictRetryConfig
    logger: logging.Logger
    policy: EffectPolicy
    spool: str | None
    spool_when: SpoolWhen

    @property
    def is_embedded(self) -> bool:
        """Whether the ledger runs in this process."""
        return self.base_url.startswith(EMBEDDED_SCHEME)

    @property
    def environment(self) -> Literal["live", "test"]:
        """The embedded ledger's environment. The API key decides it, as with a served ledger; live without a key.

        Only `api_key=` counts: an environment variable that is set for another program must not choose the data.
        """
        return "test" if (self.api_key or "").startswith("vt_test_") else "live"


def read_settings(
    *,
    base_url: str | None,
    api_key: str | None,
    namespace: str | None,
    agent_id: str | None,
    auto_renew: bool,
    renew_at_fraction: float,
    request_timeout_s: float,
    conflict_retry: ConflictRetryConfig | None,
    logger: logging.Logger | None,
    on_observe_error: OnObserveError | None,
    policy: EffectPolicy | None,
    spool: str | os.PathLike[str] | Literal[False] | None,
    spool_when: SpoolWhen,
) -> ClientSettings:
    """Check a client's arguments, and read missing ones from environment variables.

    Raises:
        VerityConfigError: a setting is missing or wrong. The message names it and what it takes.
    """
    url = _read_base_url(base_url)
    key = _read_api_key(api_key, is_embedded=url.startswith(EMBEDDED_SCHEME))
    _check_flag("auto_renew", auto_renew)
    if not is_number(renew_at_fraction) or not 0.3 <= renew_at_fraction <= 0.9:
        raise wrong_setting("renew_at_fraction", "a number from 0.3 to 0.9", renew_at_fraction)
    if not is_number(request_timeout_s) or not 0 < request_timeout_s <= MAX_TIMEOUT_S:
        raise wrong_setting("request_timeout_s", f"seconds above 0, at most {MAX_TIMEOUT_S:,}", request_timeout_s)
    if conflict_retry is not None and not isinstance(conflict_retry, ConflictRetryConfig):
        raise wrong_setting("conflict_retry", "a ConflictRetryConfig", conflict_retry)
    if logger is not None and not isinstance(logger, (logging.Logger, logging.LoggerAdapter)):
        raise wrong_setting("logger", "a logging.Logger", logger)
    observe_choice = read_choice(on_observe_error, ON_OBSERVE_ERROR)
    if observe_choice is None and on_observe_error is not None:
        raise wrong_setting("on_observe_error", '"raise" or "act"', on_observe_error, is_word=True)
    if policy is not None and not isinstance(policy, EffectPolicy):
        raise wrong_setting("policy", "an EffectPolicy", policy)
    spool_choice = read_choice(spool_when, SPOOL_WHEN)
    if spool_choice is None:
        raise wrong_setting("spool_when", '"trouble" or "always"', spool_when, is_word=True)
    logger = logger or logging.getLogger("verity")
    _warn_of_plain_http(url, logger)
    if key is None:
        _warn_of_unused_key(logger)
    return ClientSettings(
        base_url=url,
        api_key=key,
        namespace=None if namespace is None else check_namespace(namespace),
        agent_id=check_optional_label("agent_id", agent_id, error=VerityConfigError),
        auto_renew=auto_renew,
        renew_at_fraction=float(renew_at_fraction),
        request_timeout_s=float(request_timeout_s),
        conflict_retry=conflict_retry or ConflictRetryConfig(),
        logger=logger,
        policy=choose_policy(EffectPolicy(), policy, observe_choice),
        spool=_read_spool(spool),
        spool_when=spool_choice,
    )


def _read_base_url(base_url: str | None) -> str:
    given = os.environ.get("VERITY_BASE_URL") if base_url is None else base_url
    if not given:
        raise VerityConfigError(
            "base_url is missing: pass base_url= or set VERITY_BASE_URL, "
            'for example "sqlite:///verity.db" or "https://ledger.example.com/v1".',
            parameter="base_url",
        )
    url = read_text(given)
    if url is None:
        raise wrong_setting("base_url", "a string", given)
    flaw = find_flaw(url)
    if flaw is not None:
        name = "base_url" if base_url is not None else "VERITY_BASE_URL (base_url)"
        raise VerityConfigError(f"{name} {flaw}: remove it.", parameter="base_url")
    if url.startswith(EMBEDDED_SCHEME):
        return url
    if not re.match(r"https?://[^/?#@\s]+(/[^?#\s]*)?\Z", url):
        raise VerityConfigError(
            "base_url must be an absolute URL without credentials, query or fragment, such as "
            '"https://ledger.example.com/v1", or an embedded ledger such as "sqlite:///verity.db".',
            parameter="base_url",
        )
    import httpx  # a client has loaded it by now; `import verity` does not need it

    try:
        port = httpx.URL(url).port
    except httpx.InvalidURL as error:
        raise VerityConfigError(f"base_url is not a URL: {error}.", parameter="base_url") from None
    if port is not None and port > 65_535:
        raise wrong_setting("base_url", "a port up to 65535", port)
    return url.rstrip("/")


_warned: set[str] = set()


def _warn_of_plain_http(url: str, logger: logging.Logger) -> None:
    """Warn once for each host and process: every request contains the API key."""
    if not url.startswith("http:"):
        return
    import httpx  # as above

    host = httpx.URL(url).host
    if host in _warned or _is_loopback(host):
        return
    _warned.add(host)
    logger.warning(
        "The ledger at %s is reached over plain HTTP: others on the network can read the API key and the payloads. "
        "Use https://.",
        host,
    )


def _is_loopback(host: str) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _warn_of_unused_key(logger: logging.Logger) -> None:
    """Warn once for each process: earlier versions also took the embedded ledger's environment from the variable."""
    if "VERITY_API_KEY" in _warned or not os.environ.get("VERITY_API_KEY", "").startswith("vt_test_"):
        return
    _warned.add("VERITY_API_KEY")
    logger.warning(
        "VERITY_API_KEY has a test key, but an embedded ledger ignores the variable and uses the live data. "
        "Pass api_key= to use the test data."
    )


def _read_api_key(api_key: str | None, *, is_embedded: bool) -> str | None:
    if api_key is None and is_embedded:
        return None
    given = os.environ.get("VERITY_API_KEY") if api_key is None else api_key
    if given is None or (given == "" and api_key is None):
        raise VerityConfigError(
            "api_key is missing: pass api_key= or set VERITY_API_KEY (vt_live_… or vt_test_…).",
            parameter="api_key",
        )
    # No message shows the value: it may be a real key with one wrong character.
    key = read_text(given)
    strange = None if key is None else re.search(r"[^\x21-\x7e]", key)
    name = "api_key" if api_key is not None else "VERITY_API_KEY (api_key)"
    if not key or strange is not None:
        shown = f"; it has {name_character(strange[0])} at position {strange.start() + 1}" if strange else ""
        raise VerityConfigError(
            f"{name} must be a non-empty string of visible ASCII characters, without spaces or line ends{shown}.",
            parameter="api_key",
        )
    flaw = find_flaw(key)
    if flaw is not None:
        raise VerityConfigError(f"{name} {flaw}: remove it.", parameter="api_key")
    return key


def _read_spool(spool: str | os.PathLike[str] | bool | None) -> str | None:
    if spool is False:
        return None
    given: object = os.environ.get("VERITY_SPOOL") or None if spool is None else spool
    if given is None:
        return None
    path = read_text(os.fspath(given) if isinstance(given, os.PathLike) else given)
    if not path:
        raise wrong_setting("spool", "the path of a file, or False", given)
    flaw = find_flaw(path)
    if flaw is not None:
        name = "spool" if spool is not None else "VERITY_SPOOL (spool)"
        raise VerityConfigError(f"{name} {flaw}: remove it.", parameter="spool")
    return path


def _check_flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise wrong_setting(name, "True or False", value)
