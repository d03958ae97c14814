"""A chord's members are counted once each, even if they are delivered or run twice."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from celery.app.task import Context
from celery.utils import uuid
from redis.exceptions import ConnectionError as RedisConnectionError

from celery_streams.results.chords import CHORD_EXPIRES
from tests.support.store import Store, soon

SIZE = 5


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store that tests share."""
    store = Store(tmp_path_factory.mktemp("store"))
    yield store
    store.stop()


class Chord:
    """A sent chord, and the workers of its members."""

    def __init__(self, store: Store, **settings: Any) -> None:
        self.app: Any = store.program(result_backend_always_retry=True, **settings)
        self.redis = store.redis()
        self.queue = f"bodies-{uuid()}"
        self.group_id = uuid()
        self.body = self.app.signature("any.body").set(queue=self.queue, task_id=uuid())
        self.members = [uuid() for _ in range(SIZE)]
        self.app.backend.set_chord_size(self.group_id, SIZE)

    def key(self, name: str) -> str:
        """Return the key of one of the chord's counters."""
        return f"celery-taskset-meta-{self.group_id}.{name}"

    def request(self, number: int) -> Any:
        """Return the request of a member."""
        return Context(
            id=self.members[number], group=self.group_id, group_index=number, chord=dict(self.body)
        )

    def part_returns(self, number: int, value: Any = None, backend: Any = None) -> None:
        """Report a member's end, as a worker does."""
        backend = backend or self.app.backend
        backend.on_chord_part_return(self.request(number), "SUCCESS", value or number)

    def bodies(self) -> int:
        """Return the number of times the body was sent."""
        count: int = self.redis.llen(self.queue)
        return count


@pytest.fixture
def chord(store: Store) -> Chord:
    """A chord of five members."""
    return Chord(store)


def test_the_body_is_sent_once_all_members_are_counted(chord: Chord) -> None:
    for number in range(SIZE):
        assert chord.bodies() == 0
        chord.part_returns(number)

    assert chord.bodies() == 1


def test_members_that_return_twice_are_counted_once(chord: Chord) -> None:
    for number in range(SIZE - 1):
        for _ in range(3):
            chord.part_returns(number)
    assert chord.bodies() == 0

    for _ in range(3):
        chord.part_returns(SIZE - 1)
    for number in range(SIZE):
        chord.part_returns(number)
    assert chord.bodies() == 1


def test_another_value_at_the_second_run_is_not_another_member(chord: Chord) -> None:
    for number in range(SIZE - 1):
        chord.part_returns(number, "first")
        chord.part_returns(number, "second")

    assert chord.bodies() == 0


def test_members_that_return_at_once_and_again_send_one_body(store: Store) -> None:
    for _ in range(20):
        chord = Chord(store)
        with ThreadPoolExecutor(SIZE * 2) as pool:
            [*pool.map(chord.part_returns, [*range(SIZE)] * 4)]

        assert chord.bodies() == 1


def test_a_reply_that_was_lost_does_not_lose_the_body(
    chord: Chord, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(SIZE - 1):
        chord.part_returns(number)
    stock = type(chord.app.backend.client).execute_command
    lost: list[Any] = []

    def lose_one_reply(self: Any, *command: Any, **options: Any) -> Any:
        reply = stock(self, *command, **options)
        if command[0] == "EVALSHA" and not lost:
            lost.append(reply)
            raise RedisConnectionError("the connection was lost after the command was run")
        return reply

    monkeypatch.setattr(type(chord.app.backend.client), "execute_command", lose_one_reply)
    chord.part_returns(SIZE - 1)

    assert lost
    assert chord.bodies() == 1


def test_counters_outlive_results(store: Store) -> None:
    chord = Chord(store, result_expires=1)
    chord.part_returns(0)

    for name in "sjd":
        assert chord.redis.ttl(chord.key(name)) > CHORD_EXPIRES - 10


def test_a_setting_says_how_long_counters_stay(store: Store) -> None:
    chord = Chord(store, result_chord_expires=100)
    chord.part_returns(0)

    assert 90 < chord.redis.ttl(chord.key("j")) <= 100


def test_a_chord_that_ended_leaves_nothing_for_long(store: Store) -> None:
    chord = Chord(store, result_expires=50)
    for number in range(SIZE - 1):
        chord.part_returns(number)
    chord.app.backend.on_chord_part_return(chord.request(SIZE - 1), "FAILURE", ValueError("no"))

    assert chord.bodies() == 0
    assert all(chord.redis.ttl(chord.key(name)) <= 600 for name in "sjdc")


def test_a_copy_of_a_member_runs_while_its_chord_is_open(
    chord: Chord, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = chord.app.backend
    member = chord.members[0]
    backend.store_result(member, 1, "SUCCESS", request=chord.request(0))
    assert backend.get_task_meta(member)["status"] == "SUCCESS"

    # In a worker's process, which checks whether a redelivered job has succeeded.
    monkeypatch.setattr("celery._state.task_join_will_block", lambda: True)
    assert backend.get_task_meta(member)["status"] == "PENDING"
    for number in range(SIZE):
        chord.part_returns(number)
    assert backend.get_task_meta(member)["status"] == "SUCCESS"


def test_the_value_of_a_chord_is_waited_for_like_any(store: Store, chord: Chord) -> None:
    result = chord.app.AsyncResult(chord.body.options["task_id"])
    with soon(store.ends, result, 7):
        assert result.get(timeout=30) == 7
