"""The environment of every test: the defaults, without the settings of the user's shell or .env."""

import os
import re
import signal
from collections.abc import Sequence

import pytest

from tests.support.repo import read

#: Settings of the sources of programs and images; tests keep them.
SOURCES = {"PYTHON_IMAGE", "REDIS_IMAGE", "RABBITMQ_IMAGE", "IMAGE_PREFIX", "REDIS_SERVER"}

#: Variables that `make test` passes to a make that a test runs, which would print its folders.
OF_MAKE = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}

for _name in OF_MAKE:
    os.environ.pop(_name, None)
for _name in re.findall(r"^#?([A-Z][A-Z_]+)=", read(".env.example"), re.MULTILINE):
    if _name not in SOURCES:
        os.environ.pop(_name, None)

# A shell's background job ignores SIGINT, and the programs that a test starts inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

#: The fixtures that start the stacks, one of each kind.
STACKS = {"stack", "redis_stack", "rabbitmq_stack"}


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
def pytest_collection_modifyitems(items: Sequence[pytest.Function]) -> None:
    """Run the tests of a file in one process, and those of the stacks in one."""
    for item in items:
        group = "stacks" if STACKS & {*item.fixturenames} else item.path.as_posix()
        item.add_marker(pytest.mark.xdist_group(group))
