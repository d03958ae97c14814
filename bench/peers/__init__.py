"""The systems of the comparison: a folder each, with its tasks, client and versions."""
