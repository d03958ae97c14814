"""This cluster as one of the systems that are compared: its client."""
