"""Options of time and priority: those that are refused, and the broker's values."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cluster import options

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
DAY = 86_400


@pytest.mark.parametrize(
    ("value", "on_redis", "on_amqp"),
    [("high", 0, 9), ("normal", 3, 4), (None, 3, 4), ("low", 6, 0), (0, 0, 0), (9, 9, 9)],
)
def test_a_priority_is_a_number_of_the_brokers(value: Any, on_redis: int, on_amqp: int) -> None:
    options.check_priority(value)

    assert options.number(value, amqp=False) == on_redis
    assert options.number(value, amqp=True) == on_amqp


@pytest.mark.parametrize("value", [-1, 10, 10**400, "urgent", "", 1.5, True, [1]])
def test_a_priority_out_of_range_is_one_line(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^priority must be high, normal, low or a whole number"):
        options.check_priority(value)


@pytest.mark.parametrize(
    ("countdown", "eta"),
    [
        (None, None),
        (0, None),
        (0.5, None),
        (DAY, None),
        (None, NOW),
        (None, NOW - timedelta(seconds=59)),
        (None, NOW + timedelta(days=1)),
        (None, "2026-11-21T13:00"),
        (None, "2026-11-21T13:00:00.5+01:00"),
        (None, datetime(2026, 11, 21, 12)),  # noqa: DTZ001 - one without a zone is UTC
    ],
)
def test_a_time_that_is_safe_passes(countdown: Any, eta: Any) -> None:
    options.check_time(countdown, eta, NOW, DAY)


@pytest.mark.parametrize(
    ("countdown", "eta", "error", "words"),
    [
        (-1, None, ValueError, "countdown must be from 0 to 86400 s (MAX_COUNTDOWN), not -1"),
        (DAY + 1, None, ValueError, "not 86401"),
        (float("nan"), None, ValueError, "not nan"),
        (float("inf"), None, ValueError, "not inf"),
        ("soon", None, TypeError, "countdown must be a number of seconds, not 'soon'"),
        (True, None, TypeError, "not True"),
        (None, NOW - timedelta(hours=1), ValueError, "eta must not be in the past"),
        (None, NOW + timedelta(days=1, seconds=1), ValueError, "eta must be within 86400 s"),
        (None, "9999-12-31", ValueError, "beat_schedule"),
        (None, "tomorrow", ValueError, "eta must be a time in ISO 8601 format"),
        (None, 7, TypeError, "eta must be a datetime, not 7"),
        (1, NOW, ValueError, "countdown and eta are mutually exclusive"),
    ],
)
def test_a_time_that_is_not_safe_is_one_line(
    countdown: Any, eta: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as caught:
        options.check_time(countdown, eta, NOW, DAY)

    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"time_limit": "x"}, TypeError, "time_limit must be a number of seconds, not 'x'"),
        ({"time_limit": 0}, ValueError, "time_limit must be a number of seconds above zero, not 0"),
        ({"soft_time_limit": [1]}, TypeError, "soft_time_limit must be a number of seconds"),
        ({"soft_time_limit": float("nan")}, ValueError, "not nan"),
        ({"expires": -5}, ValueError, "expires must be a number of seconds above zero, not -5"),
        ({"expires": float("inf")}, ValueError, "not inf"),
        ({"time_limit": 10**400}, ValueError, "time_limit must be at most 1000000000 s, not an"),
        ({"soft_time_limit": 1e300}, ValueError, "soft_time_limit must be at most 1000000000 s"),
        ({"expires": 10**400}, ValueError, "expires must be at most 1000000000 s"),
        ({"retries": 10**400}, ValueError, "retries must be at most 1000000, not an integer of"),
        ({"countdown": 10**400}, ValueError, "countdown must be from 0 to 86400 s"),
        ({"expires": "x"}, ValueError, "expires must be a time in ISO 8601 format, not 'x'"),
        ({"expires": [1]}, TypeError, "expires must be a number of seconds, not [1]"),
        ({"expiration": float("inf")}, ValueError, "expiration must be at most"),
        ({"expiration": "x"}, TypeError, "expiration must be a number of seconds"),
        ({"link": 5}, TypeError, "link must be a signature or a list of signatures, not 5"),
        (
            {"link_error": ["x"]},
            TypeError,
            "link_error must be a signature or a list of signatures",
        ),
        ({"serializer": "pickle"}, ValueError, "serializer must be json"),
        ({"compression": "nosuch"}, ValueError, "compression must be a method of kombu"),
        ({"compression": ["gzip"]}, ValueError, "compression must be a method of kombu"),
        ({"task_id": "half \ud800"}, ValueError, "task_id must be a string"),
        ({"retries": -1}, ValueError, "retries must be at least 0"),
        ({"retries": "many"}, TypeError, "retries must be a whole number"),
        ({"shadow": "x" * 10**6}, ValueError, "shadow must be a string of at most 1024 characters"),
        ({"shadow": 7}, TypeError, "shadow must be a string, not 7"),
        ({"root_id": {"a": 1}}, TypeError, "root_id must be a string"),
        ({"reply_to": "half \ud800"}, ValueError, "reply_to must be a string"),
        ({"task_id": "x" * 1025}, ValueError, "task_id must be a string of at most"),
        ({"priority": 12}, ValueError, "priority must be"),
        ({"countdown": -1}, ValueError, "countdown must be"),
    ],
)
def test_an_option_that_no_worker_can_honour_is_one_line(
    wrong: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as caught:
        options.check(wrong, NOW, DAY)

    assert words in str(caught.value)


def test_options_that_are_right_pass() -> None:
    options.check({"time_limit": 1, "soft_time_limit": 0.5, "expires": NOW}, NOW, DAY)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"prioritty": "high"}, "unknown option 'prioritty'; did you mean 'priority'?"),
        ({"count_down": 5}, "unknown option 'count_down'; did you mean 'countdown'?"),
        ({"timelimit": 5}, "did you mean 'time_limit'?"),
        ({"zzzzzzzz": 5}, "Celery's documentation of apply_async lists them"),
        ({"x" * 10**6: 5}, "unknown option a str"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_an_option_that_does_not_exist_is_named(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(TypeError) as caught:
        options.check(wrong, NOW, DAY)

    assert words in str(caught.value)
    assert len(str(caught.value)) < 200


def test_options_of_celery_and_kombu_and_stamps_of_any_name_pass() -> None:
    options.check(
        {
            "link": None,
            "link_error": [],
            "serializer": "json",
            "compression": "gzip",
            "headers": {"x": 1},
            "expiration": 5,
            "mandatory": True,
            "ignore_result": True,
            "add_to_parent": False,
            "correlation_id": "x",
            "stamped_headers": ["mine"],
            "mine": 7,
            "shadow": "x",
            "retry_policy": {},
            "router": None,
            "connection": None,
        },
        NOW,
        DAY,
    )


@pytest.mark.parametrize("name", ["id", "task", "timelimit", "_children"])
def test_a_header_of_celerys_own_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"headers must not contain {name!r}"):
        options.check({"headers": {"mine": 1, name: "x"}}, datetime.now(UTC), 60)
