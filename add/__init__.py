"""The task family `add`: its tasks, and the worker that runs them."""
