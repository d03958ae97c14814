"""Integers and arrays of any size, as arguments and results."""
