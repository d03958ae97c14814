"""The same cluster without Docker: `python -m local`."""
