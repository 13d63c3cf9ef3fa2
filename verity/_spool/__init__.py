"""The spool: a file that keeps results of effects until the ledger has confirmed their commits.

`file.py` has the file, `entry.py` what it keeps. Only clients that have a spool import this package.
"""

from verity._spool.entry import Entry, Kind, LedgerName, make_entry, name_ledger
from verity._spool.file import Spool, SpoolError

__all__ = ["Entry", "Kind", "LedgerName", "Spool", "SpoolError", "make_entry", "name_ledger"]
