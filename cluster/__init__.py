"""Code that workers and callers share."""
