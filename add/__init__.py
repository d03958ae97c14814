"""The task family `add`: its tasks and their worker."""
