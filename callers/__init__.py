"""Callers submit jobs by task name; they need no code of any family."""
