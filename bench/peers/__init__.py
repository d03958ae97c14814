"""The systems that are compared: a folder each, with its tasks, its client and its versions."""
