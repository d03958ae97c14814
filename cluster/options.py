"""Validation of a job's options: priority, time, time limits and names."""

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

#: Named priorities. Their numbers depend on the broker: 0 is the most urgent in kombu's Redis
#: transport, and the least urgent in AMQP.
PRIORITIES = ("high", "normal", "low")
_ON_REDIS = {"high": 0, "normal": 3, "low": 6}
#: Quorum queues have two priorities: above 4, and the rest.
_ON_AMQP = {"high": 9, "normal": 4, "low": 0}
#: A priority may also be a number, with the broker's meaning.
MIN_PRIORITY, MAX_PRIORITY = 0, 9

#: Options whose value is a name or an id.
_NAMES = (
    *("task_id", "root_id", "parent_id", "group_id", "shadow", "reply_to"),
    *("routing_key", "correlation_id"),
)

#: Headers reserved by Celery's message protocol.
PROTOCOL = frozenset(
    {
        *("id", "task", "lang", "root_id", "parent_id", "group", "group_index", "retries", "eta"),
        *("expires", "timelimit", "shadow", "origin", "argsrepr", "kwargsrepr", "ignore_result"),
        *("replaced_task_nesting", "stamped_headers", "stamps", "_children", "_protected"),
    }
)
#: Tolerance for an ETA in the past, in seconds: clocks differ, and messages are delayed.
CLOCK_SKEW = 60


def check(options: Mapping[str, Any], now: datetime, max_countdown: int) -> None:
    """Raise ValueError or TypeError for a job's option that no worker can honour.

    `max_countdown` limits how far ahead the job may be scheduled, in seconds.
    """
    if taken := PROTOCOL.intersection(options.get("headers") or ()):
        raise ValueError(f"headers must not contain {min(taken)!r}, which is reserved by Celery")
    for name in options.keys() - _known() - {*(options.get("stamped_headers") or ())}:
        raise TypeError(_unknown(name))
    check_priority(options.get("priority"))
    check_time(options.get("countdown"), options.get("eta"), now, max_countdown)
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
    """Return the names of all options that Celery and kombu accept."""
    functions: tuple[Any, ...] = (
        *(Task.apply_async, Celery.send_task, amqp.AMQP.as_task_v2, Producer.publish),
        VirtualChannel.prepare_message,
    )
    named = {name for each in functions for name in signature(each).parameters}
    return frozenset(named | {name for name, _ in Message.PROPERTIES} | _OTHERS) - {"self"}


#: Options that those functions accept by `**options`.
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
    return f"unknown option {arguments.brief(name)}; {hint}"


def check_priority(value: Any) -> None:
    """Raise ValueError unless `value` is None, high, normal, low or a number from 0 to 9."""
    is_name = value is None or (isinstance(value, str) and value in PRIORITIES)
    is_int = isinstance(value, int) and not isinstance(value, bool)
    if not is_name and not (is_int and MIN_PRIORITY <= value <= MAX_PRIORITY):
        raise ValueError(
            f"priority must be {', '.join(PRIORITIES)} or a whole number from {MIN_PRIORITY} to "
            f"{MAX_PRIORITY}, not {arguments.brief(value)}"
        )


def number(priority: Any, *, amqp: bool) -> int:
    """Return the broker's number for a priority; None means normal."""
    numbers = _ON_AMQP if amqp else _ON_REDIS
    if priority is None or isinstance(priority, str):
        return numbers.get(priority or "normal", numbers["normal"])
    return min(max(int(priority), MIN_PRIORITY), MAX_PRIORITY)


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
    retries = arguments.whole_number("retries", 0 if value is None else value, minimum=0)
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
                f"expires must be a time in ISO 8601 format, not {arguments.brief(value)}"
            ) from None
    elif value is not None and not isinstance(value, datetime):
        _check_seconds("expires", value)


def _check_linked(name: str, value: Any) -> None:
    for each in value if isinstance(value, list | tuple) else [value]:
        if each is not None and not (isinstance(each, Mapping) and "task" in each):
            raise TypeError(
                f"{name} must be a signature or a list of signatures, not {arguments.brief(value)}"
            )


def _check_encoding(serializer: Any, compression: Any) -> None:
    if serializer not in (None, "json"):
        raise ValueError(
            f"serializer must be json, all that workers accept, not {arguments.brief(serializer)}"
        )
    try:
        if compression is not None:
            get_encoder(compression)
    except (KeyError, TypeError):
        raise ValueError(
            "compression must be a method of kombu, such as gzip, not "
            f"{arguments.brief(compression)}"
        ) from None


def _check_name(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {arguments.brief(value)}")
    if not validation.is_name(value):
        raise ValueError(
            f"{name} must be a string of at most {validation.MAX_NAME} characters, not "
            f"{arguments.brief(value)}"
        )


def check_time(countdown: Any, eta: Any, now: datetime, max_countdown: int) -> None:
    """Raise ValueError for a time in the past or more than `max_countdown` seconds ahead.

    A delayed job takes up memory in Redis, and its caller can't distinguish it from a lost one.
    Raise TypeError for a value that is not a time.
    """
    if countdown is not None and eta is not None:
        raise ValueError("countdown and eta are mutually exclusive")
    if countdown is not None:
        _check_countdown(countdown, max_countdown)
    if eta is not None:
        moment = _moment(eta, now)
        if moment < now - timedelta(seconds=CLOCK_SKEW):
            raise ValueError(f"eta must not be in the past, as {eta} is")
        if moment > now + timedelta(seconds=max_countdown):
            raise ValueError(
                f"eta must be within {max_countdown} s from now (MAX_COUNTDOWN), not {eta}; "
                "for later times see beat_schedule in celeryconfig.py"
            )


def in_whole_seconds(countdown: Any, eta: Any, now: datetime) -> tuple[Any, Any]:
    """Return countdown and ETA for RabbitMQ, with a delay below one second raised to one second.

    Celery would raise ValueError for the shorter delay.
    """
    left = countdown
    if eta is not None:
        left = (_moment(eta, now) - now).total_seconds()
    if left is None or left >= 1:
        return countdown, eta
    return (1 if left > 0 else None), None


def _check_countdown(countdown: Any, limit: int) -> None:
    if isinstance(countdown, bool) or not isinstance(countdown, int | float):
        raise TypeError(f"countdown must be a number of seconds, not {arguments.brief(countdown)}")
    if not 0 <= countdown <= limit:
        raise ValueError(
            f"countdown must be from 0 to {limit} s (MAX_COUNTDOWN), "
            f"not {arguments.brief(countdown)}"
        )


def _moment(eta: Any, now: datetime) -> datetime:
    """Return an ETA as an aware datetime; without a time zone it is in that of `now`."""
    if isinstance(eta, str):
        try:
            eta = datetime.fromisoformat(eta)
        except ValueError:
            raise ValueError(
                f"eta must be a time in ISO 8601 format, not {arguments.brief(eta)}"
            ) from None
    if not isinstance(eta, datetime):
        raise TypeError(f"eta must be a datetime, not {arguments.brief(eta)}")
    return eta if eta.tzinfo else eta.replace(tzinfo=now.tzinfo)
