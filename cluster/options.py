"""The options of a job: its priority, when it runs, how long it may, checked."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cache
from inspect import signature
from typing import Any

from amqp.basic_message import Message
from celery import Celery
from celery.app import amqp
from celery.app.task import Task
from kombu import Producer
from kombu.compression import get_encoder
from kombu.transport.virtual import Channel as VirtualChannel

from celery_streams.transport import validation
from cluster import arguments
from cluster.routes import nearest

#: The priorities by name. What number each is depends on the broker: kombu's Redis transport
#: takes 0 for the most urgent, AMQP takes 0 for the least.
PRIORITIES = ("high", "normal", "low")
_ON_REDIS = {"high": 0, "normal": 3, "low": 6}
#: Quorum queues know two: above 4, and the rest.
_ON_AMQP = {"high": 9, "normal": 4, "low": 0}
#: Numbers pass as they are, with the broker's meaning.
LEAST, MOST = 0, 9

#: Options that name something: a job, a group, a queue.
_NAMES = (
    *("task_id", "root_id", "parent_id", "group_id", "shadow", "reply_to"),
    *("routing_key", "correlation_id"),
)

#: Headers by which Celery's protocol describes a job.
PROTOCOL = frozenset(
    {
        *("id", "task", "lang", "root_id", "parent_id", "group", "group_index", "retries", "eta"),
        *("expires", "timelimit", "shadow", "origin", "argsrepr", "kwargsrepr", "ignore_result"),
        *("replaced_task_nesting", "stamped_headers", "stamps", "_children", "_protected"),
    }
)
#: Seconds by which an ETA may have passed: clocks differ, and a message takes its time.
CLOCK_SKEW = 60


def check(options: Mapping[str, Any], now: datetime, most: int) -> None:
    """Check a job's options; `most` is how many seconds ahead it may run.

    Raises ValueError or TypeError, in one sentence, for one that no worker can honour.
    """
    if taken := PROTOCOL.intersection(options.get("headers") or ()):
        raise ValueError(f"headers must not hold {min(taken)!r}: that one is Celery's own")
    for name in options.keys() - _known() - {*(options.get("stamped_headers") or ())}:
        raise TypeError(_unknown(name))
    check_priority(options.get("priority"))
    check_time(options.get("countdown"), options.get("eta"), now, most)
    for name in ("time_limit", "soft_time_limit"):
        if options.get(name) is not None:
            _check_seconds(name, options[name])
    _check_expiry(options.get("expires"))
    if options.get("expiration") is not None:
        _check_seconds("expiration", options["expiration"])
    for name in ("link", "link_error"):
        _check_linked(name, options.get(name))
    _check_encoding(options.get("serializer"), options.get("compression"))
    _check_retries(options.get("retries"))
    for name in _NAMES:
        if options.get(name) is not None:
            _check_name(name, options[name])


@cache
def _known() -> frozenset[str]:
    """Return the names of all options that Celery and kombu take."""
    functions: tuple[Any, ...] = (
        *(Task.apply_async, Celery.send_task, amqp.AMQP.as_task_v2, Producer.publish),
        VirtualChannel.prepare_message,
    )
    named = {name for each in functions for name in signature(each).parameters}
    return frozenset(named | {name for name, _ in Message.PROPERTIES} | _OTHERS) - {"self"}


#: Options that those functions take without naming them.
_OTHERS = frozenset(
    {
        *("link", "link_error", "chain", "chord", "group_id", "task_id", "queue", "producer"),
        *("result_cls", "add_to_parent", "stamped_headers", "exchange_type", "delivery_mode"),
        *("time_limit", "soft_time_limit", "publisher", "countdown", "eta", "interval"),
    }
)


def _unknown(name: Any) -> str:
    near = nearest(str(name), _known())
    hint = f"did you mean {near!r}?" if near else "Celery's documentation of apply_async lists them"
    return f"a job has no option {arguments.brief(name)}; {hint}"


def check_priority(value: Any) -> None:
    """Raise ValueError for anything but None, high, normal, low or a number from 0 to 9."""
    is_name = value is None or (isinstance(value, str) and value in PRIORITIES)
    is_number = isinstance(value, int) and not isinstance(value, bool) and LEAST <= value <= MOST
    if not is_name and not is_number:
        raise ValueError(
            f"priority must be {', '.join(PRIORITIES)} or a whole number from {LEAST} to {MOST}, "
            f"not {arguments.brief(value)}"
        )


def number(priority: Any, *, amqp: bool) -> int:
    """Return the broker's number for a priority; None stands for normal."""
    numbers = _ON_AMQP if amqp else _ON_REDIS
    if priority is None or isinstance(priority, str):
        return numbers.get(priority or "normal", numbers["normal"])
    return min(max(int(priority), LEAST), MOST)


