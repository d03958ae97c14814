"""The options of the fault suite, and the fixtures of both its parts."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import requirements
from tests.faults.report import Report
from tests.support import seed

#: The faults that are also run with kombu's lists; all of them would take long.
WITH_LISTS = {
    "test_kill_of_a_worker_container",
    "test_a_worker_stopped_for_longer_than_the_lease",
    "test_kill_of_redis",
    "test_redis_at_maxmemory",
    "test_malformed_messages_among_good_ones",
    "test_clocks_an_hour_off",
}
STACK = Path(__file__).parent / "stack"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of `make test_faults`; `make test` runs the plain part, without any."""
    group = parser.getgroup("faults")
    group.addoption("--stack", action="store_true", help="also run the compose stack's faults")
    group.addoption(
        "--lists",
        action="store_true",
        help="run with kombu's lists instead of streams, asserting nothing",
    )
    group.addoption("--report", action="store_true", help="write the table of docs/reliability.md")


def pytest_configure(config: pytest.Config) -> None:
    """Choose the transport before its settings are read, and check the requirements."""
    if config.getoption("--lists", default=False):
        os.environ["REDIS_TRANSPORT"] = "lists"
    if config.getoption("--stack", default=False):
        missing = [*requirements.missing()]
        if missing:
            raise pytest.UsageError(
                f"the faults of the compose stack need {', '.join(missing)}: "
                ".ci/engine and .ci/fault-tools install what Debian has"
            )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the faults of the compose stack, which take long, unless they are requested."""
    if collection_path == STACK and not config.getoption("--stack", default=False):
        return True
    return None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let tests fail with kombu's lists: only their counts matter."""
    if not config.getoption("--lists", default=False):
        return
    for item in items:
        item.add_marker(pytest.mark.xfail(reason="kombu's lists", strict=False))
    if not config.option.keyword:
        items[:] = [item for item in items if item.name in WITH_LISTS]


@pytest.fixture(scope="session")
def report(pytestconfig: pytest.Config) -> Iterator[Report]:
    """The account of each fault, written to the document on request."""
    report = Report("lists" if pytestconfig.getoption("--lists", default=False) else "streams")
    yield report
    report.save()
    if pytestconfig.getoption("--report", default=False):
        report.write()


@pytest.fixture
def chance() -> random.Random:
    """The random generator of a test; it prints its seed, and SEED repeats it."""
    return seed.chance()
