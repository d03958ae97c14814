"""Who asks: callers know the tasks by name, and have no family's code."""
