"""The task family `mat_mul`: its tasks, and the worker that runs them."""
