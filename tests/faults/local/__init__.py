"""The plain part, which needs no Docker: `make test` runs it."""
