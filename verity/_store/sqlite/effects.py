"""One effect call in a transaction of the SQLite store: read the effect, let the table decide, write the change."""

from __future__ import annotations

from collections.abc import Callable

import apsw

from verity._ledger.calls import Answer, Request
from verity._ledger.codec import answer_decision, read_call
from verity._ledger.commands import REPORTS_AMONG, Context
from verity._ledger.effect import ROW, Effect, from_row, to_row
from verity._ledger.problems import Problem, answer_problem
from verity._ledger.transitions import apply
from verity._operations import Operation
from verity._store.events import EVENT_COLUMNS, to_event_row
from verity._store.names import COLUMNS, hash_effect_name, next_id
from verity._store.sqlite.file_locks import LockTimeout
from verity._store.sqlite.heartbeat import read_outages
from verity._store.sqlite.reads import RETRY_AFTER_S

_SELECT = f"SELECT {COLUMNS} FROM effects WHERE key_hash = ?"
_INSERT = f"INSERT INTO effects (environment, key_hash, {COLUMNS}) VALUES (?, ?, {', '.join('?' * len(ROW))})"
_UPDATE = f"UPDATE effects SET {', '.join(f'{name} = ?' for name in ROW[3:])} WHERE id = ?"
"""Sets all columns but id, namespace and key."""
_REPORTS = (
    "SELECT count(*) FROM events WHERE effect = ? AND sequence > ? AND fence = ?"
    " AND type IN ('OBSERVE_HIT', 'OBSERVE_MISS')"
)
_INSERT_EVENT = f"INSERT INTO events (effect, {', '.join(EVENT_COLUMNS)}) VALUES (?{', ?' * len(EVENT_COLUMNS)})"


def carry_out(connection: apsw.Connection, request: Request, now: int, new_token: Callable[[], str]) -> Answer:
    """Carry out one effect call.

    Args:
        connection: in a transaction that has SQLite's write lock.
        request: an effect call.
        now: ms since 1970.
        new_token: makes lease tokens.

    Returns:
        The answer. A refused call gets an answer, too, and changes nothing.

    Raises:
        apsw.Error: the storage failed.
    """
    try:
        return _change(connection, request, now, new_token)
    except Problem as problem:
        return answer_problem(problem, request.request_id)


def answer_failure(request: Request, error: apsw.Error) -> Answer:
    """503: the storage failed. Only an embedded ledger's caller learns which process blocks it: it can act on that."""
    why = f" ({error})" if isinstance(error, LockTimeout) and request.scope.actor == "embedded" else ""
    # If a forced reset was carried out, the same one again could end the lease of the next holder.
    is_reset = request.operation is Operation.RESET_EFFECT
    advice = "Look at the effect before you send it again." if is_reset else "Send it again."
    message = f"The ledger's storage did not answer{why}; whether the call was carried out is unknown. {advice}"
    return answer_problem(Problem(503, "unavailable", message, retry_after_s=RETRY_AFTER_S), request.request_id)


def _change(connection: apsw.Connection, request: Request, now: int, new_token: Callable[[], str]) -> Answer:
    call = read_call(request)
    key_hash = hash_effect_name(call.environment, call.namespace, call.key)
    row = connection.execute(_SELECT, (key_hash,)).fetchone()
    before = None if row is None else from_row(row)
    context = Context(
        *(call.namespace, call.key, now),
        new_id=lambda: _new_id(connection, now),
        new_token=new_token,
        count_reports=lambda: 0 if before is None else _count_reports(connection, before),
        outages=lambda: read_outages(connection, now),
    )
    decision = apply(before, call.command, context)
    after = decision.effect
    if decision.events and after is not None:
        if before is None:
            connection.execute(_INSERT, (call.environment, key_hash, *to_row(after)))
        else:
            connection.execute(_UPDATE, (*to_row(after)[3:], after.id))
        first = after.event_count - len(decision.events) + 1
        for sequence, event in enumerate(decision.events, first):
            connection.execute(_INSERT_EVENT, (after.id, *to_event_row(sequence, event)))
    return answer_decision(call, decision, now)


def _new_id(connection: apsw.Connection, now: int) -> int:
    """An id above all others. The transaction has the write lock, so no other process makes the same id."""
    return next_id(connection.execute("SELECT max(id) FROM effects").get or 0, now)


def _count_reports(connection: apsw.Connection, effect: Effect) -> int:
    count: int = connection.execute(_REPORTS, (effect.id, effect.event_count - REPORTS_AMONG, effect.fence)).get
    return count
