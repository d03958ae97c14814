"""A peer of the comparison, in its own environment: its tasks and its client."""
