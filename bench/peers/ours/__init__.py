"""This cluster as a system of the comparison: its client."""
