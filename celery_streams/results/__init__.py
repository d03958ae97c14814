"""The result store: how results are written, announced and awaited."""
