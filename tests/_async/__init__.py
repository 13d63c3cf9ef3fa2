"""The client's behaviour, written once; `tests/_sync` is made from it."""
