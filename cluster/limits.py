"""Checks of arguments, each failing with one sentence that names the limit's setting."""

import os
from typing import Any

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

#: The largest number of a setting where nothing else bounds it, and that of a time in seconds:
#: Redis and JSON take the one, timers and threads the other.
MOST = 10**15
MOST_SECONDS = 10**9
#: Processes of a worker's pool, as remote control bounds them.
MOST_PROCESSES = 1000
#: Digits of a setting, leading zeros included.
MAX_DIGITS = 20

#: A value in an error's one line is shown in up to this many characters.
BRIEF_LENGTH = 60
#: An integer of more bits than this has more digits than that.
BRIEF_BITS = 196


def setting(variable: str, default: int, most: int = MOST, least: int = 1) -> int:
    """Return what an environment variable is set to: a whole number from `least` to `most`.

    Raises ValueError, naming the variable, if it holds anything else.
    """
    text = os.environ.get(variable) or str(default)
    is_number = text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS
    if not is_number or not least <= int(text) <= most:
        raise ValueError(
            f"{variable} must be a whole number from {least} to {most}, not {brief(text)}"
        )
    return int(text)


def choice(variable: str, default: str, *others: str) -> str:
    """Return what an environment variable is set to: one of these words.

    Raises ValueError, naming the variable, if it holds anything else.
    """
    words = dict.fromkeys((default, *others))
    word = os.environ.get(variable) or default
    if word not in words:
        raise ValueError(f"{variable} must be one of {', '.join(words)}, not {word!r}")
    return word


def log_level() -> str:
    """Return what LOG_LEVEL is set to, INFO if it is not.

    Raises ValueError for what is no level of Python's logging.
    """
    return choice("LOG_LEVEL", "INFO", *LOG_LEVELS)


def whole_number(name: str, value: Any, least: int) -> int:
    """Return `value` if it is an int of at least `least`.

    Raises TypeError for anything but an int (a bool is none here), ValueError below `least`.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {brief(value)}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {brief(value)}")
    return value


def number(name: str, value: Any) -> Any:
    """Return `value` if it is an int, a float or a complex; raises TypeError if not.

    A bool is no number here: it is a mistake far more often than it is meant.
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
