"""The client's test bench, written once; `tests/helpers/_sync` is made from it."""