def _check_seconds(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number of seconds, not {arguments.brief(value)}")
    if not value > 0:
        raise ValueError(f"{name} must be a number of seconds above zero, not {value}")
    if value > validation.MAX_SECONDS:
        raise ValueError(
            f"{name} must be at most {validation.MAX_SECONDS} s, not {arguments.brief(value)}"
        )


def _check_retries(value: Any) -> None:
    retries = arguments.whole_number("retries", 0 if value is None else value, least=0)
    if retries > validation.MAX_RETRIES:
        raise ValueError(
            f"retries must be at most {validation.MAX_RETRIES}, not {arguments.brief(retries)}"
        )


def _check_expiry(value: Any) -> None:
    if isinstance(value, str):
        try:
            datetime.fromisoformat(value)
        except ValueError:
            raise ValueError(
                f"expires must be a time as ISO 8601 writes it, not {arguments.brief(value)}"
            ) from None
    elif value is not None and not isinstance(value, datetime):
        _check_seconds("expires", value)


def _check_linked(name: str, value: Any) -> None:
    for each in value if isinstance(value, list | tuple) else [value]:
        if each is not None and not (isinstance(each, Mapping) and "task" in each):
            raise TypeError(
                f"{name} must be a signature or a list of them, not {arguments.brief(value)}"
            )


def _check_encoding(serializer: Any, compression: Any) -> None:
    if serializer not in (None, "json"):
        raise ValueError(
            f"serializer must be json, which workers accept, not {arguments.brief(serializer)}"
        )
    try:
        if compression is not None:
            get_encoder(compression)
    except (KeyError, TypeError):
        raise ValueError(
            "compression must be one that kombu knows, such as gzip, not "
            f"{arguments.brief(compression)}"
        ) from None


def _check_name(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a text, not {arguments.brief(value)}")
    if not validation.is_name(value):
        raise ValueError(
            f"{name} must be a text of up to {validation.MAX_NAME} characters, not "
            f"{arguments.brief(value)}"
        )


def check_time(countdown: Any, eta: Any, now: datetime, most: int) -> None:
    """Check that a job runs neither in the past nor in more than `most` seconds.

    Until then a worker holds the job in its memory, and its caller can't tell it from one
    that was lost. Raises ValueError, or TypeError for what is no time at all.
    """
    if countdown is not None and eta is not None:
        raise ValueError("countdown and eta exclude each other: give one of them")
    if countdown is not None:
        _check_countdown(countdown, most)
    if eta is not None:
        moment = _moment(eta, now)
        if moment < now - timedelta(seconds=CLOCK_SKEW):
            raise ValueError(f"eta must not be in the past, as {eta} is")
        if moment > now + timedelta(seconds=most):
            raise ValueError(
                f"eta must be within {most} s from now (MAX_COUNTDOWN), which {eta} is not; "
                "beat_schedule in celeryconfig.py is for what is further away"
            )


def in_whole_seconds(countdown: Any, eta: Any, now: datetime) -> tuple[Any, Any]:
    """Return the countdown and the ETA for RabbitMQ, where a job waits for a second or more.

    Celery raises ValueError for a countdown, or an ETA, that is less than a second away.
    """
    left = countdown
    if eta is not None:
        left = (_moment(eta, now) - now).total_seconds()
    if left is None or left >= 1:
        return countdown, eta
    return (1 if left > 0 else None), None


def _check_countdown(countdown: Any, most: int) -> None:
    if isinstance(countdown, bool) or not isinstance(countdown, int | float):
        raise TypeError(f"countdown must be a number of seconds, not {arguments.brief(countdown)}")
    if not 0 <= countdown <= most:
        raise ValueError(
            f"countdown must be from 0 to {most} s (MAX_COUNTDOWN), "
            f"not {arguments.brief(countdown)}"
        )


def _moment(eta: Any, now: datetime) -> datetime:
    """Return an ETA as a datetime with a time zone: the cluster's, UTC, if it names none."""
    if isinstance(eta, str):
        try:
            eta = datetime.fromisoformat(eta)
        except ValueError:
            raise ValueError(
                f"eta must be a time as ISO 8601 writes it, not {arguments.brief(eta)}"
            ) from None
    if not isinstance(eta, datetime):
        raise TypeError(f"eta must be a datetime, not {arguments.brief(eta)}")
    return eta if eta.tzinfo else eta.replace(tzinfo=now.tzinfo)
