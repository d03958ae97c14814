"""What is announced before it is asked for stays within its bytes."""

from streams.announced import Announced


def test_it_is_taken_once() -> None:
    announced = Announced(100)
    announced.put("a", {"result": 1}, 40)

    assert announced.take("a") == {"result": 1}
    assert announced.take("a") is None
    assert announced.take("never") is None


def test_the_oldest_go_first() -> None:
    announced = Announced(100)
    for job_id in "abc":
        announced.put(job_id, job_id, 40)

    assert [announced.take(job_id) for job_id in "abc"] == [None, "b", "c"]


def test_what_was_taken_or_said_again_takes_no_room() -> None:
    announced = Announced(100)
    for _ in range(10):
        announced.put("a", 1, 60)
    announced.take("a")
    announced.put("b", 2, 60)
    announced.put("c", 3, 40)

    assert [announced.take("b"), announced.take("c")] == [2, 3]


def test_one_that_is_larger_than_all_is_not_kept() -> None:
    announced = Announced(100)
    announced.put("a", 1, 101)

    assert announced.take("a") is None
