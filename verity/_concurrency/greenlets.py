"""Whether Python's threads are the system's or greenlets, and whether that changed after this package was imported.

gevent and eventlet can replace threads, locks and queues by their own (`monkey.patch_all()`). What was imported or made
before then keeps the system's locks. A greenlet that waits for such a lock stops every other greenlet of the process,
so no lease is renewed and nothing is answered.
"""

from __future__ import annotations

import sys

from verity.errors import VerityConfigError

_PATCHERS = {"gevent.monkey": ("is_module_patched", "threading"), "eventlet.patcher": ("is_monkey_patched", "thread")}
"""The public function of each library that tells whether it has replaced threads, and how it calls them."""


def _patched_by() -> str | None:
    for module, (function, threads) in _PATCHERS.items():
        if module in sys.modules:
            is_patched = getattr(sys.modules[module], function, None)  # none while another thread imports the module
            if is_patched is not None and is_patched(threads):
                return module.partition(".")[0]
    return None


_at_import = _patched_by()


def check_threads() -> None:
    """Refuse to work with threads that were replaced after this package was imported. Called at each entry of a client.

    Raises:
        VerityConfigError: they were; a call would hang.
    """
    patched_by = _patched_by()
    if patched_by != _at_import:
        raise VerityConfigError(
            f"{patched_by} replaced Python's threads after verity was imported; a call could then stop the whole "
            "process. Patch before anything imports verity: first of all in the program, without --preload in "
            "gunicorn, with --gevent-early-monkey-patch in uWSGI.",
            parameter="client",
        )
