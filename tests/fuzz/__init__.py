"""Fuzzers of all that a program of this project reads: `python -m tests.fuzz`."""
