"""Checks of a task's arguments; each error is one sentence that names the argument."""

from types import NoneType
from typing import Any

#: What an argument of each type is called.
WORDS = {
    int: "a whole number",
    float: "a real number",
    complex: "a number",
    str: "a string",
    bool: "a boolean",
    list: "a list",
    dict: "a dict",
    NoneType: "None",
}
#: Longest `repr`, in characters, that an error message quotes in full.
MAX_REPR_LENGTH = 60
#: Longest integer, in bits, that it quotes in full: 60 digits.
MAX_INT_BITS = 196


def whole_number(name: str, value: Any, minimum: int) -> int:
    """Return `value` if it is an int of at least `minimum`.

    Raise TypeError for any other type, bool included, and ValueError below `minimum`.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise mismatch(name, value, int)
    if value < minimum:
        raise out_of_bounds(name, value, f"at least {minimum}")
    return value


def number(name: str, value: Any) -> Any:
    """Return `value` if it is an int, a float or a complex; raise TypeError otherwise.

    A bool is rejected: as a number it is nearly always a mistake.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | complex):
        raise mismatch(name, value, complex)
    return value


def text(name: str, value: Any) -> str:
    """Return `value` if it is a string; raise TypeError otherwise."""
    if not isinstance(value, str):
        raise mismatch(name, value, str)
    return value


def seconds(name: str, value: Any, limit: int, variable: str) -> float:
    """Return `value` if it is a number of seconds from 0 to `limit`, which `variable` sets.

    Raise TypeError unless it is a real number, ValueError if it is NaN or out of bounds.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number of seconds, not {brief(value)}")
    if not 0 <= value <= limit:
        raise out_of_bounds(name, value, f"from 0 to {limit} ({variable})")
    return float(value)


def mismatch(name: str, value: Any, *kinds: type) -> TypeError:
    """Return the error for a value that is of none of these types, all of them in WORDS."""
    expected = " or ".join(WORDS[kind] for kind in kinds)
    return TypeError(f"{name} must be {expected}, not {brief(value)}")


def out_of_bounds(name: str, value: Any, bound: str) -> ValueError:
    """Return the error for a value outside a bound, such as "at least 0"."""
    return ValueError(f"{name} must be {bound}, not {brief(value)}")


def brief(value: Any) -> str:
    """Return a short text for `value`, for use in an error message."""
    if isinstance(value, int) and value.bit_length() > MAX_INT_BITS:
        return f"an integer of {value.bit_length()} bits"
    try:
        text = repr(value)
    except ValueError:  # it contains an integer of more than 4300 digits
        return f"a {type(value).__name__}"
    return text if len(text) <= MAX_REPR_LENGTH else f"a {type(value).__name__} ({text[:40]}…)"
