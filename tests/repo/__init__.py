"""Tests that the files agree with each other."""
