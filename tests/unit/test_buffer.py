"""The buffer of results that are announced before a caller asks stays within its size."""

from celery_streams.results.buffer import OVERHEAD, ResultBuffer

#: The state of a job here, and the bytes of its entry.
KNOWN = {"result": "x" * 27}
SIZE = OVERHEAD + len('{"result":"' + "x" * 27 + '"}')


def test_it_is_taken_once() -> None:
    buffer = ResultBuffer(SIZE)
    buffer.put("a", KNOWN)

    assert buffer.take("a") == KNOWN
    assert buffer.take("a") is None
    assert buffer.take("never") is None


def test_the_oldest_go_first() -> None:
    buffer = ResultBuffer(2 * SIZE)
    for job_id in "abc":
        buffer.put(job_id, KNOWN)

    assert [buffer.take(job_id) for job_id in "abc"] == [None, KNOWN, KNOWN]


def test_what_was_taken_or_said_again_takes_no_room() -> None:
    buffer = ResultBuffer(2 * SIZE)
    for _ in range(10):
        buffer.put("a", KNOWN)
    buffer.take("a")
    for job_id in "bc":
        buffer.put(job_id, KNOWN)

    assert [buffer.take(job_id) for job_id in "bc"] == [KNOWN, KNOWN]


def test_one_that_is_larger_than_all_is_not_kept() -> None:
    buffer = ResultBuffer(SIZE - 1)
    buffer.put("a", KNOWN)

    assert buffer.take("a") is None


def test_what_is_not_plain_is_not_kept() -> None:
    buffer = ResultBuffer(SIZE)
    buffer.put("a", {"result": {1, 2}})

    assert buffer.take("a") is None
