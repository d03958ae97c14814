"""Benchmarks of the cluster, each figure beside a yardstick."""
