"""The client's logic, written once in async Python; `verity/_sync` is made from it by scripts/mirror.py."""
