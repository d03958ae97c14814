"""The cluster without Docker: `python -m local`."""
