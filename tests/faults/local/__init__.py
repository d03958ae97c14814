"""The part without Docker, which `make test` runs."""
