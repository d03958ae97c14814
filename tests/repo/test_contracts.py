"""The generated contracts are those of the tasks."""

import json

from celeryconfig import task_routes
from develop import contracts
from tests.support.repo import read


def test_the_generated_files_are_up_to_date() -> None:
    outdated = " and ".join(contracts.outdated())

    assert not outdated, f"{outdated}: out of date; run `make contracts`"


def test_every_routed_task_has_a_contract() -> None:
    assert [*json.loads(read(contracts.CONTRACTS))] == sorted(task_routes[0])
