"""Measurements of the cluster, each beside its yardstick."""
