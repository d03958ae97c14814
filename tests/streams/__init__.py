"""The transport, the result backend and the dead letters alone: a real server, no cluster."""
