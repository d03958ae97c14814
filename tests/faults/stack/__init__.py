"""The part that breaks the compose stack: `make test_faults` runs it."""
