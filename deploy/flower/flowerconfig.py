"""Flower's options, each with its reason: Flower runs this file and takes the names it knows.

The names are Flower's: https://flower.readthedocs.io/en/latest/config.html
"""

import sys
from pathlib import Path

_secret = Path("/run/secrets/flower_password")
try:
    _password = _secret.read_text().strip()
except OSError as _error:
    sys.exit(f"error: cannot read {_secret}: {_error.strerror}")
# Flower compares ASCII alone, and a password of nothing would let everybody in.
if not _password or not _password.isascii():
    sys.exit(f"error: {_secret} must hold a password, in ASCII")
basic_auth = [f"flower:{_password}"]

# The history survives a restart, and a kill but for the last half minute.
persistent = True
db = "/data/flower"
state_save_interval = 30_000
# So many jobs of small values take 70 MB of memory and 3 MB on the volume.
max_tasks = 10_000

# A worker's name is new at each start: without this the list of those that are gone only grows.
purge_offline_workers = 600

# Workers send no events of tasks by themselves. Flower asks all of them every five seconds, so
# those that start later, too.
enable_events = True
