"""Detects that gevent or eventlet replaced Python's threads after this package was imported.

Both can replace threads, locks and queues by greenlets and their own locks (`monkey.patch_all()`). A module that was
imported before that keeps the system's locks. A greenlet that waits for a system lock blocks all greenlets of the
process, so no lease is renewed and no request is answered.
"""

from __future__ import annotations

import sys

from verity.errors import VerityConfigError

_PATCHERS = {"gevent.monkey": ("is_module_patched", "threading"), "eventlet.patcher": ("is_monkey_patched", "thread")}
"""For each library: its public function that tells whether a module was replaced, and its name for threads."""


def _patched_by() -> str | None:
    for module, (function, threads) in _PATCHERS.items():
        if module in sys.modules:
            is_patched = getattr(sys.modules[module], function, None)  # None while another thread imports the module
            if is_patched is not None and is_patched(threads):
                return module.partition(".")[0]
    return None


_at_import = _patched_by()


def check_threads() -> None:
    """Refuse to work if threads were replaced after this package was imported. Each entry of a client calls it.

    Raises:
        VerityConfigError: threads were replaced, so a call would hang.
    """
    patched_by = _patched_by()
    if patched_by != _at_import:
        raise VerityConfigError(
            f"{patched_by} replaced Python's threads after verity was imported; a call could then stop the whole "
            "process. Patch before anything imports verity: first of all in the program, without --preload in "
            "gunicorn, with --gevent-early-monkey-patch in uWSGI.",
            parameter="client",
        )
