"""The worker's command line and its checks."""

import os
import socket

import pytest

from cluster.worker import arguments


def test_a_worker_is_bound_to_its_queue_under_a_name_of_its_own() -> None:
    line = arguments("add")

    assert "--queues=add" in line
    assert f"--hostname=add@{socket.gethostname()}.{os.getpid()}" in line


def test_the_concurrency_is_the_familys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAT_MUL_CONCURRENCY", "7")

    assert "--concurrency=7" in arguments("mat_mul")
    assert "--concurrency=2" in arguments("add")


def test_a_concurrency_that_is_no_number_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADD_CONCURRENCY", "all")

    with pytest.raises(ValueError, match="ADD_CONCURRENCY must be a whole number above zero"):
        arguments("add")
