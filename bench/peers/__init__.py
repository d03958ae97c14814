"""The systems of the comparison: a module each, with its tasks and client, and its versions.

A peer's module runs in an environment of its own, which has nothing of the cluster's.
"""
