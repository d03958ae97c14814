"""Validation of our options in `broker_transport_options`."""

from collections.abc import Callable, Mapping
from typing import Any

from celery_streams.errors import InvalidOption

#: Seconds of the shortest and the longest lease.
MIN_LEASE, MAX_LEASE = 0.1, 86_400
#: The largest of the other numbers.
MAX_NUMBER = 10**12
#: Kombu's priorities, of which `priority_steps` names some.
PRIORITIES = range(10)


def check_options(options: Mapping[str, Any]) -> None:
    """Raise InvalidOption for an option of ours that is out of range; others are kombu's."""
    for name, (is_valid, wanted) in _OPTIONS.items():
        if name in options and not is_valid(options[name]):
            value = repr(options[name])[:80]
            raise InvalidOption(f"broker_transport_options: {name} must be {wanted}, not {value}")


def _is_lease(value: Any) -> bool:
    return type(value) in {int, float} and MIN_LEASE <= value <= MAX_LEASE


def _is_number(value: Any) -> bool:
    return type(value) is int and 1 <= value <= MAX_NUMBER


def _is_steps(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) > 0
        and all(type(step) is int and step in PRIORITIES for step in value)
        and [*value] == sorted({*value})
    )


#: The check of each option, and what it takes.
_OPTIONS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "lease": (_is_lease, f"a number of seconds from {MIN_LEASE} to {MAX_LEASE}"),
    "priority_steps": (_is_steps, "a list of priorities from 0 to 9 in ascending order"),
    **dict.fromkeys(
        ("max_deliveries", "max_message_bytes", "queue_max_length"),
        (_is_number, f"a whole number from 1 to {MAX_NUMBER}"),
    ),
}
