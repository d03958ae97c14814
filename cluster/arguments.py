"""Checks of a task's arguments; each error is one sentence that names the argument."""

from typing import Any

#: Characters of a value in an error's one line.
BRIEF_LENGTH = 60
#: An integer of more bits than this has more digits than that.
BRIEF_BITS = 196


def whole_number(name: str, value: Any, least: int) -> int:
    """Return `value` if it is an int of at least `least`.

    Raises TypeError for anything but an int (a bool is not one here), ValueError below `least`.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {brief(value)}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {brief(value)}")
    return value


def number(name: str, value: Any) -> Any:
    """Return `value` if it is an int, a float or a complex; raises TypeError if not.

    A bool is not a number here: it is nearly always a mistake.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | complex):
        raise TypeError(f"{name} must be a number, not {brief(value)}")
    return value


def seconds(name: str, value: Any, most: int, variable: str) -> float:
    """Return `value` if it is a time in seconds from 0 to `most`, which `variable` sets.

    Raises TypeError for anything but a real number, ValueError outside the bounds or for NaN.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number of seconds, not {brief(value)}")
    if not 0 <= value <= most:
        raise ValueError(f"{name} must be from 0 to {most} ({variable}), not {brief(value)}")
    return float(value)


def brief(value: Any) -> str:
    """Return `value` as text short enough for an error's one line."""
    if isinstance(value, int) and value.bit_length() > BRIEF_BITS:
        return f"an integer of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= BRIEF_LENGTH else f"a {type(value).__name__} ({text[:40]}…)"
