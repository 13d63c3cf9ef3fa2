"""The client's decisions as pure functions: no I/O; the time and random numbers are arguments."""
