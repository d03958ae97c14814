"""What is derived from the tasks is up to date."""

import json

from celeryconfig import families
from develop import derived
from tests.support.repo import read


def test_the_derived_files_are_up_to_date() -> None:
    outdated = " and ".join(derived.outdated())

    assert not outdated, f"{outdated}: out of date; run `make contracts`"


def test_every_routed_task_has_a_contract() -> None:
    assert {*json.loads(read(derived.CONTRACTS))} == families.routes().keys()
