"""What holds for every test: the defaults, whatever the user's shell, make or .env says."""

import os
import re
import signal

from tests.repo.repo import read

#: Settings that say where the cluster's parts come from, and not what they do.
SOURCES = {"PYTHON_IMAGE", "REDIS_IMAGE", "RABBITMQ_IMAGE", "IMAGE_PREFIX", "REDIS_SERVER"}

#: What `make test` leaves to a make that a test runs, which would tell of its folders.
OF_MAKE = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}

for _name in OF_MAKE:
    os.environ.pop(_name, None)
for _name in re.findall(r"^#?([A-Z][A-Z_]+)=", read(".env.example"), re.MULTILINE):
    if _name not in SOURCES:
        os.environ.pop(_name, None)

# A shell's background job ignores SIGINT, and so would every program that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
