"""Tests on real workers with a server of their own, without Docker."""
