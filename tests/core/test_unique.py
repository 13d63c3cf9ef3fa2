"""Ids and tokens: no seed, patch or fork makes one repeat."""

from __future__ import annotations

import ctypes
import os
import random
import secrets
import threading
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from unittest import mock

import pytest

from verity._concurrency import AsyncRuntime, SyncRuntime
from verity._store.names import next_id
from verity._unique import draw_bits, new_id, new_token
from verity.server.exchange import new_request_id


def test_ids_have_the_form_of_random_uuids() -> None:
    for _ in range(200):
        parsed = uuid.UUID(made := new_id())
        assert str(parsed) == made
        assert (parsed.version, parsed.variant) == (4, uuid.RFC_4122)


@pytest.fixture
def pinned() -> Iterator[None]:
    """What test tools do to a process."""
    with (
        mock.patch.object(uuid, "uuid4", return_value=uuid.UUID(int=4)),
        mock.patch.object(secrets, "token_urlsafe", return_value="t"),
        mock.patch.object(secrets, "token_hex", return_value="0"),
        mock.patch.object(secrets, "token_bytes", return_value=b""),
        mock.patch.object(random, "getrandbits", return_value=4),
        mock.patch.object(os, "urandom", return_value=bytes(4096)),
    ):
        yield


@pytest.mark.usefixtures("pinned")
def test_no_patch_makes_one_repeat() -> None:
    makers: list[Callable[[], object]] = [
        new_id,
        new_token,
        new_request_id,
        AsyncRuntime().new_id,
        SyncRuntime().new_id,
        partial(next_id, 0, 0),
    ]
    for make in makers:
        assert len({make() for _ in range(300)}) > 290  # of 21 bits, two may meet


def test_no_seed_makes_one_repeat() -> None:
    made = []
    for _ in range(2):
        random.seed(7)
        made += [new_id(), new_token(), new_request_id(), draw_bits(96)]
    assert len(set(made)) == len(made)


def test_threads_draw_nothing_twice() -> None:
    drawn: list[list[int]] = [[] for _ in range(4)]
    threads = [
        threading.Thread(target=lambda into=into: into.extend(draw_bits(128) for _ in range(2_000))) for into in drawn
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({each for part in drawn for each in part}) == 8_000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
def test_a_fork_that_runs_no_hooks_draws_nothing_twice() -> None:
    """As uWSGI's does: the child has a copy of all that the parent has in store."""
    draw_bits(128)
    reader, writer = os.pipe()
    child = ctypes.PyDLL(None).fork()  # PyDLL keeps the interpreter's lock, which the child would not get
    if child == 0:
        os.write(writer, b" ".join(b"%d" % draw_bits(128) for _ in range(20)))
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        childs = {int(each) for each in pipe.read().split()}
    assert len(childs) == 20
    assert not childs & {draw_bits(128) for _ in range(300)}
