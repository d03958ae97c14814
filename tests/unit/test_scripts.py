"""Names of keys and digests of scripts, which workers of two versions share."""

import re
from pathlib import Path

import pytest

from celery_streams import scripts
from celery_streams.scripts import Script
from celery_streams.transport import keys

#: Each script's digest, which does not depend on Python code.
DIGESTS = Path(__file__).with_name("scripts.sha1")


def test_no_script_has_changed_unnoticed() -> None:
    """Change the file to confirm a change: a rolling update runs both versions."""
    known = {name: each.digest for name, each in vars(scripts).items() if isinstance(each, Script)}
    kept = dict(line.split() for line in DIGESTS.read_text().splitlines())

    assert known == kept


def test_each_file_says_what_it_does_and_is_used() -> None:
    folder = Path(scripts.__file__).with_name("lua")
    sources = [each.source for each in vars(scripts).values() if isinstance(each, Script)]
    for file in folder.iterdir():
        assert re.match(r"-- \S", file.read_text()), file
        assert any(scripts.read(file.stem) in source for source in sources), file


@pytest.mark.parametrize("name", ["fetch", "store_result"])
def test_a_result_is_large_from_the_same_size_on_in_lua(name: str) -> None:
    numbers = {int(each) for each in re.findall(r"\d{4,}", scripts.read(name))}
    assert numbers == {scripts.MAX_NOTICE_BYTES}


def test_the_names_of_a_queues_keys() -> None:
    assert keys.GROUP == "workers"
    assert keys.stream("add", 3) == "add:stream:3"
    assert keys.returned("add", 3) == keys.returned_from("add:stream:3") == "add:returned:3"
    assert keys.former_returned("add") == "add:returned"
    assert keys.delayed("add") == "add:delayed"
    assert keys.dead("add") == "add:dead"
    assert keys.notes("add") == ["add:reclaimed", "add:swept"]
    assert keys.beat("nightly") == "celery-beat:nightly"
    assert keys.tag("add:stream:3", "1-0") == "add:stream:3/1-0"
