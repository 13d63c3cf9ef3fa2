# Made from openapi.yaml by scripts/generate.py. Do not edit.
"""This package raises no errors of its own: an answer is a value, and what the transport raises comes through."""
