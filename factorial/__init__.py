"""The task family `factorial`: its tasks and their worker."""
