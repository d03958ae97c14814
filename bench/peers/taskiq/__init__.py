"""A peer of the comparison, in an environment of its own: its tasks and its client."""
