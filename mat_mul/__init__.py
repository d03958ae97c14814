"""The task family `mat_mul`: its tasks and their worker."""
