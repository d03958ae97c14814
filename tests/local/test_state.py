"""The folder of a local cluster: it is private, loaded without a time limit, and removed."""

import os
import stat
import subprocess
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from time import sleep
from typing import Any

import pytest
import redis

from local import server
from local.server import ServerError
from local.state import MARKER_FILE, NotOurs, State
from tests.support.local import Local
from tests.support.repo import ROOT


def open_to_others(folder: Path) -> list[str]:
    """Return the paths that other users may access."""
    found = [folder, *folder.rglob("*")]
    return [str(path) for path in found if stat.S_IMODE(path.lstat().st_mode) & 0o077]


def test_an_id_that_another_process_has_now_is_not_ours(tmp_path: Path) -> None:
    state = State(tmp_path)
    state.add("add", os.getpid())
    assert [process.role for process in state.running()] == ["add"]

    (record,) = (tmp_path / "processes").iterdir()
    role, pid, started = record.name.split(".")
    record.rename(record.with_name(f"{role}.{pid}.{int(started) - 10}"))
    assert list(state.running()) == []
    assert list((tmp_path / "processes").iterdir()) == []


@pytest.fixture
def easy_umask() -> Iterator[None]:
    """A umask with which other users can read new files."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.usefixtures("easy_umask")
def test_other_users_cannot_read_arguments_and_results_old_ones_included(tmp_path: Path) -> None:
    old = tmp_path / "state" / "redis" / "appendonlydir"
    old.mkdir(parents=True)
    (tmp_path / "state" / MARKER_FILE).touch()
    (old.parent / "left").write_text("over")
    assert open_to_others(tmp_path / "state")

    local = Local(tmp_path)
    try:
        local.wait_until_ready()
        assert local.command("callers.add", "4", "6").stdout == "10\n"
        with local.own_worker("local", "worker", "add"):
            assert len(local.running("add")) >= 1
            files = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
            assert [path for path in files if "appendonly" in path.name]
            assert open_to_others(tmp_path / "state") == []
    finally:
        local.stop()
    assert open_to_others(tmp_path / "state") == []


@pytest.mark.usefixtures("easy_umask")
def test_beat_keeps_its_schedule_to_itself(server_only: Local, tmp_path: Path) -> None:
    state = tmp_path / "beat" / "schedule"
    log = tmp_path / "beat.log"
    with (
        log.open("w") as file,
        subprocess.Popen(
            [ROOT / ".venv/bin/python", "-m", "callers.beat"],
            cwd=ROOT,
            env={**server_only.env, "BEAT_STATE": str(state)},
            stdout=file,
            stderr=file,
        ) as beat,
    ):
        while beat.poll() is None and not list(state.parent.glob("schedule*")):
            sleep(0.05)
        beat.terminate()
    assert list(state.parent.iterdir()), log.read_text()
    assert open_to_others(state.parent) == []


# Removing -------------------------------------------------------------------------


def clean(folder: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["make", "-s", "local_clean"],
        cwd=ROOT,
        env={**os.environ, "LOCAL_STATE": folder, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("name", ["state", "with a blank", "$HOME", "é"])
def test_clean_removes_what_it_ran_on(tmp_path: Path, name: str) -> None:
    beside = tmp_path / "beside"
    beside.write_text("kept")
    state = State(tmp_path / name)
    state.make_private()
    state.data.mkdir()
    done = clean(str(state.folder))

    assert (done.returncode, done.stdout) == (0, "no local cluster is running\n"), done.stderr
    assert [*tmp_path.iterdir()] == [beside]
    assert clean(str(state.folder)).returncode == 0  # once more


def test_beat_may_be_the_first_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "beat-schedule").touch()

    assert clean(str(tmp_path / "state")).returncode == 0
    assert [*tmp_path.iterdir()] == []


# Only pass the test's own folders to a command that deletes: with a broken check, it would delete
# them.
@pytest.mark.parametrize("folder", ["{file}", "{parent}"])
def test_clean_leaves_what_is_not_its_own(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "state" / "redis").mkdir(parents=True)
    done = clean(folder.format(file=tmp_path / "file", parent=tmp_path))

    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert [line for line in done.stderr.splitlines() if "make: ***" not in line] == [
        done.stderr.splitlines()[0]
    ]
    assert (tmp_path / "file").read_text() == "kept"
    assert (tmp_path / "state" / "redis").exists()


def test_a_folder_of_something_else_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()

    with pytest.raises(NotOurs, match="name an empty folder in LOCAL_STATE"):
        State(tmp_path)


def test_an_empty_folder_may_be_named(tmp_path: Path) -> None:
    State(tmp_path).make_private()

    assert [path.name for path in tmp_path.iterdir()] == [MARKER_FILE]
    State(tmp_path)


# Loading --------------------------------------------------------------------------


@pytest.fixture
def loaded(tmp_path: Path) -> Path:
    """The data of a server: many keys, in an append-only file."""
    (tmp_path / "password").write_text("s3cr3t")
    port = server.free_port()
    process = server.start(port, tmp_path / "password", tmp_path / "data")
    client: Any = redis.Redis.from_url(f"redis://:s3cr3t@127.0.0.1:{port}")
    with client, client.pipeline(transaction=False) as pipe:
        client.config_set("appendfsync", "no")
        for number in range(60_000):
            pipe.set(f"key {number}", "x" * 100)
        pipe.execute()
        client.shutdown(save=False)
    assert process.wait(20)
    return tmp_path


@pytest.fixture
def slow_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A server that loads each key slowly."""
    slow = tmp_path / "slow-server"
    slow.write_text(f'#!/bin/sh\nexec "{server.binary()}" "$@" --key-load-delay 100\n')
    slow.chmod(0o755)
    monkeypatch.setenv("REDIS_SERVER", str(slow))
    return slow


@pytest.mark.usefixtures("slow_server")
def test_a_server_may_load_for_longer_than_it_may_take_to_start(
    loaded: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(server, "START_TIMEOUT", 4.0)
    monkeypatch.setattr(server, "LOADING_INTERVAL", 0.1)
    port = server.free_port()
    process = server.start(port, loaded / "password", loaded / "data")
    with redis.Redis.from_url(f"redis://:s3cr3t@127.0.0.1:{port}") as client:
        assert client.dbsize() == 60_000
        client.shutdown(nosave=True)
    assert process.wait(20)
    printed = [line for line in capfd.readouterr().out.splitlines() if "loading data: " in line]

    assert len(printed) > 1
    assert all("% done, " in line and line.endswith(" s to go") for line in printed)


@pytest.mark.usefixtures("slow_server")
def test_a_stop_does_not_wait_for_what_is_loaded(loaded: Path) -> None:
    asked = count()
    with pytest.raises(ServerError, match="stopped while the Redis server was loading its data"):
        server.start(
            server.free_port(), loaded / "password", loaded / "data", lambda: next(asked) > 5
        )
