"""The ledger's pure core: the effect, its transition table, and the calls that reach it."""
