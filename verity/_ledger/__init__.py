"""The ledger's pure core: the effect, the transition table, and the calls. No I/O, no clock, no randomness."""
