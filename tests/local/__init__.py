"""Tests on real workers and a separate server, without Docker."""
