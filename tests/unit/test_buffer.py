"""What is announced before it is asked for stays within its bytes."""

from celery_streams.results.buffer import OVERHEAD, ResultBuffer

#: Bytes of what is known of a job here, and of its entry.
KNOWN = {"result": "x" * 27}
SIZE = OVERHEAD + len('{"result":"' + "x" * 27 + '"}')


def test_it_is_taken_once() -> None:
    announced = ResultBuffer(SIZE)
    announced.put("a", KNOWN)

    assert announced.take("a") == KNOWN
    assert announced.take("a") is None
    assert announced.take("never") is None


def test_the_oldest_go_first() -> None:
    announced = ResultBuffer(2 * SIZE)
    for job_id in "abc":
        announced.put(job_id, KNOWN)

    assert [announced.take(job_id) for job_id in "abc"] == [None, KNOWN, KNOWN]


def test_what_was_taken_or_said_again_takes_no_room() -> None:
    announced = ResultBuffer(2 * SIZE)
    for _ in range(10):
        announced.put("a", KNOWN)
    announced.take("a")
    for job_id in "bc":
        announced.put(job_id, KNOWN)

    assert [announced.take(job_id) for job_id in "bc"] == [KNOWN, KNOWN]


def test_one_that_is_larger_than_all_is_not_kept() -> None:
    announced = ResultBuffer(SIZE - 1)
    announced.put("a", KNOWN)

    assert announced.take("a") is None


def test_what_is_not_plain_is_not_kept() -> None:
    announced = ResultBuffer(SIZE)
    announced.put("a", {"result": {1, 2}})

    assert announced.take("a") is None
