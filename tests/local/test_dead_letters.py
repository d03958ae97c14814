"""Dead letters: shown, replayed and dropped, and the errors of one line."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import NotRegistered
from redis import Redis

from callers.client import Client
from celery_streams import dead_letters
from celery_streams.dead_letters import Letter, NotReplayable, UnknownLetter
from local.server import ROOT, free_port
from tests.support.local import Local
from tests.support.messages import JOB, message
from tests.support.waiting import eventually


@pytest.fixture
def store(server: Local) -> Iterator[Any]:
    """A plain client of a server without workers, which is empty."""
    with Redis("127.0.0.1", server.port, password=server.password.read_text()) as redis:
        redis.flushall()
        yield redis


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """A server without workers."""
    local = Local(tmp_path_factory.mktemp("dead"), "--server-only")
    try:
        local.wait_until_ready()
        yield local
    finally:
        local.stop()


@pytest.fixture
def results(server: Local, store: Any) -> Iterator[Any]:
    """The result store of an app on that server."""
    with server.client() as client:
        yield client.app.backend


def add_letter(store: Any, raw: bytes | None = None, queue: str = "add", **headers: Any) -> str:
    """Dead-letter a message, as the transport does, and return the letter's id."""
    fields = {
        "message": json.dumps(message(headers)).encode() if raw is None else raw,
        "reason": "delivered 3 times, and the workers died with it",
        "time": "2026-11-21T18:47:47+00:00",
        "deliveries": 3,
    }
    return f"{queue}:{store.xadd(f'{queue}:dead', fields).decode()}"


def keep(results: Any, job_id: str, state: str) -> None:
    """Store a result as Celery does."""
    error = {"exc_type": "ValueError", "exc_message": ["no"], "exc_module": "builtins"}
    result = error if state == "FAILURE" else None
    known = {"task_id": job_id, "status": state, "result": result}
    results.client.set(results.get_key_for_task(job_id), results.encode(known))


def commands(server: Local, *argv: str) -> "subprocess.CompletedProcess[str]":
    """Run `python -m celery_streams dead …`."""
    return server.command("celery_streams", "dead", *argv)


# The functions ---------------------------------------------------------------------


def test_a_letter_knows_what_its_message_says(store: Any) -> None:
    letter = dead_letters.show(store, add_letter(store))

    assert (letter.task, letter.job_id, letter.deliveries) == ("add.tasks.add", JOB, "3")
    assert letter.body[0] == [4, 6]


def test_a_letter_of_protocol_1_knows_it_too(store: Any) -> None:
    text = json.dumps({"task": "add.tasks.add", "id": "old", "args": [4, 6]})
    old = message() | {"headers": {}, "body": text, "properties": {}}
    letter = dead_letters.show(store, add_letter(store, json.dumps(old).encode()))

    assert (letter.task, letter.job_id, letter.body["args"]) == ("add.tasks.add", "old", [4, 6])


@pytest.mark.parametrize("raw", [b"", b"\xff\x00", b"[]", b"5", b"[" * 100_000, b'{"headers": 5}'])
def test_a_letter_that_cannot_be_read_is_shown_all_the_same(store: Any, raw: bytes) -> None:
    letter = dead_letters.show(store, add_letter(store, raw))

    assert (letter.message, letter.task, letter.job_id) == (raw, None, None)


def test_letters_come_queue_by_queue_the_oldest_first(store: Any) -> None:
    expected = [add_letter(store, queue="a:b"), *(add_letter(store) for _ in range(250))]
    store.set("no:dead", "a key of another type is no queue")

    assert [letter.id for letter in dead_letters.letters(store)] == expected
    assert dead_letters.queues(store) == ["a:b", "add"]
    assert [letter.id for letter in dead_letters.letters(store, "a:b")] == expected[:1]
    assert not [*dead_letters.letters(store, "unheard")]
    assert dead_letters.show(store, expected[0]).queue == "a:b"


def test_what_dies_while_letters_are_read_is_for_the_next_time(store: Any) -> None:
    add_letter(store)

    assert len([add_letter(store) for _ in dead_letters.letters(store)]) == 1


