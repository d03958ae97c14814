"""The result store: what is written of a job, and how its caller is told."""
