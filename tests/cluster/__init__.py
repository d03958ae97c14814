"""Tests on the compose stack, from outside."""
