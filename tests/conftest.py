"""The environment of every test: the defaults, without the settings of the user's shell or .env."""

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

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

TESTS = Path(__file__).parent
#: Modules of tests/cluster that start stacks of their own; the others share two.
OWN_STACKS = ("capabilities", "dotenv", "families", "machines")


#: The folders of tests in the order in which they run: those with the longest modules first.
ORDER = ("cluster", "streams", "faults", "local", "fuzz", "repo", "unit")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have quick modules fill the gaps that long ones leave at the end."""
    items.sort(key=lambda item: ORDER.index(item.path.relative_to(TESTS).parts[0]))


class ByModule(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """Runs the tests of a module in one process, and those that share the stacks in one."""

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        is_alone = module.endswith(tuple(f"/test_{name}.py" for name in OWN_STACKS))
        return "stacks" if module.startswith("tests/cluster/") and not is_alone else module


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByModule:
    """Return what distributes the tests among processes."""
    return ByModule(config, log)