@pytest.mark.parametrize(("priority", "step"), [(0, 0), (2, 0), (3, 3), (9, 9), (40, 9), ("x", 0)])
def test_a_replayed_message_is_as_it_came_in_the_stream_of_its_priority(
    store: Any, priority: Any, step: int
) -> None:
    raw = json.dumps(message(properties={"priority": priority})).encode()
    letter = dead_letters.show(store, add_letter(store, raw))
    dead_letters.replay(store, letter)

    [(_, fields)] = store.xrange(f"add:stream:{step}")
    assert fields == {b"message": raw}
    assert not store.xlen("add:dead")


def test_replaying_forgets_the_failure_and_no_other_result(store: Any, results: Any) -> None:
    letter = dead_letters.show(store, add_letter(store))
    keep(results, JOB, "FAILURE")
    keep(results, "another", "FAILURE")
    dead_letters.replay(store, letter, results)

    assert results.get_state(JOB) == "PENDING"
    assert results.get_state("another") == "FAILURE"


def test_replaying_keeps_a_success(store: Any, results: Any) -> None:
    letter = dead_letters.show(store, add_letter(store))
    keep(results, JOB, "SUCCESS")
    dead_letters.replay(store, letter, results)

    assert results.get_state(JOB) == "SUCCESS"


def test_replaying_keeps_a_result_that_came_meanwhile(
    store: Any, results: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    letter = dead_letters.show(store, add_letter(store))
    keep(results, JOB, "FAILURE")
    decode = results.decode

    def meanwhile(stored: bytes) -> Any:
        keep(results, JOB, "SUCCESS")
        return decode(stored)

    monkeypatch.setattr(results, "decode", meanwhile)
    dead_letters.replay(store, letter, results)
    monkeypatch.undo()

    assert results.get_state(JOB) == "SUCCESS"


def test_the_failure_in_another_store_is_forgotten_before_the_job_runs(store: Any) -> None:
    class Elsewhere:
        """A store that is not in the broker's Redis."""

        forgotten: list[str] = []  # noqa: RUF012 - one test's

        def get_state(self, job_id: str) -> str:
            return "FAILURE"

        def forget(self, job_id: str) -> None:
            assert not store.xlen("add:stream:0")
            self.forgotten.append(job_id)

    dead_letters.replay(store, dead_letters.show(store, add_letter(store)), Elsewhere())

    assert Elsewhere.forgotten == [JOB]
    assert store.xlen("add:stream:0") == 1


def test_a_letter_is_replayed_once(store: Any, results: Any) -> None:
    letter = dead_letters.show(store, add_letter(store))
    dead_letters.replay(store, letter, results)
    keep(results, JOB, "FAILURE")

    with pytest.raises(UnknownLetter, match=f"no dead letter {letter.id}"):
        dead_letters.replay(store, letter, results)
    assert store.xlen("add:stream:0") == 1
    assert results.get_state(JOB) == "FAILURE"


def test_a_letter_that_no_worker_can_take_is_not_replayed(store: Any) -> None:
    letter = dead_letters.show(store, add_letter(store, timelimit="abc"))

    with pytest.raises(NotReplayable, match="cannot be replayed: the task's header 'timelimit'"):
        dead_letters.replay(store, letter)
    assert store.xlen("add:dead") == 1
    assert not store.xlen("add:stream:0")


def test_a_letter_is_dropped_once(store: Any) -> None:
    letter = dead_letters.show(store, add_letter(store))
    dead_letters.drop(store, letter)

    with pytest.raises(UnknownLetter):
        dead_letters.drop(store, letter)


# The commands ----------------------------------------------------------------------


def test_an_empty_list_of_dead_letters(server: Local, store: Any) -> None:
    for argv in (["list"], ["list", "add"], ["replay", "--all"], ["drop", "--all", "add"]):
        done = commands(server, *argv)

        where = " in the queue add" if argv[0] == "list" and "add" in argv else ""
        assert (done.stdout, done.stderr) == ("", f"there are no dead letters{where}\n")
        assert done.returncode == 0


def test_list_shows_one_line_a_letter(server: Local, store: Any) -> None:
    letters = [add_letter(store), add_letter(store, b"\x1b[2J", queue="mat_mul")]
    done = commands(server, "list")

    title, first, second = done.stdout.splitlines()
    assert title.split() == ["ID", "QUEUE", "TIME", "TASK", "JOB", "DELIVERIES", "REASON"]
    assert first.split(maxsplit=6) == [
        *(letters[0], "add", "2026-11-21T18:47:47+00:00", "add.tasks.add", JOB, "3"),
        "delivered 3 times, and the workers died with it",
    ]
    assert second.split()[:6] == [letters[1], "mat_mul", first.split()[2], "-", "-", "3"]
    assert title.index("REASON") == first.index("delivered") == second.index("delivered")
    assert commands(server, "list", "mat_mul").stdout.splitlines()[1].split() == second.split()


def test_what_a_message_says_does_not_reach_the_terminal_as_it_is(
    server: Local, store: Any
) -> None:
    letter = add_letter(store, id="\x1b[2J\nadd:1-1", task="\x9b31m\u202e")

    for done in (commands(server, "list"), commands(server, "show", letter)):
        assert r"\x1b[2J\nadd:1-1" in done.stdout
        assert not set(done.stdout) & set("\x1b\x9b\u202e")


def test_show_prints_all(server: Local, store: Any) -> None:
    done = commands(server, "show", add_letter(store))

    assert f"job: {JOB}\ndeliveries: 3\nreason: delivered 3 times" in done.stdout
    assert '"correlation_id": "add-8d3f"' in done.stdout
    body = done.stdout.split("body: ")[1]
    assert json.loads(body)[0] == [4, 6]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"\xff\x00{", r"message: b'\xff\x00{'"),
        (json.dumps({"body": "YWJj", "content-type": "text/x"}).encode(), 'body: "YWJj"'),
        (json.dumps(message() | {"content-type": "application/x-python-serialize"}).encode(), "b'"),
    ],
)
def test_show_gives_what_it_cannot_decode_as_it_is(
    server: Local, store: Any, raw: bytes, words: str
) -> None:
    done = commands(server, "show", add_letter(store, raw))

    assert words in done.stdout
    assert done.returncode == 0


