"""Checks of a task's arguments; each error is one sentence that names the argument."""

from typing import Any

#: Longest `repr`, in characters, that an error message quotes in full.
MAX_REPR_LENGTH = 60
#: Longest integer, in bits, that it quotes in full: 60 digits.
MAX_INT_BITS = 196


def whole_number(name: str, value: Any, minimum: int) -> int:
    """Return `value` if it is an int of at least `minimum`.

    Raise TypeError for any other type, bool included, and ValueError below `minimum`.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {brief(value)}")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, not {brief(value)}")
    return value


def number(name: str, value: Any) -> Any:
    """Return `value` if it is an int, a float or a complex; raise TypeError otherwise.

    A bool is rejected: as a number it is nearly always a mistake.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | complex):
        raise TypeError(f"{name} must be a number, not {brief(value)}")
    return value


def seconds(name: str, value: Any, limit: int, variable: str) -> float:
    """Return `value` if it is a number of seconds from 0 to `limit`, which `variable` sets.

    Raise TypeError unless it is a real number, ValueError if it is NaN or out of bounds.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number of seconds, not {brief(value)}")
    if not 0 <= value <= limit:
        raise ValueError(f"{name} must be from 0 to {limit} ({variable}), not {brief(value)}")
    return float(value)


def brief(value: Any) -> str:
    """Return a short text for `value`, for use in an error message."""
    if isinstance(value, int) and value.bit_length() > MAX_INT_BITS:
        return f"an integer of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= MAX_REPR_LENGTH else f"a {type(value).__name__} ({text[:40]}…)"
