"""Options of Flower, which runs this file and reads the names that it knows.

The names are Flower's: https://flower.readthedocs.io/en/latest/config.html
"""

import sys
from pathlib import Path

_secret = Path("/run/secrets/flower_password")
try:
    _password = _secret.read_text().strip()
except OSError as _error:
    sys.exit(f"error: cannot read {_secret}: {_error.strerror}")
# Flower only supports ASCII, and an empty password would allow any access.
if not _password or not _password.isascii():
    sys.exit(f"error: {_secret} must contain a password, in ASCII")
basic_auth = [f"flower:{_password}"]

# The history survives a restart; after a kill the last half minute is missing.
persistent = True
db = "/data/flower"
state_save_interval = 30_000
# With small values these take 70 MB of memory and 3 MB of the volume.
max_tasks = 10_000

# A worker has a new name after each start: without this the list of offline workers only grows.
purge_offline_workers = 600

# Workers send no task events by default. Flower enables them every five seconds, so also in workers
# that start later.
enable_events = True