def test_replay_and_drop_take_ids_or_all(server: Local, store: Any) -> None:
    first, second, third = (add_letter(store, id=name) for name in "abc")
    add_letter(store, queue="mat_mul")

    done = commands(server, "replay", first, second)
    assert done.stdout == f"replayed {first}, job a\nreplayed {second}, job b\n"
    assert commands(server, "drop", third).stdout == f"dropped {third}, job c\n"
    assert commands(server, "drop", "--all", "add").stderr == "there are no dead letters\n"
    assert commands(server, "replay", "--all").stdout.startswith("replayed mat_mul:")
    assert (store.xlen("add:stream:0"), store.xlen("mat_mul:stream:0")) == (2, 1)
    assert not [*dead_letters.letters(store)]


def test_a_letter_that_fails_does_not_keep_the_others_back(server: Local, store: Any) -> None:
    bad, good = add_letter(store, b"[]"), add_letter(store)
    done = commands(server, "replay", "add:1-1", bad, good)

    assert done.stdout == f"replayed {good}, job {JOB}\n"
    assert done.stderr.splitlines() == [
        "error: there is no dead letter add:1-1",
        f"error: {bad} cannot be replayed: the message is not an envelope but a list",
    ]
    assert done.returncode == 1
    assert commands(server, "replay", "--all").returncode == 1


