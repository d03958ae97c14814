"""The task family `factorial`: its tasks, and the worker that runs them."""