@pytest.mark.parametrize(
    ("argv", "status", "words"),
    [
        (("show", "add:1-1"), 1, "error: there is no dead letter add:1-1\n"),
        (("drop", "add:1-1"), 1, "error: there is no dead letter add:1-1\n"),
        (("show", "add"), 2, "error: 'add' is not a dead letter's id, such as add:1700000000000-0"),
        (("replay", "add:1-1", "x"), 2, "error: 'x' is not a dead letter's id"),
        (("replay",), 2, "error: Give the ids of dead letters, or --all (see --help)"),
        (("drop",), 2, "error: Give the ids of dead letters, or --all (see --help)"),
        (
            ("drop", "--all"),
            2,
            "error: Name the queues whose dead letters are to be dropped",
        ),
        (("drop", "--all", "add:1-1"), 2, "error: --all takes queues; add:1-1 is the id of one"),
        (("show",), 2, "error: Missing argument 'ID'"),
        (("unheard",), 2, "error: No such command 'unheard'"),
        (("list", "--app", "unheard"), 1, "error: cannot load the app unheard: No module named"),
        (("list", "--broker-url", "amqp://127.0.0.1:1//"), 1, "error: the broker amqp://"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    server: Local, store: Any, argv: tuple[str, ...], status: int, words: str
) -> None:
    add_letter(store)
    done = commands(server, *argv)

    assert done.stderr.startswith(words)
    assert (done.stdout, len(done.stderr.splitlines()), done.returncode) == ("", 1, status)
    assert store.xlen("add:dead") == 1


def test_without_a_command_there_is_help(server: Local) -> None:
    done = server.command("celery_streams", "dead")

    assert done.stderr.startswith("Usage: python -m celery_streams dead [OPTIONS] COMMAND")
    assert len(done.stderr.splitlines()) > 5
    assert done.returncode == 2


def test_a_missing_broker_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "celery_streams").symlink_to(ROOT / "celery_streams")
    done = subprocess.run(
        [sys.executable, "-m", "celery_streams", "dead", "list"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (
        1,
        "error: no broker is configured: name --app or --broker-url\n",
    )


def test_a_key_of_another_type_is_one_line(server: Local, store: Any) -> None:
    store.set("add:dead", "x")

    for argv in (["list", "add"], ["show", "add:1-1"], ["replay", "add:1-1"]):
        done = commands(server, *argv)
        assert done.stderr.startswith("error: the Redis of redis://")
        assert "WRONGTYPE" in done.stderr
        assert (len(done.stderr.splitlines()), done.returncode) == (1, 1)


def test_an_unreachable_server_is_one_line(server: Local) -> None:
    port = free_port()
    done = commands(server, "list", "--broker-url", f"redis://127.0.0.1:{port}/0")

    assert done.stderr.startswith("error: cannot reach the Redis of redis://")
    assert f"connecting to 127.0.0.1:{port}" in done.stderr
    assert (len(done.stderr.splitlines()), done.returncode) == (1, 1)


def test_a_wrong_password_is_one_line_without_it(server: Local, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("not-the-secret")
    done = server.command("celery_streams", "dead", "list", REDIS_PASSWORD_FILE=str(wrong))

    assert "refuses the password" in done.stderr
    assert (len(done.stderr.splitlines()), done.returncode) == (1, 1)
    assert "not-the-secret" not in done.stderr


def test_a_plain_celery_program_has_its_letters_too(
    server: Local, store: Any, tmp_path: Path
) -> None:
    letter = add_letter(store)
    url = f"redis://:{server.password.read_text()}@127.0.0.1:{server.port}/0"
    (tmp_path / "program.py").write_text(
        f"from celery import Celery\napp = Celery(broker={url!r}, backend={url!r})\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "celery_streams", "dead", "list", "-A", "program"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert letter in done.stdout


# With workers ----------------------------------------------------------------------


def test_a_replayed_job_keeps_its_id_and_has_a_result(local: Local, client: Client) -> None:
    job = client.app.send_task("factorial.tasks.factorial", (5,), queue="add")
    with pytest.raises(NotRegistered):
        client.get(job)
    store: Any = client.app.backend
    redis = Redis(connection_pool=store.client.connection_pool)

    def letter() -> Letter | None:
        return next(
            (each for each in dead_letters.letters(redis, "add") if each.job_id == job.id), None
        )

    died = eventually("dead letter", letter)
    assert died is not None
    # As if the worker had the task since.
    redis.xadd("factorial:dead", {"message": died.message, "reason": "moved"})
    (moved,) = (each for each in dead_letters.letters(redis, "factorial") if each.job_id == job.id)
    done = local.command("celery_streams", "dead", "replay", moved.id)

    assert done.stdout == f"replayed {moved.id}, job {job.id}\n"
    assert client.get(client.app.AsyncResult(job.id)) == 120


def test_make_shows_and_replays_them(server: Local, store: Any) -> None:
    letter = add_letter(store)

    def make(*argv: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["make", *argv], cwd=ROOT, env=server.env, capture_output=True, text=True, check=False
        )

    assert letter in make("dead").stdout
    assert letter in make("dead", "QUEUE=add").stdout
    assert make("replay").returncode == 2
    assert make("replay", f"ID={letter}").stdout == f"replayed {letter}, job {JOB}\n"
